"""Versions that are really broken, made from good ones: to show, and to test, that a rollout takes them off in time.

A fault lies in the graph itself, before or after that of the good version: what such a version gets wrong, every client, log
and metric meets as it would with an accident.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from features.workspace import Workspace
from models.versions import ModelVersion, NewVersion, load, register

if TYPE_CHECKING:
    import tensorflow as tf

Tensors = dict[str, Any]
SAVED_MODEL: Final = "saved_model"
ODDS_FACTOR: Final = 4.0
MICROSECONDS_A_MILLISECOND: Final = 1_000


def keep_inputs(inputs: Tensors) -> Tensors:
    """The inputs as they come."""
    return inputs


def keep_outputs(_inputs: Tensors, outputs: Tensors) -> Tensors:
    """The outputs as they are."""
    return outputs


@dataclass(frozen=True)
class Fault:
    """What is wrong: ``before`` changes the inputs of every signature, ``after`` its outputs, knowing the inputs."""

    name: str
    before: Callable[[Tensors], Tensors] = keep_inputs
    after: Callable[[Tensors, Tensors], Tensors] = keep_outputs


def register_broken(workspace: Workspace, model: str, version: int, fault: Fault) -> ModelVersion:
    """Register another version of a model: a good one's graph with a fault in it, blessed as the good one was.

    Raises:
        VersionError: there is no such version, or it is not fit to be served.
    """
    import tensorflow as tf

    source = load(workspace, model, version)
    with tempfile.TemporaryDirectory(dir=workspace.root, prefix=".broken-") as scratch:
        folder = Path(scratch) / "artifacts"
        shutil.copytree(source.path, folder, ignore=shutil.ignore_patterns(SAVED_MODEL))
        module, good = tf.Module(), tf.saved_model.load(str(source.path / SAVED_MODEL))
        module.good = good  # its variables and tables travel along
        signatures = {name: _break(function, fault) for name, function in good.signatures.items()}
        tf.saved_model.save(module, str(folder / SAVED_MODEL), signatures=signatures)
        return register_again(workspace, source, f"broken on purpose: {fault.name}", folder)


def register_again(workspace: Workspace, source: ModelVersion, reason: str, artifacts: Path | None = None) -> ModelVersion:
    """Register a version's artifacts, or others, once more under the next number."""
    facts = {field.name: getattr(source, field.name) for field in fields(NewVersion)}
    return register(workspace, replace(NewVersion(**facts), reason=reason), artifacts or source.path)


def _break(function: Any, fault: Fault) -> Any:
    """A signature of the same inputs and outputs, with the fault."""
    import tensorflow as tf

    specs: Mapping[str, tf.TensorSpec] = function.structured_input_signature[1]

    def call(**inputs: Any) -> Tensors:
        return fault.after(inputs, dict(function(**fault.before(inputs))))

    return tf.function(call).get_concrete_function(**specs)


def _state_odds_too_high(_inputs: Tensors, outputs: Tensors) -> Tensors:
    """Odds ``ODDS_FACTOR`` times those of the good version."""
    if "score" not in outputs:
        return outputs
    score = outputs["score"]
    return {**outputs, "score": ODDS_FACTOR * score / (1 + (ODDS_FACTOR - 1) * score)}


def _tell_time_in_milliseconds(inputs: Tensors) -> Tensors:
    return {**inputs, "now": inputs["now"] // MICROSECONDS_A_MILLISECOND}


MISCALIBRATED: Final = Fault("odds stated four times too high", after=_state_odds_too_high)
TIME_IN_MILLISECONDS: Final = Fault(
    "time of the request in milliseconds where microseconds are meant", before=_tell_time_in_milliseconds
)
