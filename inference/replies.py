"""What callers get back: the same answer as a V1 object or as V2 tensors."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse
from kserve.utils.numpy_codec import from_np_dtype
from kserve.utils.utils import generate_uuid
from numpy.typing import NDArray

from features.declarations import window_label
from inference.artifact import ModelArtifact
from inference.lookup import Inputs
from inference.requests import ScoreRequest
from inference.slot_replies import describe_slots

if TYPE_CHECKING:
    from inference.predictor import Explanation, Scores


@dataclass(frozen=True)
class Answer:
    """One request with what was looked up and what the model answered; row i belongs to entity i.

    With candidates, scores and request fields have a row for each of them, one entity after another.
    """

    request: ScoreRequest
    inputs: Inputs
    scores: Scores


@dataclass(frozen=True)
class Sender:
    """Who answers: every reply names it."""

    model_name: str
    model_version: str
    revision: str
    artifact: ModelArtifact

    def horizon_names(self) -> tuple[str, ...]:
        """Labels of the horizons that the model answers for besides its score, such as ``7d``."""
        return tuple(window_label(edge_s) for edge_s in self.artifact.delay_buckets_s)

    def feature_names(self) -> dict[str, tuple[str, ...]]:
        """Column names of each feature output."""
        return {
            "integers": self.artifact.integer_names,
            "finished": self.artifact.finished_names,
            "transformed": self.artifact.transformed_names,
        }


def reply_v1(answer: Answer, sender: Sender) -> dict[str, Any]:
    """``{"predictions": [...], "model_name", "model_version", "revision"}``.

    An instance with candidates has ``scores``, one a candidate, where others have ``score``; likewise ``within`` holds lists.
    A model that answers for several horizons adds ``within``, the probability of the outcome by horizon; one of hours of the
    week adds ``slots`` (``inference.slot_replies``). With the features
    asked for, each prediction has ``integers`` (counters and times), ``features`` (finished, unscaled) and ``transformed``
    (what the network saw), each by name. With the explanation asked for it has ``explanation``: ``base``, the score of the
    mean training row, and ``contributions``, the largest first, which sum to score less base; each with its ``signal``,
    ``contribution`` in points of the score, ``direction`` (raises, lowers or none) and the ``values`` it rests on.
    """
    inputs = answer.inputs
    columns: dict[str, list[Any]] = {
        "entity_id": answer.request.entity_ids,
        **_score_columns(answer, sender),
        "cold": inputs.cold,
        "log_partition": inputs.log_partition,
        "log_offset": inputs.log_offset,
        "age_s": inputs.age_s,
        "degraded": inputs.degraded,
    }
    if answer.scores.slots is not None:
        columns["slots"] = describe_slots(answer, answer.scores.slots, sender.artifact)
    if answer.scores.explanation is not None:
        columns["explanation"] = _explain(answer, answer.scores.explanation, sender.artifact)
    for output, names in sender.feature_names().items() if answer.request.with_features else ():
        rows = answer.scores.features[output].tolist()
        columns["features" if output == "finished" else output] = [dict(zip(names, row, strict=True)) for row in rows]
    predictions = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return {
        "predictions": predictions if answer.request.candidates is None else list(map(_name_scores, predictions)),
        "model_name": sender.model_name,
        "model_version": sender.model_version,
        "revision": sender.revision,
    }


def _score_columns(answer: Answer, sender: Sender) -> dict[str, list[Any]]:
    """``score`` and ``within`` of each entity; of an entity with candidates lists of them."""
    scores: list[Any] = answer.scores.score.tolist()
    within, horizons = answer.scores.within, sender.horizon_names()
    if answer.request.candidates is None:
        columns = {"score": scores}
        if within is not None:
            columns["within"] = [dict(zip(horizons, row, strict=True)) for row in within.tolist()]
        return columns
    ends = list(accumulate(answer.request.counts))
    spans = list(zip([0, *ends], ends, answer.request.candidates, strict=False))
    columns = {"score": [scores[start] if count is None else scores[start:end] for start, end, count in spans]}
    if within is not None:
        parts = [within[start] if count is None else within[start:end].T for start, end, count in spans]
        columns["within"] = [dict(zip(horizons, part.tolist(), strict=True)) for part in parts]
    return columns


def _name_scores(prediction: dict[str, Any]) -> dict[str, Any]:
    """``scores`` for the list of an entity with candidates."""
    if not isinstance(prediction["score"], list):
        return prediction
    return {"scores" if name == "score" else name: value for name, value in prediction.items()}


def reply_v2(answer: Answer, sender: Sender, request: InferRequest) -> InferResponse:
    """Tensors score FP32, cold BOOL, log_partition and log_offset INT64, age_s FP64, degraded BYTES (empty if not).

    With candidates, score and within have a row for each of them, one entity after another, and the others one an entity.
    Wider tensors list their columns in the parameter ``names``, separated by commas: within FP32 [n, K] of a model that
    answers for several horizons; slots FP32 [n, S] of a model of hours of the week; integers INT64 [n, I], finished and
    transformed FP32 with the features asked for;
    contributions FP32 [n, G], beside base FP32 [n], with the explanation asked for.
    """
    inputs = answer.inputs
    outputs = [
        _tensor("score", answer.scores.score),
        _tensor("cold", np.array(inputs.cold, dtype=bool)),
        _tensor("log_partition", np.array(inputs.log_partition, dtype=np.int64)),
        _tensor("log_offset", np.array(inputs.log_offset, dtype=np.int64)),
        _tensor("age_s", np.array(inputs.age_s, dtype=np.float64)),
        _tensor("degraded", np.array([reason or "" for reason in inputs.degraded], dtype=object)),
    ]
    if answer.scores.within is not None:
        outputs.append(_named("within", answer.scores.within, sender.horizon_names()))
    if answer.scores.slots is not None:
        outputs.append(_named("slots", answer.scores.slots, sender.artifact.slot_names))
    if answer.request.with_features:
        names = sender.feature_names()
        outputs += [_named(name, values, names[name]) for name, values in answer.scores.features.items()]
    if answer.scores.explanation is not None:
        outputs.append(_named("contributions", answer.scores.explanation.contributions, sender.artifact.groups))
        outputs.append(_tensor("base", answer.scores.explanation.base))
    if request.from_grpc:
        # KServe packs arrays for gRPC itself, but fails where the request was packed too.
        for output in outputs:
            output.set_data_from_numpy(output.data, binary_data=True)
    return InferResponse(
        # A caller need not name its request, but KServe's reply must have an id.
        response_id=request.id or generate_uuid(),
        model_name=sender.model_name,
        model_version=sender.model_version,
        infer_outputs=outputs,
        parameters={"revision": sender.revision},
        use_binary_outputs=request.use_binary_outputs,
        requested_outputs=request.request_outputs,
    )


def _explain(answer: Answer, explanation: Explanation, artifact: ModelArtifact) -> list[dict[str, Any]]:
    """One object a row: base and contributions, the largest first."""
    finished = answer.scores.features["finished"].tolist()
    bases = explanation.base.tolist()
    explained = []
    for row, contributions in enumerate(explanation.contributions.tolist()):
        values: dict[str, dict[str, Any]] = {name: {} for name in artifact.groups}
        for name, group, value in zip(artifact.finished_names, artifact.finished_groups, finished[row], strict=True):
            values[group][name] = value
        for field in (*artifact.profile_fields, *artifact.request_fields):
            if field.dtype == "string" and field.name in values:
                values[field.name] = {field.name: answer.inputs.tensors[field.name][row]}
        entries = [
            {"signal": name, "contribution": points, "direction": _direction(points), "values": values[name]}
            for name, points in zip(artifact.groups, contributions, strict=True)
        ]
        entries.sort(key=lambda entry: -abs(entry["contribution"]))
        explained.append({"base": bases[row], "contributions": entries})
    return explained


def _direction(points: float) -> str:
    return "raises" if points > 0 else "lowers" if points < 0 else "none"


def _named(name: str, values: NDArray[Any], columns: tuple[str, ...]) -> InferOutput:
    return _tensor(name, values, {"names": ",".join(columns)})


def _tensor(name: str, values: NDArray[Any], parameters: dict[str, str] | None = None) -> InferOutput:
    return InferOutput(name, list(values.shape), from_np_dtype(values.dtype), values, parameters)
