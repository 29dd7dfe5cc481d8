"""The SavedModel that holds graph and model, run with named inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from features.declarations import Field
from features.errors import explain
from inference.artifact import ModelArtifact
from inference.errors import ArtifactError

SCORE: Final = "serving_default"
FEATURES: Final = "features"
OUTPUTS: Final = {SCORE: ("score",), FEATURES: ("integers", "finished", "transformed", "score")}
WARM_UP_ROWS: Final = (1, 2, 17)
"""Batch sizes run once before the first request: TensorFlow plans a function when it first meets its shapes."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Scores:
    """What the model answered for n entities.

    Attributes:
        score: (n,) float32.
        features: with the features asked for: ``integers`` int64 (n, I), ``finished`` float32 (n, F) and
            ``transformed`` float32 (n, T); otherwise empty.
    """

    score: Floats
    features: dict[str, NDArray[Any]]


class Predictor:
    """One loaded SavedModel; safe to call from several threads."""

    def __init__(self, artifact: ModelArtifact) -> None:
        """Load the model and check that its signatures take and give what ``model.json`` says.

        Raises:
            ArtifactError: it cannot be loaded, or its signatures differ.
        """
        self._inputs = _input_types((*artifact.profile_fields, *artifact.request_fields))
        try:
            self._model = tf.saved_model.load(str(artifact.saved_model))
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise _refuse(artifact, "a SavedModel that TensorFlow can load", str(error)) from error
        self._signatures = {name: _signature(self._model, artifact, name, self._inputs) for name in OUTPUTS}

    def predict(self, tensors: Mapping[str, Any], *, with_features: bool) -> Scores:
        """Score n entities.

        Args:
            tensors: (n,) values for every input of the graph.
            with_features: also return the features behind the scores.
        """
        inputs = {name: tf.constant(tensors[name], dtype=dtype) for name, dtype in self._inputs.items()}
        outputs = self._signatures[FEATURES if with_features else SCORE](**inputs)
        features = {name: outputs[name].numpy() for name in OUTPUTS[FEATURES][:-1]} if with_features else {}
        return Scores(outputs["score"].numpy(), features)

    def predict_cold(self, rows: int, *, with_features: bool = False) -> Scores:
        """Score entities of which nothing is known, at the Unix epoch: proof that the model answers."""
        empty = {name: [b"" if dtype == tf.string else 0] * rows for name, dtype in self._inputs.items()}
        return self.predict(empty, with_features=with_features)

    def warm_up(self) -> None:
        """Run both signatures, so that the first request does not wait for TensorFlow's planning."""
        for rows in WARM_UP_ROWS:
            self.predict_cold(rows)
            self.predict_cold(rows, with_features=True)


def use_one_thread_a_prediction() -> None:
    """Keep each prediction on its own core and off any accelerator; call before TensorFlow runs anything.

    Requests are the parallelism: splitting one small graph over cores costs more than it gains, and one device keeps
    the bits the same.
    """
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.set_visible_devices([], "GPU")


def _input_types(fields: tuple[Field, ...]) -> dict[str, tf.DType]:
    types = {"string": tf.string, "int64": tf.int64}
    return {"state": tf.string, "now": tf.int64} | {field.name: types[field.dtype] for field in fields}


def _signature(model: Any, artifact: ModelArtifact, name: str, inputs: dict[str, tf.DType]) -> Any:
    if name not in model.signatures:
        raise _refuse(artifact, f"signature {name}", ", ".join(model.signatures))
    signature = model.signatures[name]
    takes = {key: spec.dtype for key, spec in signature.structured_input_signature[1].items()}
    if takes != inputs:
        raise _refuse(artifact, f"inputs {_show(inputs)} of {name}", _show(takes))
    missing = [output for output in OUTPUTS[name] if output not in signature.structured_outputs]
    if missing:
        raise _refuse(artifact, f"outputs {', '.join(OUTPUTS[name])} of {name}", f"no {', '.join(missing)}")
    return signature


def _show(types: dict[str, tf.DType]) -> str:
    return ", ".join(f"{name} {dtype.name}" for name, dtype in sorted(types.items()))


def _refuse(artifact: ModelArtifact, expected: str, got: str) -> ArtifactError:
    return ArtifactError(
        explain("saved model cannot be served", which=str(artifact.saved_model), expected=expected, got=got,
                next_step="export the model again")
    )  # fmt: skip
