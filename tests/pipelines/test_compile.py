from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.compile import COMPILED, PIPELINES, comparable, compile_text, pipeline_hash, read_compiled, write_pipelines
from pipelines.errors import PipelineError
from pipelines.run import step_names

HEAVY = ("tensorflow", "apache_beam", "keras", "tensorflow_transform", "lightgbm", "kserve")


@pytest.mark.parametrize("name", PIPELINES)
def test_the_compiled_pipeline_kept_with_the_code_is_what_the_code_compiles_to(name: str) -> None:
    kept = (COMPILED / f"{name}.yaml").read_text(encoding="utf-8")
    assert comparable(kept) == comparable(compile_text(name))


def test_another_sdk_version_alone_makes_no_difference(tmp_path: Path) -> None:
    text = read_compiled("training")
    other = text.replace("sdkVersion: kfp-", "sdkVersion: kfp-9.")
    assert other != text
    assert pipeline_hash(other) == pipeline_hash(text)
    (tmp_path / "training.yaml").write_text(other, encoding="utf-8")
    assert read_compiled("training", tmp_path) == other


def test_a_stale_or_missing_file_is_refused_with_the_command_that_renews_it(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="missing.*plumb pipelines compile"):
        read_compiled("training", tmp_path)
    path = next(path for path in write_pipelines(tmp_path) if path.stem == "training")
    path.write_text(path.read_text(encoding="utf-8").replace("maxRetryCount: 1", "maxRetryCount: 2"), encoding="utf-8")
    with pytest.raises(PipelineError, match="not up to date.*plumb pipelines compile"):
        read_compiled("training", tmp_path)


def test_steps_are_listed_in_an_order_in_which_they_can_run() -> None:
    expected = ("training-rows", "fit-graph", "train", "evaluate", "gate", "report", "register")
    assert step_names(read_compiled("training")) == expected


def test_no_step_names_packages_to_install_and_all_share_one_image() -> None:
    text = read_compiled("training")
    assert "pip install" not in text
    assert {line.strip() for line in text.splitlines() if line.strip().startswith("image:")} == {
        "image: plumbline-python:0.1.0"
    }


def test_compiling_loads_no_framework() -> None:
    program = f"""
import sys
from pipelines.compile import compile_text
compile_text("training")
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


def test_the_text_does_not_depend_on_the_hash_seed() -> None:
    program = "from pipelines.compile import *; print(pipeline_hash(compile_text('training')))"
    hashes = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                       env={**os.environ, "PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert hashes == {pipeline_hash(read_compiled("training")) + "\n"}
