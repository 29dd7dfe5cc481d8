"""What callers send, decoded into columns: KServe's V1 body and V2 tensors mean the same and are checked alike.

JSON gives text where binary tensors give bytes; both end as ``str`` here. Nothing is guessed: an unknown field or
parameter, a wrong type and a missing entity id are each answered with one line.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from kserve import InferInput, InferRequest
from kserve.errors import InferenceError, InvalidInput
from kserve.protocol.infer_type import to_http_parameters

from features.declarations import Field
from inference.errors import RequestError, bad_request

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
MIN_NOW_US: Final = 631_152_000 * 1_000_000
"""1990-01-01: a smaller ``now`` is a number of seconds or milliseconds sent as microseconds."""
MAX_NOW_US: Final = 4_102_444_800 * 1_000_000
"""2100-01-01: a larger ``now`` is a number of nanoseconds sent as microseconds."""

INT64_LIMIT: Final = 1 << 63
ENTITY: Final = "entity_id"
NOW: Final = "now"
FEATURES: Final = "features"
FEATURE_OUTPUTS: Final = ("integers", "finished", "transformed")
EXPLAIN: Final = "explain"
EXPLANATION_OUTPUTS: Final = ("contributions", "base")
V1_PARAMETERS: Final = (FEATURES, EXPLAIN)
V2_PARAMETERS: Final = (*V1_PARAMETERS, "binary_data_output")
V2_DATATYPES: Final = {"string": "BYTES", "int64": "INT64"}


@dataclass(frozen=True)
class ScoreRequest:
    """One decoded request of n entities.

    Attributes:
        entity_ids: (n,) ids as the caller sent them; they may repeat.
        now_us: (n,) UTC microseconds at which each entity is scored.
        fields: (n,) values of every request field of the view, defaults filled in.
        with_features: whether the reply carries the features behind the score.
        with_explanation: whether the reply carries each signal's contribution to the score.
    """

    entity_ids: list[str]
    now_us: list[int]
    fields: Mapping[str, list[Any]]
    with_features: bool
    with_explanation: bool = False


@dataclass(frozen=True)
class RequestForm:
    """What a request to one model may hold: its view's request fields, and the most entities it may name or explain."""

    fields: tuple[Field, ...]
    max_entities: int
    max_explained: int

    def names(self) -> str:
        return ", ".join((ENTITY, NOW, *(field.name for field in self.fields)))

    def check_count(self, count: int) -> None:
        if not 0 < count <= self.max_entities:
            raise bad_request("request has a wrong number of entities", which="instances", got=str(count),
                              expected=f"1 to {self.max_entities}")  # fmt: skip

    def check_explained(self, count: int) -> bool:
        """True, for a request that asks for explanations of this many entities."""
        if count > self.max_explained:
            raise bad_request("request asks for too many explanations", which="instances", got=str(count),
                              expected=f"1 to {self.max_explained} entities with {EXPLAIN}")  # fmt: skip
        return True


def decode_v1(body: object, form: RequestForm, clock_us: int) -> ScoreRequest:
    """Decode a V1 body ``{"instances": [{"entity_id": ..., "now": ..., FIELD: ...}], "parameters": {...}}``.

    The parameters ``features`` and ``explain`` are true or false.

    Args:
        body: parsed JSON, or its bytes.
        form: what the model takes.
        clock_us: the time at which an instance without ``now`` is scored, UTC microseconds.

    Raises:
        RequestError: the body is not of that form.
    """
    content = _object(_parse(body) if isinstance(body, bytes) else body, "body", ("instances", "parameters"))
    parameters = _object(content.get("parameters") or {}, "parameters", V1_PARAMETERS)
    instances = content.get("instances")
    if not isinstance(instances, list):
        raise bad_request("instances are missing", which="body", expected="a list named instances",
                          got=type(instances).__name__)  # fmt: skip
    form.check_count(len(instances))
    known = {ENTITY, NOW, *(field.name for field in form.fields)}
    for row, instance in enumerate(instances):
        if not isinstance(instance, dict) or not instance.keys() <= known or ENTITY not in instance:
            raise _bad_instance(row, instance, form)
    return ScoreRequest(
        entity_ids=[_text(entry[ENTITY], ENTITY, row) for row, entry in enumerate(instances)],
        now_us=[_instant(entry[NOW], row) if NOW in entry else clock_us for row, entry in enumerate(instances)],
        fields={field.name: _v1_column(instances, field) for field in form.fields},
        with_features=_flag(parameters, FEATURES),
        with_explanation=_flag(parameters, EXPLAIN) and form.check_explained(len(instances)),
    )


def decode_v2(request: InferRequest, form: RequestForm, clock_us: int) -> ScoreRequest:
    """Decode V2 tensors, REST or gRPC, JSON or binary: ``entity_id`` BYTES, ``now`` INT64, fields by name.

    Args:
        request: tensors of shape [n] or [n, 1].
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
    entity_ids = [_text(value, ENTITY, row) for row, value in enumerate(_values(tensors[ENTITY], "BYTES"))]
    form.check_count(len(entity_ids))
    columns = {
        name: _v2_column(tensor, V2_DATATYPES[_dtype_of(name, form)], len(entity_ids))
        for name, tensor in tensors.items()
        if name != ENTITY
    }
    now = columns.pop(NOW, None)
    fields = {field.name: columns.get(field.name) or [field.default] * len(entity_ids) for field in form.fields}
    parameters = _object(to_http_parameters(request.parameters or {}), "parameters", V2_PARAMETERS)
    asked = {output.name for output in request.request_outputs or ()}
    explain = _flag(parameters, EXPLAIN) or not asked.isdisjoint(EXPLANATION_OUTPUTS)
    return ScoreRequest(
        entity_ids=entity_ids,
        now_us=[_instant(value, row) for row, value in enumerate(now)] if now else [clock_us] * len(entity_ids),
        fields=fields,
        with_features=_flag(parameters, FEATURES) or not asked.isdisjoint(FEATURE_OUTPUTS),
        with_explanation=explain and form.check_explained(len(entity_ids)),
    )


def _parse(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request("body is no JSON", which="request body", expected="a JSON object", got=str(error)) from error


def _object(value: object, which: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise bad_request("not a JSON object", which=which, expected="an object", got=type(value).__name__)
    unknown = [name for name in value if name not in known]
    if unknown:
        raise bad_request("unknown name", which=f"{unknown[0]!r} in {which}", expected=" or ".join(known), got=repr(unknown[0]))
    return value


def _flag(parameters: Mapping[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise bad_request("parameter has a wrong type", which=name, expected="true or false", got=repr(value)[:80])
    return value


def _bad_instance(row: int, instance: object, form: RequestForm) -> RequestError:
    which = f"instances[{row}]"
    if not isinstance(instance, dict):
        return bad_request("instance is no object", which=which, expected=f"an object with {form.names()}",
                           got=type(instance).__name__)  # fmt: skip
    if ENTITY not in instance:
        return bad_request(
            "entity_id is missing", which=which, expected="entity_id as text", got=", ".join(instance) or "nothing"
        )
    unknown = next(name for name in instance if name not in form.names().split(", "))
    return bad_request("unknown request field", which=f"{unknown!r} in {which}", expected=form.names(), got=repr(unknown))


def _v1_column(instances: list[dict[str, Any]], field: Field) -> list[Any]:
    read: Callable[[object, str, int], str | int] = _text if field.dtype == "string" else _integer
    name, default = field.name, field.default
    return [read(entry[name], name, row) if name in entry else default for row, entry in enumerate(instances)]


def _text(value: object, name: str, row: int) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise bad_request("value is no UTF-8 text", which=f"{name} of row {row}", expected="UTF-8 bytes",
                              got=repr(value)[:80]) from error  # fmt: skip
    raise _wrong_type(value, name, row, "text")


def _integer(value: object, name: str, row: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and -INT64_LIMIT <= value < INT64_LIMIT:
        return value
    raise _wrong_type(value, name, row, "a 64-bit integer")


def _wrong_type(value: object, name: str, row: int, expected: str) -> RequestError:
    return bad_request("value has a wrong type", which=f"{name} of row {row}", expected=expected,
                       got=f"{type(value).__name__} {value!r}"[:80])  # fmt: skip


def _instant(value: object, row: int) -> int:
    """``now`` as UTC microseconds: an integer that already is, or ISO 8601 text that names its zone."""
    moment = value
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError as error:
            raise _bad_now(value, row, str(error)) from error
        if parsed.tzinfo is None:
            raise _bad_now(value, row, "no time zone")
        moment = (parsed - EPOCH) // MICROSECOND
    if not isinstance(moment, int) or isinstance(moment, bool):
        raise _bad_now(value, row, type(value).__name__)
    if not MIN_NOW_US <= moment < MAX_NOW_US:
        raise _bad_now(value, row, "a time before 1990 or after 2100")
    return moment


def _bad_now(value: object, row: int, got: str) -> RequestError:
    return bad_request("now is no usable time", which=f"{value!r}"[:60] + f" of row {row}",
                       expected="UTC microseconds, or ISO 8601 with a zone, such as 2025-03-01T12:00:00Z", got=got)  # fmt: skip


def _by_name(request: InferRequest, form: RequestForm) -> dict[str, InferInput]:
    known = form.names().split(", ")
    tensors: dict[str, InferInput] = {}
    for tensor in request.inputs:
        if tensor.name not in known:
            raise bad_request("unknown request field", which=repr(tensor.name), expected=form.names(), got=repr(tensor.name))
        if tensor.name in tensors:
            raise bad_request("input is given twice", which=tensor.name, expected="each input once", got="two of it")
        tensors[tensor.name] = tensor
    return tensors


def _dtype_of(name: str, form: RequestForm) -> str:
    return "int64" if name == NOW else next(field.dtype for field in form.fields if field.name == name)


def _v2_column(tensor: InferInput, datatype: str, rows: int) -> list[Any]:
    values = _values(tensor, datatype)
    if len(values) != rows:
        raise bad_request("input has a wrong length", which=tensor.name, expected=f"{rows} values, one an entity",
                          got=str(len(values)))  # fmt: skip
    read: Callable[[object, str, int], str | int] = _text if datatype == "BYTES" else _integer
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
