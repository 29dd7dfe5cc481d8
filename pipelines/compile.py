"""Compile pipelines to the YAML that runs locally and on a cluster alike, and tell whether a file is up to date."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Final

from kfp import compiler

from features.errors import explain
from pipelines.audit import audit
from pipelines.errors import PipelineError
from pipelines.lint import lint
from pipelines.training import training

PIPELINES: Final = {"training": training, "audit": audit}
COMPILED: Final = Path(__file__).resolve().parent.parent / "manifests" / "pipelines"
"""Where the compiled pipelines lie that are kept with the code."""


def compile_text(name: str) -> str:
    """The YAML of one pipeline, checked; KFP can only compile into a file, so it goes through a temporary one.

    Raises:
        PipelineError: the checks found that a cluster would refuse it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.yaml"
        compiler.Compiler().compile(PIPELINES[name], str(path))
        text = path.read_text(encoding="utf-8")
    faults = lint(text)
    if faults:
        raise PipelineError(
            explain("compiled pipeline is invalid", which=name, expected="what the KFP server accepts",
                    got="; ".join(faults), next_step="correct the pipeline's definition")
        )  # fmt: skip
    return text


def write_pipelines(folder: Path) -> list[Path]:
    """Compile every pipeline into ``folder``; each file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in PIPELINES:
        text = compile_text(name)
        path = folder / f"{name}.yaml"
        partial = path.with_suffix(".yaml.partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
        paths.append(path)
    return paths


def comparable(text: str) -> str:
    """The YAML without the line that names the SDK's version, which differs between SDKs and means nothing."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("sdkVersion:"))


def pipeline_hash(text: str) -> str:
    """SHA-256 of the comparable text."""
    return hashlib.sha256(comparable(text).encode()).hexdigest()


def read_compiled(name: str, folder: Path = COMPILED) -> str:
    """The compiled pipeline that is kept with the code.

    Raises:
        PipelineError: the file is missing, or the code has changed since it was compiled.
    """
    path = folder / f"{name}.yaml"
    next_step = "run `plumb pipelines compile`"
    if not path.is_file():
        raise PipelineError(
            explain("compiled pipeline is missing", which=str(path), expected="a YAML file", got="none", next_step=next_step)
        )
    text = path.read_text(encoding="utf-8")
    if comparable(text) != comparable(compile_text(name)):
        raise PipelineError(
            explain("compiled pipeline is not up to date", which=str(path), expected="what the code compiles to now",
                    got="another text", next_step=next_step)
        )  # fmt: skip
    return text
