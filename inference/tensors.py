"""KServe's V2 tensors as columns, REST or gRPC, JSON or binary."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from kserve import InferInput, InferRequest
from kserve.errors import InferenceError, InvalidInput
from kserve.protocol.infer_type import to_http_parameters

from inference.errors import bad_request
from inference.requests import (
    CANDIDATES,
    ENTITY,
    EXPLAIN,
    FEATURES,
    NOW,
    RequestForm,
    ScoreRequest,
    read_flag,
    read_instant,
    read_integer,
    read_object,
    read_text,
)

FEATURE_OUTPUTS: Final = ("integers", "finished", "transformed")
EXPLANATION_OUTPUTS: Final = ("contributions", "base")
PARAMETERS: Final = (FEATURES, EXPLAIN, "binary_data_output")
DATATYPES: Final = {"string": "BYTES", "int64": "INT64"}


def decode_v2(request: InferRequest, form: RequestForm, clock_us: int) -> ScoreRequest:
    """Decode ``entity_id`` BYTES, ``now`` INT64 and request fields by name.

    With ``candidates`` INT64, entity i is scored for so many rows of the fields, one after another; the fields then have as
    many rows as all candidates together.

    Args:
        request: tensors of shape [u] or [u, 1]; fields [n] or [n, 1].
        form: what the model takes.
        clock_us: the time at which a request without ``now`` is scored, UTC microseconds.

    Raises:
        RequestError: a tensor is unknown, missing, or of a wrong type or length.
    """
    tensors = _by_name(request, form)
    if ENTITY not in tensors:
        raise bad_request(
            "input is missing", which=ENTITY, expected="a BYTES tensor", got=f"inputs {', '.join(tensors) or 'none'}"
        )
    entity_ids = [read_text(value, ENTITY, row) for row, value in enumerate(_values(tensors.pop(ENTITY), "BYTES"))]
    form.check_count(len(entity_ids))
    now = _column(tensors.pop(NOW), "INT64", len(entity_ids)) if NOW in tensors else None
    candidates = _count_candidates(tensors.pop(CANDIDATES), len(entity_ids), form) if CANDIDATES in tensors else None
    rows = sum(candidates) if candidates else len(entity_ids)
    columns = {
        field.name: _column(tensors[field.name], DATATYPES[field.dtype], rows)
        if field.name in tensors
        else [field.default] * rows
        for field in form.fields
    }
    parameters = read_object(to_http_parameters(request.parameters or {}), "parameters", PARAMETERS)
    asked = {output.name for output in request.request_outputs or ()}
    return form.check(
        ScoreRequest(
            entity_ids=entity_ids,
            now_us=[read_instant(value, row) for row, value in enumerate(now)] if now else [clock_us] * len(entity_ids),
            fields=columns,
            with_features=read_flag(parameters, FEATURES) or not asked.isdisjoint(FEATURE_OUTPUTS),
            with_explanation=read_flag(parameters, EXPLAIN) or not asked.isdisjoint(EXPLANATION_OUTPUTS),
            candidates=None if candidates is None else [*candidates],
        )
    )


def _count_candidates(tensor: InferInput, entities: int, form: RequestForm) -> list[int]:
    counts: list[int] = _column(tensor, "INT64", entities)
    if min(counts) < 1:
        raise bad_request(
            "entity has no candidates", which=CANDIDATES, expected="1 or more of each entity", got=str(min(counts))
        )
    form.check_count(sum(counts), CANDIDATES)
    return counts


def _by_name(request: InferRequest, form: RequestForm) -> dict[str, InferInput]:
    known = (*form.names().split(", "), CANDIDATES)
    tensors: dict[str, InferInput] = {}
    for tensor in request.inputs:
        if tensor.name not in known:
            raise bad_request("unknown request field", which=repr(tensor.name), expected=form.names(), got=repr(tensor.name))
        if tensor.name in tensors:
            raise bad_request("input is given twice", which=tensor.name, expected="each input once", got="two of it")
        tensors[tensor.name] = tensor
    return tensors


def _column(tensor: InferInput, datatype: str, rows: int) -> list[Any]:
    values = _values(tensor, datatype)
    if len(values) != rows:
        raise bad_request("input has a wrong length", which=tensor.name, expected=f"{rows} values, one a score",
                          got=str(len(values)))  # fmt: skip
    read: Callable[[object, str, int], str | int] = read_text if datatype == "BYTES" else read_integer
    return [read(value, tensor.name, row) for row, value in enumerate(values)]


def _values(tensor: InferInput, datatype: str) -> list[Any]:
    """The tensor's elements as plain Python values, after its declared type and shape have been checked."""
    if tensor.datatype != datatype:
        raise bad_request("input has a wrong datatype", which=tensor.name, expected=datatype, got=str(tensor.datatype))
    shape = list(tensor.shape)
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1):
        raise bad_request("input has a wrong shape", which=tensor.name, expected="[n] or [n, 1]", got=str(shape))
    try:
        # gRPC's raw contents are still packed; everywhere else KServe has unpacked them into a list.
        data = tensor.data if tensor._raw_data is None else tensor.as_numpy().reshape(-1).tolist()
    except (InferenceError, InvalidInput, ValueError, TypeError, struct.error) as error:
        raise bad_request("input cannot be unpacked", which=tensor.name, expected=f"{shape[0]} values of {datatype}",
                          got=str(error)) from error  # fmt: skip
    values = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in data or []]
    if len(values) != shape[0]:
        raise bad_request("input does not have its declared shape", which=tensor.name, expected=f"{shape[0]} values",
                          got=str(len(values)))  # fmt: skip
    return values
