"""The SavedModel that holds graph and model, run with named inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from features.declarations import Field
from features.errors import explain
from features.joins import Join
from inference.artifact import ModelArtifact
from inference.errors import ArtifactError

SCORE: Final = "serving_default"
FEATURES: Final = "features"
EXPLAIN: Final = "explain"
CANDIDATES: Final = "candidates"
OWNER: Final = "owner"
GRAPH_OUTPUTS: Final = ("integers", "finished", "transformed")
WITHIN: Final = "within"
SLOTS: Final = "slots"
WARM_UP_ROWS: Final = (1, 2, 17)
"""Batch sizes run once before the first request: TensorFlow plans a function when it first meets its shapes."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Explanation:
    """Why n entities have their scores.

    Attributes:
        contributions: (n, G) float32, points of the score that each group adds; they sum to score less base.
        base: (n,) float32, the score of the mean training row.
    """

    contributions: Floats
    base: Floats


@dataclass(frozen=True)
class Scores:
    """What the model answered for n entities.

    Attributes:
        score: (n,) float32.
        features: with features or explanation asked for: ``integers`` int64 (n, I), ``finished`` float32 (n, F) and
            ``transformed`` float32 (n, T); otherwise empty.
        within: (n, K) float32, the probability of the outcome within each delay bucket; None for a model without them.
        explanation: with the explanation asked for, else None.
        slots: (n, S) float32, the columns that ``ModelArtifact.slot_names`` names; None but for a model of hours of the week.
    """

    score: Floats
    features: dict[str, NDArray[Any]]
    within: Floats | None = None
    explanation: Explanation | None = None
    slots: Floats | None = None


class Predictor:
    """One loaded SavedModel; safe to call from several threads."""

    def __init__(self, artifact: ModelArtifact) -> None:
        """Load the model and check that its signatures take and give what ``model.json`` says.

        Raises:
            ArtifactError: it cannot be loaded, or its signatures differ.
        """
        self._inputs = _input_types((*artifact.profile_fields, *artifact.request_fields))
        self._by_candidate = {field.name for field in artifact.request_fields}
        try:
            self._model = tf.saved_model.load(str(artifact.saved_model))
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise _refuse(artifact, "a SavedModel that TensorFlow can load", str(error)) from error
        self._signatures = {
            name: _signature(self._model, artifact, name, self._inputs, outputs) for name, outputs in _outputs(artifact).items()
        }
        # Models from before this signature are scored by one row a candidate: the same answer, at a higher cost.
        self._candidates = self._model.signatures.get(CANDIDATES)
        self._joined = {join.signature: _joined(self._model, artifact, join) for join in artifact.view.joins}
        self._answers_within = bool(artifact.delay_buckets_s)
        self._answers_slots = bool(artifact.slot_names)

    def predict(self, tensors: Mapping[str, Any], *, with_features: bool, with_explanation: bool = False) -> Scores:
        """Score n entities.

        Args:
            tensors: (n,) values for every input of the graph.
            with_features: also return the features behind the scores.
            with_explanation: also return the features and each group's contribution.
        """
        inputs = {name: tf.constant(tensors[name], dtype=dtype) for name, dtype in self._inputs.items()}
        finishes = with_features or with_explanation
        outputs = self._signatures[FEATURES if finishes else SCORE](**inputs)
        explanation = None
        if with_explanation:
            explained = self._signatures[EXPLAIN](**inputs)
            explanation = Explanation(explained["contributions"].numpy(), explained["base"].numpy())
        return Scores(
            score=outputs["score"].numpy(),
            features={name: outputs[name].numpy() for name in GRAPH_OUTPUTS} if finishes else {},
            within=outputs[WITHIN].numpy() if self._answers_within else None,
            explanation=explanation,
            slots=outputs[SLOTS].numpy() if self._answers_slots else None,
        )

    def predict_candidates(self, tensors: Mapping[str, Any], owner: NDArray[np.int64]) -> Scores:
        """Score n candidates of u entities, each entity's state finished once.

        Args:
            tensors: (n,) values of every request field, (u,) values of every other input.
            owner: (n,) int64, the row of each candidate's entity.
        """
        if self._candidates is None:
            rows = owner.tolist()
            own = {name: [values[row] for row in rows] for name, values in tensors.items() if name not in self._by_candidate}
            return self.predict({**tensors, **own}, with_features=False)
        inputs = {name: tf.constant(tensors[name], dtype=dtype) for name, dtype in self._inputs.items()}
        outputs = self._candidates(**inputs, **{OWNER: tf.constant(owner)})
        within = outputs[WITHIN].numpy() if self._answers_within else None
        slots = outputs[SLOTS].numpy() if self._answers_slots else None
        return Scores(score=outputs["score"].numpy(), features={}, within=within, slots=slots)

    def join(self, join: Join, states: Sequence[bytes], now_us: NDArray[np.int64]) -> dict[str, list[int]]:
        """(n,) values of each field of a join, from the states (n,) of the joined entities at ``now_us`` (n,)."""
        found = self._joined[join.signature](state=tf.constant(states, tf.string), now=tf.constant(now_us))
        return {name: found[name].numpy().tolist() for name in join.fields}

    def predict_cold(self, rows: int, *, with_features: bool = False, with_explanation: bool = False) -> Scores:
        """Score entities of which nothing is known, at the Unix epoch: proof that the model answers."""
        return self.predict(self._empty(rows), with_features=with_features, with_explanation=with_explanation)

    def warm_up(self) -> None:
        """Run every signature, so that the first request does not wait for TensorFlow's planning."""
        for rows in WARM_UP_ROWS:
            self.predict_cold(rows)
            self.predict_cold(rows, with_features=True)
            self.predict_candidates(self._empty(rows), np.arange(rows))
        self.predict_cold(1, with_explanation=True)

    def _empty(self, rows: int) -> dict[str, list[Any]]:
        return {name: [b"" if dtype == tf.string else 0] * rows for name, dtype in self._inputs.items()}


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


def _outputs(artifact: ModelArtifact) -> dict[str, tuple[str, ...]]:
    """What each signature must give."""
    answers = ("score", *([WITHIN] if artifact.delay_buckets_s else []), *([SLOTS] if artifact.slot_names else []))
    return {SCORE: answers, FEATURES: (*GRAPH_OUTPUTS, *answers), EXPLAIN: ("contributions", "base")}


def _signature(model: Any, artifact: ModelArtifact, name: str, inputs: dict[str, tf.DType], outputs: tuple[str, ...]) -> Any:
    if name not in model.signatures:
        raise _refuse(artifact, f"signature {name}", ", ".join(model.signatures))
    signature = model.signatures[name]
    takes = {key: spec.dtype for key, spec in signature.structured_input_signature[1].items()}
    if takes != inputs:
        raise _refuse(artifact, f"inputs {_show(inputs)} of {name}", _show(takes))
    missing = [output for output in outputs if output not in signature.structured_outputs]
    if missing:
        raise _refuse(artifact, f"outputs {', '.join(outputs)} of {name}", f"no {', '.join(missing)}")
    return signature


def _joined(model: Any, artifact: ModelArtifact, join: Join) -> Any:
    if join.signature not in model.signatures:
        raise _refuse(artifact, f"signature {join.signature}", ", ".join(model.signatures))
    return model.signatures[join.signature]


def _show(types: dict[str, tf.DType]) -> str:
    return ", ".join(f"{name} {dtype.name}" for name, dtype in sorted(types.items()))


def _refuse(artifact: ModelArtifact, expected: str, got: str) -> ArtifactError:
    return ArtifactError(
        explain("saved model cannot be served", which=str(artifact.saved_model), expected=expected, got=got,
                next_step="export the model again")
    )  # fmt: skip
