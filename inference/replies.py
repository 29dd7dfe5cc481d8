"""What callers get back: the same answer as a V1 object or as V2 tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse
from kserve.utils.numpy_codec import from_np_dtype
from kserve.utils.utils import generate_uuid
from numpy.typing import NDArray

from inference.artifact import ModelArtifact
from inference.lookup import Inputs
from inference.requests import ScoreRequest

if TYPE_CHECKING:
    from inference.predictor import Scores


@dataclass(frozen=True)
class Answer:
    """One request with what was looked up and what the model answered; row i belongs to entity i."""

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

    def feature_names(self) -> dict[str, tuple[str, ...]]:
        """Column names of each feature output."""
        return {
            "integers": self.artifact.integer_names,
            "finished": self.artifact.finished_names,
            "transformed": self.artifact.transformed_names,
        }


def reply_v1(answer: Answer, sender: Sender) -> dict[str, Any]:
    """``{"predictions": [...], "model_name", "model_version", "revision"}``.

    With the features asked for, each prediction has ``integers`` (counters and times), ``features`` (finished,
    unscaled) and ``transformed`` (what the network saw), each by name.
    """
    inputs = answer.inputs
    columns: dict[str, list[Any]] = {
        "entity_id": answer.request.entity_ids,
        "score": answer.scores.score.tolist(),
        "cold": inputs.cold,
        "log_partition": inputs.log_partition,
        "log_offset": inputs.log_offset,
        "age_s": inputs.age_s,
        "degraded": inputs.degraded,
    }
    for output, names in sender.feature_names().items() if answer.scores.features else ():
        rows = answer.scores.features[output].tolist()
        columns["features" if output == "finished" else output] = [dict(zip(names, row, strict=True)) for row in rows]
    return {
        "predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
        "model_name": sender.model_name,
        "model_version": sender.model_version,
        "revision": sender.revision,
    }


def reply_v2(answer: Answer, sender: Sender, request: InferRequest) -> InferResponse:
    """Tensors score FP32, cold BOOL, log_partition and log_offset INT64, age_s FP64, degraded BYTES (empty if not).

    With the features asked for also integers INT64 [n, I], finished and transformed FP32, whose parameter ``names``
    lists their columns, separated by commas.
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
    names = sender.feature_names()
    outputs += [_tensor(name, values, {"names": ",".join(names[name])}) for name, values in answer.scores.features.items()]
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


def _tensor(name: str, values: NDArray[Any], parameters: dict[str, str] | None = None) -> InferOutput:
    return InferOutput(name, list(values.shape), from_np_dtype(values.dtype), values, parameters)
