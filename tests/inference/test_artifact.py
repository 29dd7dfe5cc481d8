from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from features.errors import DeclarationError
from inference.artifact import read_artifact
from inference.errors import ArtifactError
from inference.predictor import Predictor


@pytest.fixture
def copy(artifacts: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(artifacts, tmp_path / "model"))


def rewrite(path: Path, **changes: Any) -> None:
    content = orjson.loads((path / "model.json").read_bytes())
    (path / "model.json").write_bytes(orjson.dumps(content | changes))


def test_a_model_folder_names_its_view_and_fields(artifacts: Path) -> None:
    artifact = read_artifact(artifacts)
    assert artifact.view.key == "subscriber@1"
    assert [field.name for field in artifact.request_fields] == ["platform"]
    assert artifact.request_fields[0].default == "unknown"


@pytest.mark.parametrize("name", ["model.json", "saved_model/saved_model.pb"])
def test_a_folder_without_a_part_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ArtifactError, match=f"model folder is incomplete.*expected {name}"):
        read_artifact(copy)


@pytest.mark.parametrize("content", [b"{", b"[]"])
def test_a_damaged_description_is_refused(copy: Path, content: bytes) -> None:
    (copy / "model.json").write_bytes(content)
    with pytest.raises(ArtifactError, match="model description is damaged"):
        read_artifact(copy)


def test_a_description_without_a_name_is_refused(copy: Path) -> None:
    content = orjson.loads((copy / "model.json").read_bytes())
    del content["view_hash"]
    (copy / "model.json").write_bytes(orjson.dumps(content))
    with pytest.raises(ArtifactError, match="incomplete.*got no view_hash"):
        read_artifact(copy)


def test_a_model_of_another_view_version_is_refused(copy: Path) -> None:
    rewrite(copy, view_hash="0" * 64)
    with pytest.raises(ArtifactError, match="another version of its view.*got hash 000000000000 of subscriber@1"):
        read_artifact(copy)


def test_a_model_of_an_unknown_catalog_is_refused(copy: Path) -> None:
    rewrite(copy, catalog="nowhere")
    with pytest.raises(DeclarationError, match="catalog cannot be loaded"):
        read_artifact(copy)


def test_a_graph_that_takes_other_inputs_is_refused(copy: Path) -> None:
    rewrite(copy, request_fields=[])
    with pytest.raises(ArtifactError, match="saved model cannot be served.*got .*platform string"):
        Predictor(read_artifact(copy))


def test_a_truncated_saved_model_is_refused(copy: Path) -> None:
    graph = copy / "saved_model" / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="saved model cannot be served"):
        Predictor(read_artifact(copy))


def test_a_saved_model_without_its_variables_is_refused(copy: Path) -> None:
    shutil.rmtree(copy / "saved_model" / "variables")
    with pytest.raises(ArtifactError, match="saved model cannot be served"):
        Predictor(read_artifact(copy))


def test_an_unknown_entity_has_a_score_in_batches_of_any_size(artifacts: Path) -> None:
    predictor = Predictor(read_artifact(artifacts))
    for rows in (1, 3, 16, 100):
        scores = predictor.predict_cold(rows, with_features=True)
        assert scores.score.shape == (rows,)
        assert scores.features["integers"].shape == (rows, 3)
