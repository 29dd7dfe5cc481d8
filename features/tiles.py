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
import pyarrow.compute as pc
from numpy.typing import NDArray

from features import layout
from features.declarations import HOUR_OF_WEEK, By, Signal

Ints = NDArray[np.int64]

KEEP_FOR_EVER: Final = np.iinfo(np.int64).max
_HOURS_PER_WEEK: Final = 168
_MONDAY_OFFSET_HOURS: Final = 72
"""1970-01-01 was a Thursday: three days after a Monday."""


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
    """The tiles of these events alone, not aged out."""
    event_time_us = _ints(events["event_time"])
    owners, keys, values = [], [], []
    for signal in plan.signals:
        chosen = np.flatnonzero(_belongs(events, signal))
        if not len(chosen):
            continue
        times_us = event_time_us[chosen]
        by = _by_codes(events, signal.by, chosen, times_us)
        measured = _ints(events[signal.value])[chosen] if signal.value else times_us
        for resolution in {layout.resolution_of(window_s) for window_s in signal.windows_s}:
            bucket = times_us // (resolution.period_s * layout.US_PER_S) if resolution.period_s else np.zeros_like(times_us)
            low_bits = (by << layout.BY_SHIFT) | bucket
            for operation in signal.operations:
                series = layout.pack_series(signal.id, operation, resolution)
                owners.append(owner[chosen])
                keys.append(low_bits | (series << layout.SERIES_SHIFT))
                values.append(_contributions(operation, times_us, measured))
    if not keys:
        return no_tiles()
    return _combine(np.concatenate(owners), np.concatenate(keys), np.concatenate(values))


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


def select(tiles: Tiles, chosen: NDArray[np.bool_]) -> Tiles:
    """The tiles where ``chosen`` is true."""
    return Tiles(tiles.owner[chosen], tiles.key[chosen], tiles.value[chosen])


def _belongs(events: pa.Table, signal: Signal) -> NDArray[np.bool_]:
    mask = _is_in(events["event_type"], signal.event_types)
    for condition in signal.where:
        mask &= _is_in(events[condition.attribute], condition.is_in)
    if signal.value:
        # An event that lacks the value is not part of the signal: neither its count nor its sum.
        mask &= pc.is_valid(events[signal.value]).to_numpy()
    return mask


def _is_in(column: pa.ChunkedArray, values: tuple[str, ...] | tuple[int, ...]) -> NDArray[np.bool_]:
    members: NDArray[np.bool_] = pc.is_in(column, value_set=pa.array(values, column.type)).to_numpy().copy()
    return members


def _by_codes(events: pa.Table, by: By | None, chosen: Ints, times_us: Ints) -> Ints:
    if by is None:
        return np.zeros(len(chosen), dtype=np.int64)
    if by.attribute == HOUR_OF_WEEK:
        return (times_us // (layout.HOUR_S * layout.US_PER_S) + _MONDAY_OFFSET_HOURS) % _HOURS_PER_WEEK
    listed = pc.index_in(events[by.attribute], value_set=pa.array(by.values, pa.string()))
    codes: Ints = pc.fill_null(pc.add(listed, 1), 0).to_numpy().astype(np.int64)[chosen]
    return codes


def _contributions(operation: str, times_us: Ints, measured: Ints) -> Ints:
    if operation == "count":
        return np.ones_like(times_us)
    return times_us if operation in ("last", "first") else measured


def _combine(owner: Ints, key: Ints, value: Ints) -> Tiles:
    """Sort by (owner, key) and reduce repeats by each key's own operation."""
    unsorted = Tiles(owner, key, value)
    (order,) = _sort_keys(unsorted)
    by_key = np.argsort(order)
    order = order[by_key]
    starts = np.flatnonzero(np.concatenate(([True], order[1:] != order[:-1])))
    first = by_key[starts]
    key, value = key[first], value[by_key]
    operation = _operation(key)
    reduced = np.add.reduceat(value, starts)
    for codes, function in ((_MAXIMA, np.maximum), (_MINIMA, np.minimum)):
        extreme = np.isin(operation, codes)
        if extreme.any():
            reduced = np.where(extreme, function.reduceat(value, starts), reduced)
    return Tiles(owner[first], key, reduced)


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


def _ints(column: pa.ChunkedArray) -> Ints:
    values: Ints = pc.fill_null(column.cast(pa.int64()), 0).to_numpy()
    return values
