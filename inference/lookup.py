"""Entity ids to the graph's inputs: one batch read of the online store, defaults where nothing is known."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from features import layout
from features.declarations import Field
from features.errors import StateError, explain
from features.online.store import NO_OFFSET, Lookup, OnlineReader, Watermark
from inference.requests import ScoreRequest

HEADER: Final = struct.Struct("<qq")
EMPTY_SHARD: Final = "empty_shard"
"""Nothing has ever been folded into the entity's shard: the answer is the cold-start answer whoever the entity is."""
STATE_AFTER_NOW: Final = "state_after_now"
"""The shard holds events that were not known yet at ``now``: a replay of the past against a newer store."""
STALE_STATE: Final = "stale_state"
"""The shard is older than the view's freshness SLA."""

UNKNOWN: Final = Watermark()
"""Position of a shard of which the store could tell nothing."""

PYTHON_TYPES: Final[dict[str, type]] = {"string": str, "int64": int}


@dataclass(frozen=True)
class Inputs:
    """Inputs of the graph for n entities, and what the reply says about them.

    Attributes:
        tensors: by input name, (n,) values: ``state`` bytes, ``now`` int64 microseconds, profile and request fields.
        cold: (n,) whether the entity has no state.
        log_partition, log_offset: (n,) the last event that the answer can have seen: the entity's own, or the shard's
            for a cold entity.
        age_s: (n,) seconds from the shard's as-of time to ``now``, at least 0.
        degraded: (n,) why the answer is worse than it could be, or None.
        watermarks: position of each shard that was read.
    """

    tensors: dict[str, list[Any] | NDArray[np.int64]]
    cold: list[bool]
    log_partition: list[int]
    log_offset: list[int]
    age_s: list[float]
    degraded: list[str | None]
    watermarks: dict[int, Watermark]


def look_up(store: OnlineReader, request: ScoreRequest, profile_fields: Sequence[Field], freshness_sla_s: int) -> Inputs:
    """Read everything that the graph needs to know about the request's entities.

    Raises:
        EntityIdError: an id is empty or too long.
        StateError: a stored state or profile is damaged.
        StoreError, StoreUnavailable: the store's.
    """
    found = store.get_many(request.entity_ids, profiles=bool(profile_fields))
    age_us, degraded = _freshness(found, request.now_us, freshness_sla_s)
    tensors: dict[str, list[Any] | NDArray[np.int64]] = {
        "state": found.states,
        "now": np.array(request.now_us, dtype=np.int64),
        **_profile_columns(found, profile_fields),
        **request.fields,
    }
    return Inputs(
        tensors=tensors,
        cold=[not state for state in found.states],
        log_partition=found.shards,
        log_offset=_offsets(found, request.entity_ids),
        age_s=[age / layout.US_PER_S for age in age_us],
        degraded=degraded,
        watermarks=found.watermarks,
    )


def _freshness(found: Lookup, now_us: list[int], freshness_sla_s: int) -> tuple[list[int], list[str | None]]:
    sla_us = freshness_sla_s * layout.US_PER_S
    ages: list[int] = []
    reasons: list[str | None] = []
    for shard, now, stand_in in zip(found.shards, now_us, found.degraded, strict=True):
        mark = found.watermarks.get(shard, UNKNOWN)
        age = now - max(mark.as_of_us, mark.ingest_time_us)
        if stand_in is not None:
            reason: str | None = stand_in
        elif mark.log_offset == NO_OFFSET and not mark.as_of_us:
            reason = EMPTY_SHARD
        elif mark.ingest_time_us > now:
            reason = STATE_AFTER_NOW
        else:
            reason = STALE_STATE if age > sla_us else None
        ages.append(max(age, 0))
        reasons.append(reason)
    return ages, reasons


def _offsets(found: Lookup, entity_ids: list[str]) -> list[int]:
    """Each state's own offset, from its header; the shard's for an entity without state."""
    header_keys = {shard: layout.header_key(shard) for shard in found.watermarks}
    offsets: list[int] = []
    for row, (state, shard) in enumerate(zip(found.states, found.shards, strict=True)):
        if not state:
            offsets.append(found.watermarks.get(shard, UNKNOWN).log_offset)
            continue
        if len(state) % layout.RECORD_BYTES:
            raise _damaged(entity_ids[row], f"a multiple of {layout.RECORD_BYTES} bytes", f"{len(state)} bytes")
        key, offset = HEADER.unpack_from(state)
        if key != header_keys[shard]:
            raise _damaged(entity_ids[row], f"a header of format {layout.FORMAT_VERSION}, partition {shard}", f"key {key:#x}")
        offsets.append(offset)
    return offsets


def _profile_columns(found: Lookup, fields: Sequence[Field]) -> dict[str, list[Any]]:
    if not fields:
        return {}
    rows = [orjson.loads(profile) if profile else {} for profile in found.profiles]
    columns: dict[str, list[Any]] = {}
    for field in fields:
        wanted, default = PYTHON_TYPES[field.dtype], field.default
        values = [row.get(field.name) for row in rows]
        columns[field.name] = [default if value is None else value for value in values]
        wrong = next((value for value in columns[field.name] if type(value) is not wanted), None)
        if wrong is not None:
            raise StateError(
                explain("stored profile value has a wrong type", which=field.name, expected=field.dtype,
                        got=repr(wrong)[:60], next_step="materialize the profile again")
            )  # fmt: skip
    return columns


def _damaged(entity_id: str, expected: str, got: str) -> StateError:
    return StateError(
        explain("stored state is damaged", which=repr(entity_id)[:60], expected=expected, got=got,
                next_step="materialize the view again")
    )  # fmt: skip
