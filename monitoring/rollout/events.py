"""CloudEvents about inference requests, as KServe's logger and our plane send them, and what a gate needs of each.

Binary mode of CloudEvents 1.0 over HTTP: attributes are ``ce-`` headers, the body is the request's or the reply's own. Beyond
KServe's attributes our plane names the revision in ``endpoint`` and gives ``responsestatus`` and ``latencyms``, it sends an
event for a failed request too, which KServe does not, and it says in ``lostanswers`` how many answers it could not send.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from features.layout import US_PER_S

REQUEST: Final = "org.kubeflow.serving.inference.request"
RESPONSE: Final = "org.kubeflow.serving.inference.response"
PREFIX: Final = "ce-"
OK: Final = 200
LEAST_ERROR: Final = 400
"""Callers' mistakes count too: they meet both revisions alike, and a revision that refuses what the other takes is at fault."""


class UnreadableEvent(ValueError):
    """An event lacks an attribute, or its body is no V1 or V2 JSON."""


@dataclass(frozen=True)
class Asked:
    """A request that was sent to some revision: whom it is about."""

    id: str
    service: str
    entities: tuple[str, ...]


@dataclass(frozen=True)
class Answered:
    """A reply, or a failure, of one revision.

    ``entities`` is empty where the reply does not name them (V2); ``scores`` and ``degraded`` are empty for a failure.
    ``routed_us`` is when the request was routed, UTC microseconds. ``retried``: this revision's process failed, and another
    answered.
    """

    id: str
    service: str
    revision: str
    status: int
    latency_s: float
    routed_us: int
    retried: bool
    entities: tuple[str, ...]
    scores: tuple[float, ...]
    degraded: tuple[bool, ...]

    @property
    def failed(self) -> bool:
        return self.retried or self.status >= LEAST_ERROR


def read_event(headers: Mapping[str, str], body: bytes) -> Asked | Answered:
    """An event from its HTTP headers (lower case) and body.

    Raises:
        UnreadableEvent: an attribute is missing or the body cannot be read.
    """
    try:
        kind, event_id, service = headers["ce-type"], headers["ce-id"], headers["ce-inferenceservicename"]
        if kind == REQUEST:
            return Asked(event_id, service, read_entities(_parse(body)))
        if kind != RESPONSE:
            raise UnreadableEvent(f"unknown type {kind}")
        status = int(headers.get("ce-responsestatus", OK))
        latency_s = float(headers["ce-latencyms"]) / 1_000
        recorded_us = round(datetime.fromisoformat(headers["ce-recordedtime"]).timestamp() * US_PER_S)
        routed_us = recorded_us - round(latency_s * US_PER_S)
        retried = "ce-retriedon" in headers
        entities, scores, degraded = read_reply(_parse(body)) if status == OK and not retried else ((), (), ())
        return Answered(
            event_id, service, headers["ce-endpoint"], status, latency_s, routed_us, retried, entities, scores, degraded,
        )  # fmt: skip
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UnreadableEvent(repr(error)) from error


def read_losses(headers: Mapping[str, str]) -> tuple[str, int] | None:
    """Who sent an event, and how many answers that sender has lost so far; None where it does not say."""
    sender, lost = headers.get("ce-sender"), headers.get("ce-lostanswers", "")
    return (sender, int(lost)) if sender and lost.isdecimal() else None


def read_entities(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Entity ids of a V1 or V2 request."""
    if "instances" in content:
        return tuple(str(instance["entity_id"]) for instance in content["instances"])
    return tuple(str(value) for value in _tensor(content["inputs"], "entity_id"))


def read_reply(content: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[float, ...], tuple[bool, ...]]:
    """Entities (empty in V2), scores and whether each was degraded, of a V1 or V2 reply."""
    if "predictions" in content:
        rows = content["predictions"]
        return (
            tuple(str(row["entity_id"]) for row in rows),
            tuple(float(row["score"]) for row in rows),
            tuple(bool(row.get("degraded")) for row in rows),
        )
    scores = tuple(float(value) for value in _tensor(content["outputs"], "score"))
    return (), scores, tuple(bool(value) for value in _tensor(content["outputs"], "degraded"))


def hash_entity(entity_id: str) -> int:
    """A stable signed 64-bit number for an entity: blake2b of its UTF-8 bytes."""
    return int.from_bytes(hashlib.blake2b(entity_id.encode(), digest_size=8).digest(), "big", signed=True)


def _tensor(tensors: Sequence[Mapping[str, Any]], name: str) -> Sequence[Any]:
    found = next(tensor for tensor in tensors if tensor["name"] == name)
    values: Sequence[Any] = found["data"]
    return values


def _parse(body: bytes) -> Mapping[str, Any]:
    content = json.loads(body)
    if not isinstance(content, Mapping):
        raise UnreadableEvent("body is no JSON object")
    return content
