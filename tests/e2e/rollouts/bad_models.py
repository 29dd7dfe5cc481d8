"""Model versions that are really bad: a registered version's SavedModel, exported again with something wrong inside it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from features.workspace import Workspace
from models.versions import ModelVersion, NewVersion, load, register

Outputs = dict[str, Any]
Spoil = Callable[[Outputs], Outputs]
SAVED_MODEL = "saved_model"


class Spoiled(tf.Module):
    """Another model's signatures with their outputs changed."""

    def __init__(self, inner: Any, spoil: Spoil) -> None:
        super().__init__()
        self.inner = inner
        self._spoil = spoil

    def signature(self, name: str) -> Any:
        """A signature of the same inputs, spoiled."""
        function = self.inner.signatures[name]
        specs = function.structured_input_signature[1]

        def call(**inputs: Any) -> Outputs:
            return self._spoil(dict(function(**inputs)))

        return tf.function(call).get_concrete_function(**specs)


def register_spoiled(workspace: Workspace, model: str, version: int, spoil: Spoil, scratch: Path) -> ModelVersion:
    """Register a blessed version whose graph is that of another one, spoiled."""
    source = load(workspace, model, version)
    folder = scratch / "artifacts"
    shutil.copytree(source.path, folder)
    shutil.rmtree(folder / SAVED_MODEL)
    inner = tf.saved_model.load(str(source.path / SAVED_MODEL))
    module = Spoiled(inner, spoil)
    signatures: Mapping[str, Any] = {name: module.signature(name) for name in inner.signatures}
    tf.saved_model.save(module, str(folder / SAVED_MODEL), signatures=signatures)
    return register_copy(workspace, source, folder)


def register_copy(workspace: Workspace, source: ModelVersion, folder: Path | None = None) -> ModelVersion:
    """Register another version with the same facts."""
    facts = {name: getattr(source, name) for name in NewVersion.__dataclass_fields__}
    new = replace(NewVersion(**facts), run_id=f"{source.run_id}-again", reason="made for a test")
    return register(workspace, new, folder or source.path)


def break_score(outputs: Outputs) -> Outputs:
    """Everybody is almost sure to leave: a score that has lost its calibration."""
    if "score" in outputs:
        outputs["score"] = 0.9 + 0.1 * outputs["score"]
    return outputs
