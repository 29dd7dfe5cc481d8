"""Requests and replies of KServe's protocols as columns: V1 JSON, V2 JSON, V2 with binary tensors, BYTES included.

Sources: KServe's V1 protocol; the Open Inference Protocol (V2) and its binary tensor data extension.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from features.errors import explain
from monitoring.errors import UnreadableBody

Value = float | str | None
Columns = Mapping[str, list[Value]]

DTYPES: Final = {
    "BOOL": "?", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
BYTES: Final = "BYTES"
BINARY_SIZE: Final = "binary_data_size"
_LENGTH: Final = struct.Struct("<I")


@dataclass(frozen=True)
class Body:
    """Columns of equal length by name, numbers (booleans as 0 and 1) or strings, None where there is no value.

    ``model_version`` is what a reply says of itself, or empty.
    """

    columns: Columns
    rows: int
    model_version: str = ""


def read_body(body: bytes) -> Body:
    """The columns of a request or a reply.

    Instances and predictions of V1 may be objects of scalars, lists, or scalars (column ``value``); what is nested deeper is
    left out. Tensors of V2 give one column each, or one a second dimension: named by the tensor's parameter ``names`` where it
    has it, else ``NAME_0``. A tensor with another number of rows than the first is left out.

    Raises:
        UnreadableBody: it is neither V1 nor V2.
    """
    content, tail = _split(body)
    version = content.get("model_version")
    for key in ("instances", "predictions"):
        if isinstance(content.get(key), list):
            columns = _read_rows(content[key])
            return Body(columns, len(content[key]), "" if version is None else str(version))
    for key in ("inputs", "outputs"):
        if isinstance(content.get(key), list):
            columns, rows = _read_tensors(content[key], tail)
            return Body(columns, rows, "" if version is None else str(version))
    raise _refusal("one of instances, predictions, inputs, outputs", ", ".join(content) or "an empty object")


def _split(body: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON object in front, and the bytes of the binary tensors after it."""
    # KServe's events do not carry the header that says where the JSON ends; JSON says so itself. Latin-1 maps bytes one to one.
    text = body.decode("latin-1")
    try:
        _, end = json.JSONDecoder().raw_decode(text)
        content = json.loads(body[:end])
    except (ValueError, RecursionError) as error:
        raise _refusal("a JSON object", " ".join(str(error).split())) from error
    if not isinstance(content, dict):
        raise _refusal("a JSON object", type(content).__name__)
    return content, body[end:]


def _read_rows(rows: Sequence[Any]) -> Columns:
    columns: dict[str, list[Value]] = {}
    for number, row in enumerate(rows):
        if isinstance(row, Mapping):
            values: Mapping[str, Any] = row
        elif isinstance(row, list):
            values = {f"value_{place}": value for place, value in enumerate(row)}
        else:
            values = {"value": row}
        for name, value in values.items():
            if isinstance(value, (list, dict)):
                continue
            column = columns.setdefault(name, [None] * len(rows))
            column[number] = _scalar(value)
    return columns


def _read_tensors(tensors: Sequence[Any], tail: bytes) -> tuple[Columns, int]:
    columns: dict[str, list[Value]] = {}
    rows = -1
    for tensor in tensors:
        try:
            name, shape, kind = str(tensor["name"]), [int(size) for size in tensor["shape"]], tensor["datatype"]
            parameters = tensor.get("parameters") or {}
            size = parameters.get(BINARY_SIZE)
            if size is None:
                flat = [_scalar(value) for value in _flatten(tensor["data"])]
            else:
                flat, tail = _read_binary(tail[: int(size)], kind), tail[int(size) :]
        except (KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
            raise _refusal("tensors with name, shape, datatype and data", repr(error)) from error
        count = shape[0] if shape else 1
        width = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        if min(count, width) < 0 or count * width != len(flat):
            raise _refusal(f"{shape} values of tensor {name}", str(len(flat)))
        rows = count if rows < 0 else rows
        if count == rows:
            columns |= _name_columns(name, parameters, flat, width)
    return columns, max(rows, 0)


def _name_columns(name: str, parameters: Mapping[str, Any], flat: list[Value], width: int) -> Columns:
    if width == 1:
        return {name: flat}
    names = str(parameters.get("names", "")).split(",")
    if len(names) != width:
        names = [f"{name}_{number}" for number in range(width)]
    return {each: flat[number::width] for number, each in enumerate(names)}


def _read_binary(data: bytes, kind: str) -> list[Value]:
    if kind != BYTES:
        values = np.frombuffer(data, DTYPES[kind])
        return [_scalar(value) for value in values.tolist()]
    texts: list[Value] = []
    at = 0
    while at < len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size + length
        if at > len(data):
            raise ValueError("a BYTES element ends after its tensor")
        texts.append(data[at - length : at].decode("utf-8", errors="replace"))
    return texts


def _flatten(data: Any) -> list[Any]:
    if not isinstance(data, list):
        return [data]
    return [value for part in data for value in _flatten(part)] if data and isinstance(data[0], list) else data


def _scalar(value: Any) -> Value:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return float(value)
    raise _refusal("numbers, strings, booleans or null", type(value).__name__)


def _refusal(expected: str, got: str) -> UnreadableBody:
    return UnreadableBody(
        explain("body cannot be read", which="event", expected=expected, got=got, next_step="send V1 or V2 bodies")
    )
