"""Stored services: optimistic lock, durability, and an operator's file beside a rollout's changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inference.plane.documents import Documents
from inference.plane.errors import ConflictError, DocumentError
from inference.plane.patch import apply_patch


def service(version: int = 1, percent: int | None = None) -> dict[str, Any]:
    model = {"name": "kserve-container", "modelFormat": {"name": "plumbline"}}
    spec: dict[str, Any] = {"predictor": {"model": {**model, "storageUri": f"pvc://plumb-models/churn/{version}"}}}
    if percent is not None:
        canary = {"name": "v2", "model": {**model, "storageUri": "pvc://plumb-models/churn/2"}}
        spec["canary"] = [{"trafficPercent": percent, "predictor": canary}]
    metadata = {"name": "churn", "annotations": {"serving.kserve.io/deploymentMode": "Standard"}}
    return {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": metadata, "spec": spec}


def read(documents: Documents) -> dict[str, Any]:
    found = documents.read("churn")
    assert found is not None
    return found


def test_a_write_names_the_version_that_it_read(tmp_path: Path) -> None:
    documents = Documents(tmp_path)
    documents.write("churn", service(), 100)
    first = read(documents)
    assert first["metadata"]["resourceVersion"] == "100"
    documents.write("churn", first | {"spec": service(percent=5)["spec"]}, 50)
    assert read(documents)["metadata"]["resourceVersion"] == "101"  # a clock that went back does not take the version along
    with pytest.raises(ConflictError, match="changed meanwhile: churn, resourceVersion; expected 101; got 100"):
        documents.write("churn", first, 200)
    with pytest.raises(ConflictError):
        documents.write("churn", service(), 200)
    assert read(documents)["spec"]["canary"][0]["trafficPercent"] == 5


def test_a_bad_document_changes_nothing(tmp_path: Path) -> None:
    documents = Documents(tmp_path)
    documents.write("churn", service(), 100)
    broken = read(documents)
    broken["spec"]["predictor"]["model"]["storageUri"] = "s3://elsewhere"
    with pytest.raises(DocumentError):
        documents.write("churn", broken, 200)
    with pytest.raises(DocumentError, match="another name"):
        documents.write("other", read(documents), 200)
    assert Documents(tmp_path).read("churn") == documents.read("churn")


def test_a_restart_reads_what_was_last_written(tmp_path: Path) -> None:
    documents = Documents(tmp_path)
    documents.apply_file(service(percent=1), 100)
    patched = apply_patch(read(documents), [{"op": "replace", "path": "/spec/canary/0/trafficPercent", "value": 25}])
    documents.write("churn", patched, 200)
    again = Documents(tmp_path)
    found = again.service("churn")
    assert found is not None
    assert found.canary is not None
    assert found.canary.percent == 25
    assert sorted(path.name for path in tmp_path.iterdir()) == ["churn.json", "churn.reserve"]


def test_an_unchanged_file_leaves_a_rollouts_weights_and_a_changed_one_replaces_them(tmp_path: Path) -> None:
    documents = Documents(tmp_path)
    assert documents.apply_file(service(percent=1), 100)
    patched = apply_patch(read(documents), [{"op": "replace", "path": "/spec/canary/0/trafficPercent", "value": 25}])
    documents.write("churn", patched, 200)
    again = Documents(tmp_path)
    assert not again.apply_file(service(percent=1), 300)
    assert read(again)["spec"]["canary"][0]["trafficPercent"] == 25
    assert again.apply_file(service(version=3), 400)
    assert "canary" not in read(again)["spec"]


@pytest.mark.parametrize("text", ["{", "[]", '{"document": {"kind": "Pod"}, "applied": null}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "churn.json").write_text(text)
    with pytest.raises(DocumentError, match=f"stored service is damaged: {tmp_path}/churn.json"):
        Documents(tmp_path)


def test_a_deleted_service_is_gone_and_its_versions_do_not_come_back(tmp_path: Path) -> None:
    documents = Documents(tmp_path)
    documents.write("churn", service(), 100)
    documents.delete("churn")
    assert Documents(tmp_path).names() == documents.names() == []
    documents.write("churn", service(), 101)
    assert read(documents)["metadata"]["resourceVersion"] == "101"
