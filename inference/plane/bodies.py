"""What the plane reads of a request's body: whom it is about; and how a V1 request is taken apart and its reply put together.

Nothing is checked here: a body that is no request names nobody, goes to the stable revision, and gets that server's own error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

ENTITY: Final = "entity_id"
LENGTH_BYTES: Final = 4


def read_v1(body: bytes) -> dict[str, Any] | None:
    """The body of a V1 request with its instances; None where it is none."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return content if isinstance(content, dict) and isinstance(content.get("instances"), list) else None


def entities_v1(content: Mapping[str, Any]) -> list[str | None]:
    """The entity of each instance; None where it names none."""
    return [_text(entry.get(ENTITY)) if isinstance(entry, dict) else None for entry in content["instances"]]


def take_rows(content: Mapping[str, Any], rows: Sequence[int]) -> bytes:
    """A V1 request for some of the instances."""
    instances = content["instances"]
    return orjson.dumps({**content, "instances": [instances[row] for row in rows]})


def join_replies(parts: Sequence[tuple[str, Sequence[int], bytes]]) -> bytes:
    """One V1 reply from those of several revisions, with the predictions in the order of the instances.

    Args:
        parts: each with the revision's name, its rows, and its reply.
    Returns:
        The first part's reply with all predictions; ``revision`` names all, ``revisions`` one for each prediction, and
        ``model_version`` is that of the first.
    """
    total = sum(len(rows) for _, rows, _ in parts)
    predictions: list[Any] = [None] * total
    revisions = [""] * total
    replies = [orjson.loads(body) for _, _, body in parts]
    for (name, rows, _), reply in zip(parts, replies, strict=True):
        for row, prediction in zip(rows, reply["predictions"], strict=True):
            predictions[row], revisions[row] = prediction, name
    names = ",".join(name for name, _, _ in parts)
    return orjson.dumps({**replies[0], "predictions": predictions, "revision": names, "revisions": revisions})


def first_entity_v2(body: bytes, header_bytes: int | None) -> str | None:
    """The first entity of a V2 request, JSON or with binary tensors behind it; None where it names none.

    Args:
        body: the request's.
        header_bytes: value of ``Inference-Header-Content-Length``; None for a request that is JSON alone.
    """
    try:
        content = orjson.loads(body if header_bytes is None else body[:header_bytes])
    except orjson.JSONDecodeError:
        return None
    inputs = content.get("inputs") if isinstance(content, dict) else None
    start = header_bytes or 0
    for tensor in inputs if isinstance(inputs, list) else ():
        if not isinstance(tensor, dict):
            return None
        parameters = tensor.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if tensor.get("name") == ENTITY:
            return _first_packed(body[start:]) if isinstance(size, int) else _first_listed(tensor.get("data"))
        start += size if isinstance(size, int) else 0
    return None


def _first_listed(data: object) -> str | None:
    while isinstance(data, list) and data:
        data = data[0]
    return _text(data)


def _first_packed(data: bytes) -> str | None:
    """The first element of a packed BYTES tensor: four bytes of length, little-endian, then as many bytes."""
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    try:
        return data[LENGTH_BYTES : LENGTH_BYTES + length].decode() if len(data) >= LENGTH_BYTES + length else None
    except UnicodeDecodeError:
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
