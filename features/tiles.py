"""Tiles: the only place where events become state.

Everything here is a pure function over parallel arrays, vectorised over many entities. ``fold`` is what batch, stream
and point-in-time replay all call. Counts and sums add, ``max`` and ``last`` take the greater, ``first`` the smaller
value: all commute and are exact on int64, so any order and any batching of the same events give the same tiles.

A series (signal, operation, resolution) keeps the tiles newer than its head minus its retention, the head being its
newest bucket. The head's own tile always stays, and a tile that is dropped once could never come back, so ageing out
does not depend on the order either; and no series looks at another, so a new signal changes no other tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features import layout, matching
from features.declarations import Signal

Ints = NDArray[np.int64]

_GROUP_SHIFT: Final = layout.BUCKET_BITS + 1
"""Leaves room for a bucket and a retention, so that no sum of the two runs into the next group."""
KEEP_FOR_EVER: Final = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Tiles:
    """Tiles of many entities: three int64 arrays of one length, sorted by (owner, key), each pair at most once.

    ``owner`` is the number of the entity (or of the training row) in the caller's list.
    """

    owner: Ints
    key: Ints
    value: Ints

    def __len__(self) -> int:
        return len(self.key)


@dataclass(frozen=True)
class FoldPlan:
    """How to fold one view: its signals, and for each of their series how many newest buckets to keep."""

    signals: tuple[Signal, ...]
    retention: Ints
    """By ``key >> SERIES_SHIFT``; lifetime series and ids not declared here are kept for ever."""


@lru_cache(maxsize=64)
def plan_fold(signals: tuple[Signal, ...]) -> FoldPlan:
    """The fold plan of these signals."""
    longest: dict[int, int] = {}
    for signal in signals:
        for window_s in signal.windows_s:
            resolution = layout.resolution_of(window_s)
            if window_s == layout.LIFETIME:
                continue
            for operation in signal.operations:
                series = layout.pack_series(signal.id, operation, resolution)
                longest[series] = max(longest.get(series, 0), layout.retention_buckets(resolution, window_s))
    retention = np.full(max(longest, default=0) + 2, KEEP_FOR_EVER, dtype=np.int64)
    for series, buckets in longest.items():
        retention[series] = buckets
    retention.setflags(write=False)
    return FoldPlan(signals, retention)


def no_tiles() -> Tiles:
    """The state of no events at all."""
    empty = np.empty(0, dtype=np.int64)
    return Tiles(empty, empty, empty)


def fold(state: Tiles, events: pa.Table, owner: Ints, plan: FoldPlan) -> Tiles:
    """Fold events into state.

    Args:
        state: tiles so far; entities are numbered as in ``owner``.
        events: (n,) rows of ``rows.event_schema``, any order, already de-duplicated and validated.
        owner: (n,) number of each event's entity.
        plan: the view's fold plan.
    Returns:
        The tiles that all events seen so far give, whatever their order and batching.
    """
    return merge(state, tiles_of_events(events, owner, plan), plan)


def tiles_of_events(events: pa.Table, owner: Ints, plan: FoldPlan) -> Tiles:
    """The tiles of these events alone, not aged out.

    Sorts the events by (owner, event_time), once. Each series then falls into runs of equal (owner, bucket), which are
    already in order, and since every series knows how many tiles each owner has, all tiles go to their places by counting.
    """
    if not len(owner):
        return no_tiles()
    times_us = matching.ints(events["event_time"])
    order = np.lexsort((times_us, owner))
    times_us, owner = times_us[order], owner[order]
    changes = np.concatenate(([False], owner[1:] != owner[:-1]))
    place = np.cumsum(changes)
    series: dict[int, tuple[Ints, Ints, Ints]] = {}
    for signal in plan.signals:
        chosen = np.flatnonzero(matching.belongs(events, signal)[order])
        if not len(chosen):
            continue
        by = matching.by_codes(events, signal.by, order[chosen], times_us[chosen]) if signal.by else None
        measured = matching.ints(events[signal.value])[order[chosen]] if signal.value else times_us[chosen]
        series |= _series_of(signal, _Chosen(place[chosen], times_us[chosen], measured, by))
    distinct = owner[np.concatenate(([True], changes[1:]))]
    return _interleave([series[number] for number in sorted(series)], distinct)


@dataclass(frozen=True)
class _Chosen:
    """The events of one signal, sorted by (owner, event_time); ``owner`` counts from 0 without gaps."""

    owner: Ints
    times_us: Ints
    measured: Ints
    by: Ints | None


def _series_of(signal: Signal, events: _Chosen) -> dict[int, tuple[Ints, Ints, Ints]]:
    """Each series of a signal as (owner, key, value), sorted by (owner, key), by its number."""
    series = {}
    for resolution in {layout.resolution_of(window_s) for window_s in signal.windows_s}:
        period_us = resolution.period_s * layout.US_PER_S
        low_bits = events.times_us // period_us if period_us else np.zeros_like(events.times_us)
        owner, times_us, measured = events.owner, events.times_us, events.measured
        if events.by is not None:
            low_bits = (events.by << layout.BY_SHIFT) | low_bits
            order = np.lexsort((low_bits, owner))
            low_bits, owner, times_us, measured = (column[order] for column in (low_bits, owner, times_us, measured))
        starts = np.flatnonzero(np.concatenate(([True], (owner[1:] != owner[:-1]) | (low_bits[1:] != low_bits[:-1]))))
        for operation in signal.operations:
            number = layout.pack_series(signal.id, operation, resolution)
            value = _reduce(operation, times_us, measured, starts)
            series[number] = (owner[starts], low_bits[starts] | (number << layout.SERIES_SHIFT), value)
    return series


def _reduce(operation: str, times_us: Ints, measured: Ints, starts: Ints) -> Ints:
    """One operation over runs of events, given where each run starts."""
    if operation == "count":
        return np.diff(np.append(starts, len(times_us)))
    if operation == "sum":
        return np.add.reduceat(measured, starts)
    if operation == "max":
        return np.maximum.reduceat(measured, starts)
    return (np.maximum if operation == "last" else np.minimum).reduceat(times_us, starts)


def _interleave(series: list[tuple[Ints, Ints, Ints]], distinct: Ints) -> Tiles:
    """Series, ascending and each sorted by (owner, key), as tiles; ``distinct`` has the caller's number of each owner."""
    counts = [np.bincount(owner, minlength=len(distinct)) for owner, *_ in series]
    of_owner = np.sum(counts, axis=0) if counts else np.zeros(len(distinct), dtype=np.int64)
    free = np.cumsum(of_owner) - of_owner
    merged = Tiles(np.repeat(distinct, of_owner), *(np.empty(int(of_owner.sum()), dtype=np.int64) for _ in range(2)))
    for (owner, key, value), count in zip(series, counts, strict=True):
        at = np.arange(len(owner)) + (free - (np.cumsum(count) - count))[owner]
        merged.key[at] = key
        merged.value[at] = value
        free += count
    return merged


def merge(state: Tiles, delta: Tiles, plan: FoldPlan) -> Tiles:
    """Merge two sets of tiles and age out.

    The cost is a binary search for each tile of ``delta`` in ``state`` and one copy of the result, so pass the smaller
    set as ``delta``.
    """
    if not len(delta):
        return state
    if not len(state):
        return _age_out(delta, plan)
    state_order, delta_order = _sort_keys(state, delta)
    place = np.searchsorted(state_order, delta_order)
    hit = state_order[np.minimum(place, len(state) - 1)] == delta_order
    value = state.value.copy()
    at = place[hit]
    value[at] = _apply(_operation(state.key[at]), value[at], delta.value[hit])
    new_at = place[~hit] + np.arange(len(delta) - len(at))
    old = np.ones(len(state) + len(new_at), dtype=bool)
    old[new_at] = False
    merged = [np.empty(len(old), dtype=np.int64) for _ in range(3)]
    for target, source, added in zip(
        merged, (state.owner, state.key, value), (delta.owner, delta.key, delta.value), strict=True
    ):
        target[old] = source
        target[new_at] = added[~hit]
    return _age_out(Tiles(*merged), plan)


def replay(arriving: Tiles, entity: Ints, plan: FoldPlan) -> Tiles:
    """The tiles of every row, from those that arrive at each: what ``merge`` gives row by row, for all rows at once.

    A tile of an entity has a version for each row at which something arrives; a version stands from its row to the next
    one's, or until it ages out, and is copied to the rows in between.

    Args:
        arriving: tiles whose owners are rows.
        entity: (n,) entity of each row, ascending; an entity's rows are in time order.
        plan: the view's fold plan.
    """
    if not len(arriving):
        return arriving
    (packed,) = _sort_keys(Tiles(entity[arriving.owner], arriving.key, arriving.value))
    order = np.argsort(packed, kind="stable")
    row, key, value = arriving.owner[order], arriving.key[order], arriving.value[order]
    again = np.concatenate(([False], packed[order][1:] == packed[order][:-1]))
    value = _accumulate(key, value, again)
    # The row after the last one at which this version stands; to begin with, the entity's end.
    starts = np.flatnonzero(np.concatenate(([True], entity[1:] != entity[:-1])))
    rows = np.diff(np.append(starts, len(entity)))
    end = np.repeat(starts + rows, rows)[row]
    end[:-1] = np.where(again[1:], row[1:], end[:-1])
    end = np.minimum(end, _row_of_ageing(entity, row, key, plan))
    length = np.maximum(end - row, 0)
    version = np.repeat(np.arange(len(row)), length)
    copies = np.arange(len(version)) + np.repeat(row - (np.cumsum(length) - length), length)
    # Versions are in the order of keys, so a stable sort by row sorts by (row, key); of 16-bit numbers it is a radix sort.
    version = version[np.argsort(copies.astype(np.min_scalar_type(len(entity))), kind="stable")]
    owner = np.repeat(np.arange(len(entity)), np.bincount(copies, minlength=len(entity)))
    return Tiles(owner, key[version], value[version])


def _accumulate(key: Ints, value: Ints, again: NDArray[np.bool_]) -> Ints:
    """Each version's value with those of the versions before it; ``again`` is true where a tile has an earlier version."""
    first = np.maximum.accumulate(np.where(again, 0, np.arange(len(key))))
    number = np.arange(len(key)) - first
    later = np.flatnonzero(again)
    later = later[np.argsort(number[later], kind="stable")]
    value = value.copy()
    for at in np.split(later, np.cumsum(np.bincount(number[later])[1:-1])) if len(later) else ():
        value[at] = _apply(_operation(key[at]), value[at - 1], value[at])
    return value


def _row_of_ageing(entity: Ints, row: Ints, key: Ints, plan: FoldPlan) -> Ints:
    """For each version the first row at which its series' head has left it behind; the number of rows if none.

    The head has reached a bucket at the first row at which any tile of that bucket or a newer one arrives.
    """
    series = key >> layout.SERIES_SHIFT
    retention = plan.retention[np.minimum(series, len(plan.retention) - 1)]
    ageing = np.flatnonzero(retention != KEEP_FOR_EVER)
    left_behind = np.full(len(row), len(entity), dtype=np.int64)
    if not len(ageing):
        return left_behind
    group = np.cumsum(np.concatenate(([False], (series[1:] != series[:-1]) | (np.diff(entity[row]) != 0))))[ageing]
    bucket = key[ageing] & layout.BUCKET_MASK
    place = (group << _GROUP_SHIFT) | bucket
    by_bucket = np.argsort(place, kind="stable")
    # The least row of all tiles from here to the end of the group: groups are lifted apart, so that no other's is less.
    lift = group[by_bucket] * (len(entity) + 1)
    soonest = np.minimum.accumulate((row[ageing][by_bucket] + lift)[::-1])[::-1] - lift
    newer = np.searchsorted(place[by_bucket], place + retention[ageing])
    within = np.minimum(newer, len(place) - 1)
    reached = (newer < len(place)) & (group[by_bucket][within] == group)
    left_behind[ageing[reached]] = soonest[within[reached]]
    return left_behind


def select(tiles: Tiles, chosen: NDArray[np.bool_]) -> Tiles:
    """The tiles where ``chosen`` is true."""
    return Tiles(tiles.owner[chosen], tiles.key[chosen], tiles.value[chosen])


_MAXIMA: Final = np.array([layout.OPERATION_CODES["max"], layout.OPERATION_CODES["last"]])
_MINIMA: Final = np.array([layout.OPERATION_CODES["first"]])


def _operation(key: Ints) -> Ints:
    return (key >> layout.OPERATION_SHIFT) & ((1 << layout.OPERATION_BITS) - 1)


def _apply(operation: Ints, old: Ints, new: Ints) -> Ints:
    total = old + new
    total = np.where(np.isin(operation, _MAXIMA), np.maximum(old, new), total)
    return np.where(np.isin(operation, _MINIMA), np.minimum(old, new), total)


def _age_out(tiles: Tiles, plan: FoldPlan) -> Tiles:
    series = tiles.key >> layout.SERIES_SHIFT
    retention = plan.retention[np.minimum(series, len(plan.retention) - 1)]
    bucket = tiles.key & layout.BUCKET_MASK
    changes = (series[1:] != series[:-1]) | (tiles.owner[1:] != tiles.owner[:-1])
    starts = np.flatnonzero(np.concatenate(([True], changes)))
    heads = np.maximum.reduceat(bucket, starts)
    head = np.repeat(heads, np.diff(np.append(starts, len(tiles))))
    kept = bucket > head - retention
    return tiles if kept.all() else select(tiles, kept)


def _sort_keys(*sets: Tiles) -> list[Ints]:
    """One int64 for each tile that sorts as (owner, key) does, the same coding for all sets.

    Owner and key together have more than 64 bits, but their unused high bits squeeze out: signal ids are small, and
    buckets count from the oldest one present.
    """
    keys = [tiles.key for tiles in sets]
    top_series = max(int(key.max()) >> layout.SERIES_SHIFT for key in keys)
    by = [(key >> layout.BY_SHIFT) & layout.MAX_BY for key in keys]
    bucket = [key & layout.BUCKET_MASK for key in keys]
    oldest = min(int(buckets[buckets > 0].min(initial=layout.BUCKET_MASK)) for buckets in bucket) - 1
    bucket = [np.maximum(buckets - oldest, 0) for buckets in bucket]
    by_bits = max(int(codes.max()) for codes in by).bit_length()
    bucket_bits = max(int(buckets.max()) for buckets in bucket).bit_length()
    owner_shift = top_series.bit_length() + by_bits + bucket_bits
    top_owner = max(int(tiles.owner.max()) for tiles in sets)
    if owner_shift + top_owner.bit_length() > 63:
        return _rank_keys(sets)
    return [
        (tiles.owner << owner_shift)
        | ((tiles.key >> layout.SERIES_SHIFT) << (by_bits + bucket_bits))
        | (codes << bucket_bits)
        | buckets
        for tiles, codes, buckets in zip(sets, by, bucket, strict=True)
    ]


def _rank_keys(sets: tuple[Tiles, ...]) -> list[Ints]:
    """The same order from ranks of the distinct keys, for the rare batch that does not squeeze into 63 bits."""
    distinct, rank = np.unique(np.concatenate([tiles.key for tiles in sets]), return_inverse=True)
    packed = np.concatenate([tiles.owner for tiles in sets]) * len(distinct) + rank
    return np.split(packed, np.cumsum([len(tiles) for tiles in sets])[:-1])
