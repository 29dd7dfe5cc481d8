"""Training rows' states: what the online store would have held for an entity at a time.

A row at (entity, t) sees exactly the events with ``ingest_time + lag <= t``. Each event goes to the first row of its
entity that may see it and arrives there as tiles, made by the code that the stream uses; ``tiles.replay`` then says which
tiles stand at every row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features import layout, tiles
from features.codec import decode_states, encode_states
from features.declarations import Catalog, View
from features.events import DEDUPLICATION_HORIZON_S, deduplicate
from features.partitions import partition_of
from features.snapshots import Base, require_whole
from features.tiles import FoldPlan, Ints, Tiles, plan_fold, tiles_of_events

ROWS_PER_CHUNK = 4_096
"""Rows that are worked on at one time: at 60 tiles a row their arrays still lie in a processor's caches."""


def states_as_known(
    events: pa.Table, catalog: Catalog, view: View, entity_ids: pa.Array, now_us: Ints, base: Base | None = None
) -> pa.LargeBinaryArray:
    """State bytes of each (entity, now) from the events known by then.

    Args:
        events: the entity type's log, rows of ``rows.event_schema``; repeats are dropped here by the log's rule.
        catalog: declares the signals.
        view: its ``lag_s`` is added to every ingest_time.
        entity_ids: (n,) strings, repeats allowed.
        now_us: (n,) microseconds UTC.
        base: ``features.snapshots.read_base`` of the same log, where it has dropped events.
    Returns:
        (n,) state bytes in the order given; empty where nothing was known.
    Raises:
        EventLogError: the log has dropped events that a row would have to see.
    """
    if base is not None and len(now_us):
        base.require(int(now_us.min()) - view.lag_s * layout.US_PER_S, f"rows of view {view.key}")
    wanted = Rows(entity_ids, now_us, base)
    return _states_at(events, catalog, view, wanted, lambda chosen: _known_us(chosen, view))


def states_up_to(
    events: pa.Table, catalog: Catalog, view: View, entity_ids: pa.Array, offsets: Ints, base: Base | None = None
) -> pa.LargeBinaryArray:
    """State bytes of each entity from its events at or before an offset of its log partition, whenever they came.

    Args:
        events, catalog, view, entity_ids: as ``states_as_known``; entities of one partition or several.
        offsets: (n,) log offsets, each of its entity's own partition and not before the base's.
        base: as ``states_as_known``.
    Returns:
        (n,) state bytes in the order given, as a stream had them that had read the log up to there.
    """
    return _states_at(events, catalog, view, Rows(entity_ids, offsets, base), lambda chosen: chosen["log_offset"].to_numpy())


@dataclass(frozen=True)
class Rows:
    """(n,) entities and how far each is to be seen: a time in microseconds UTC, or an offset; what all of them start from."""

    entity_ids: pa.Array
    seen_to: Ints
    base: Base | None = None


def _states_at(
    events: pa.Table, catalog: Catalog, view: View, wanted: Rows, place_of: Callable[[pa.Table], Ints]
) -> pa.LargeBinaryArray:
    """States of rows from events whose place is at most ``wanted.seen_to``."""
    entity_ids, seen_to, base = wanted.entity_ids, wanted.seen_to, wanted.base
    if base is None:
        require_whole(events, f"rows of view {view.key}")
    events = base.after(events) if base else deduplicate(events, horizon_s=DEDUPLICATION_HORIZON_S)
    distinct = entity_ids.unique()
    entity = _codes(entity_ids, distinct)
    event_entity = _codes(events["entity_id"], distinct)
    relevant = event_entity >= 0
    plan = plan_fold(catalog.signals_of(view))
    by_entity = np.flatnonzero(relevant)
    by_entity = by_entity[np.argsort(event_entity[by_entity], kind="stable")]
    events, event_entity = _columns_of(events, plan).take(pa.array(by_entity)), event_entity[by_entity]
    place = place_of(events)
    partition = partition_of(distinct, catalog.log_partitions).astype(np.int64)

    order = np.lexsort((seen_to, entity))
    encoded = []
    for rows in _chunks_of_whole_entities(entity[order]):
        chosen = order[rows]
        span = slice(*np.searchsorted(event_entity, (entity[chosen[0]], entity[chosen[-1]] + 1)))
        row_of_event = _first_row_that_sees(event_entity[span], place[span], entity[chosen], seen_to[chosen])
        start = base.states_of(distinct.take(pa.array(np.unique(entity[chosen])))) if base else None
        standing, offset = _tiles_of_rows(events[span.start : span.stop], row_of_event, entity[chosen], plan, start)
        encoded.append(encode_states(standing, partition[entity[chosen]], offset))
    states = pa.chunked_array(encoded, pa.large_binary()).combine_chunks() if encoded else pa.array([], pa.large_binary())
    if (order[1:] > order[:-1]).all():
        return states
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    taken: pa.LargeBinaryArray = states.take(pa.array(back))
    return taken


def _columns_of(events: pa.Table, plan: FoldPlan) -> pa.Table:
    """What a fold and a header read, words as numbers: whole events would be costly to move."""
    attributes = {signal.value for signal in plan.signals}
    attributes |= {name for signal in plan.signals if signal.by for name in (signal.by.attribute, signal.by.offset)}
    attributes |= {condition.attribute for signal in plan.signals for condition in signal.where}
    wanted = ("event_type", "event_time", "ingest_time", "log_offset", *sorted(attributes & set(events.column_names)))
    columns = {name: events[name].combine_chunks() for name in wanted}
    return pa.table(
        {name: column.dictionary_encode() if column.type == pa.string() else column for name, column in columns.items()}
    )


def _tiles_of_rows(
    events: pa.Table, row_of_event: Ints, entity: Ints, plan: FoldPlan, start: tuple[list[bytes], Ints] | None
) -> tuple[Tiles, Ints]:
    """Tiles and last log offset of each row; rows are sorted by (entity, now).

    Args:
        start: state and offset of each entity, in the order of the rows, that its first row finds; None for nothing.
    """
    rows = len(entity)
    seen = row_of_event < rows
    if not seen.all():
        events, row_of_event = events.filter(pa.array(seen)), row_of_event[seen]
    starts = np.flatnonzero(np.concatenate(([True], entity[1:] != entity[:-1])))
    arriving = tiles_of_events(events, row_of_event, plan)
    offset = np.full(rows, -1, dtype=np.int64)
    if start is not None:
        states, offset[starts] = start
        found = decode_states(states)
        arriving = tiles.merge(Tiles(starts[found.owner], found.key, found.value), arriving, plan)
    return tiles.replay(arriving, entity, plan), _last_offsets(events, row_of_event, offset, starts)


def _last_offsets(events: pa.Table, row_of_event: Ints, offset: Ints, starts: Ints) -> Ints:
    rows = len(offset)
    np.maximum.at(offset, row_of_event, events["log_offset"].to_numpy())
    # A running maximum that starts anew at each entity: lift every entity above all those before it.
    lift = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, rows))) * (int(offset.max(initial=0)) + 2)
    running: Ints = np.maximum.accumulate(offset + lift) - lift
    return running


def _first_row_that_sees(event_entity: Ints, place: Ints, entity: Ints, seen_to: Ints) -> Ints:
    """For each event the first row of its entity with place <= seen_to; the number of rows where there is none."""
    moments = np.unique(seen_to)
    width = len(moments) + 1
    row_order = entity * width + np.searchsorted(moments, seen_to)
    row = np.searchsorted(row_order, event_entity * width + np.searchsorted(moments, place, side="left"))
    same = entity[np.minimum(row, len(entity) - 1)] == event_entity
    return np.where(same & (row < len(entity)), row, len(entity))


def _chunks_of_whole_entities(entity: Ints) -> list[slice]:
    """Slices of about ``ROWS_PER_CHUNK`` sorted rows, never through an entity."""
    bounds = [0]
    while bounds[-1] < len(entity):
        aim = min(bounds[-1] + ROWS_PER_CHUNK, len(entity)) - 1
        bounds.append(int(np.searchsorted(entity, entity[aim], side="right")))
    return [slice(low, high) for low, high in pairwise(bounds)]


def _known_us(events: pa.Table, view: View) -> Ints:
    ingest_us: Ints = events["ingest_time"].cast(pa.int64()).to_numpy()
    return ingest_us + view.lag_s * layout.US_PER_S


def _codes(ids: pa.Array | pa.ChunkedArray, distinct: pa.Array) -> Ints:
    codes: Ints = pc.fill_null(pc.index_in(ids, value_set=distinct), -1).to_numpy().astype(np.int64)
    return codes
