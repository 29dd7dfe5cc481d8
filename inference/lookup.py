"""Entity ids to the graph's inputs: one batch read of the online store, defaults where nothing is known."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features import layout
from features.declarations import Field
from features.errors import StateError, explain
from features.online.store import NO_OFFSET, Lookup, OnlineReader, Watermark
from features.profile_values import profile_column, read_profiles
from features.zones import UTC, known_zones
from inference.requests import ScoreRequest

HEADER: Final = struct.Struct("<qq")
EMPTY_SHARD: Final = "empty_shard"
"""Nothing has ever been folded into the entity's shard: the answer is the cold-start answer whoever the entity is."""
STATE_AFTER_NOW: Final = "state_after_now"
"""The shard holds events that were not known yet at ``now``: a replay of the past against a newer store."""
STALE_STATE: Final = "stale_state"
"""The shard is older than the view's freshness SLA."""
MISSING_ZONE: Final = "missing_time_zone"
"""The store has no time zone of the entity: its hours count as those of the field's default."""
UNKNOWN_ZONE: Final = "unknown_time_zone"
"""Nobody knows the entity's time zone: its hours count as UTC."""

UNKNOWN: Final = Watermark()
"""Position of a shard of which the store could tell nothing."""


@dataclass(frozen=True)
class Inputs:
    """Inputs of the graph for n entities, and what the reply says about them.

    Attributes:
        tensors: by input name, (n,) values: ``state`` bytes, ``now`` int64 microseconds, profile and request fields.
        cold: (n,) whether the entity has no state.
        log_partition, log_offset: (n,) the last event that the answer can have seen: the entity's own, or the shard's
            for a cold entity.
        age_s: (n,) seconds from the shard's as-of time to ``now``, at least 0.
        degraded: (n,) why the answer is worse than it could be, or None. A failing store comes before a time zone that is not
            known, and that before the age of the state.
        watermarks: position of each shard that was read.
    """

    tensors: dict[str, list[Any] | NDArray[np.int64]]
    cold: list[bool]
    log_partition: list[int]
    log_offset: list[int]
    age_s: list[float]
    degraded: list[str | None]
    watermarks: dict[int, Watermark]


def look_up(
    store: OnlineReader, request: ScoreRequest, profile_fields: Sequence[Field], freshness_sla_s: int, *, time_zone: str = ""
) -> Inputs:
    """Read everything that the graph needs to know about the request's entities.

    Args:
        time_zone: the profile or request field that says the local clock; empty where the view has none.
    Raises:
        EntityIdError: an id is empty or too long.
        StateError: a stored state or profile is damaged.
        StoreError, StoreUnavailable: the store's.
    """
    found = store.get_many(request.entity_ids, profiles=bool(profile_fields))
    age_us, degraded = _freshness(found, request.now_us, freshness_sla_s)
    profiles = read_profiles(found.profiles) if profile_fields else []
    tensors: dict[str, list[Any] | NDArray[np.int64]] = {
        "state": found.states,
        "now": np.array(request.now_us, dtype=np.int64),
        **{field.name: profile_column(profiles, field) for field in profile_fields},
        **request.fields,
    }
    if time_zone and time_zone != UTC:
        zones = (
            [[row.get(time_zone)] for row in profiles] if time_zone not in request.fields else _by_entity(request, time_zone)
        )
        degraded = [
            reason if stand_in is not None else _doubt_zones(own) or reason
            for own, stand_in, reason in zip(zones, found.degraded, degraded, strict=True)
        ]
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


def _by_entity(request: ScoreRequest, name: str) -> list[list[Any]]:
    """A request field's values of each entity: one, or one a candidate."""
    values = iter(request.fields[name])
    return [list(islice(values, count)) for count in request.counts]


def _doubt_zones(zones: Sequence[str | None]) -> str | None:
    if not all(zones):
        return MISSING_ZONE
    return None if known_zones().issuperset(zones) else UNKNOWN_ZONE


def _damaged(entity_id: str, expected: str, got: str) -> StateError:
    return StateError(
        explain("stored state is damaged", which=repr(entity_id)[:60], expected=expected, got=got,
                next_step="materialize the view again")
    )  # fmt: skip
