"""Which events a signal aggregates, and under which code: columns of events to masks and integers.

Columns of words may come as plain strings or dictionary-encoded; the answers are the same.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features import layout
from features.declarations import HOUR_OF_WEEK, By, Signal
from features.slots import SLOTS

Ints = NDArray[np.int64]


_MONDAY_OFFSET_HOURS: Final = 72
"""1970-01-01 was a Thursday: three days after a Monday."""


def belongs(events: pa.Table, signal: Signal) -> NDArray[np.bool_]:
    """(n,) whether the signal aggregates each event."""
    mask = _is_in(events["event_type"], signal.event_types)
    for condition in signal.where:
        mask &= _is_in(events[condition.attribute], condition.is_in)
    if signal.value:
        # An event that lacks the value is not part of the signal: neither its count nor its sum.
        mask &= pc.is_valid(events[signal.value]).to_numpy()
    return mask


def _is_in(column: pa.ChunkedArray, values: tuple[str | None, ...] | tuple[int, ...]) -> NDArray[np.bool_]:
    if not pa.types.is_dictionary(column.type):
        return np.array(pc.is_in(column, value_set=pa.array(values, column.type)), dtype=bool)
    words = column.combine_chunks()
    # One look-up a distinct word; the last entry is what a missing value finds.
    found = pc.is_in(words.dictionary, value_set=pa.array(values, words.dictionary.type)).to_numpy(zero_copy_only=False)
    codes = pc.fill_null(words.indices, -1).to_numpy()
    members: NDArray[np.bool_] = np.append(found, None in values)[codes]
    return members


def by_codes(events: pa.Table, by: By, chosen: Ints, times_us: Ints) -> Ints:
    """Codes of the signal's key for the chosen events, whose times are given."""
    if by.attribute == HOUR_OF_WEEK:
        if not by.offset:
            return hours_of_week(times_us)
        offset = events[by.offset].take(pa.array(chosen))
        local: Ints = hours_of_week(times_us + ints(offset) * layout.MINUTE_S * layout.US_PER_S)
        return np.where(pc.is_valid(offset).to_numpy(), local, SLOTS)
    column = events[by.attribute]
    words = column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
    listed = pc.index_in(words, value_set=pa.array(by.values, pa.string()))
    codes: Ints = pc.fill_null(pc.add(listed, 1), 0).to_numpy().astype(np.int64)[chosen]
    return codes


def hours_of_week(times_us: Ints) -> Ints:
    """Hours since Monday 00:00, 0 to 167, of times in microseconds since 1970 by whatever clock.

    Example:
        >>> hours_of_week(np.array([0])).tolist()  # Thursday 00:00
        [72]
    """
    return (times_us // (layout.HOUR_S * layout.US_PER_S) + _MONDAY_OFFSET_HOURS) % SLOTS


def ints(column: pa.ChunkedArray) -> Ints:
    """A column of integers or times as int64, missing ones 0."""
    values: Ints = pc.fill_null(column.cast(pa.int64()), 0).to_numpy()
    return values
