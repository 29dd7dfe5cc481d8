"""Repeated events in a stream: the rule of ``features.events.deduplicate``, a micro-batch at a time.

What is remembered of each event kept within the horizon is a 128-bit hash of (entity_id, event_id) and its ingest_time: 24
bytes. Hashes live in sorted runs of growing size that are merged and forgotten as time goes on, so that remembering costs a
few binary searches an event, in arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from features.events import DEDUPLICATION_HORIZON_S, deduplicate
from features.layout import US_PER_S

Hashes = NDArray[np.uint64]
Ints = NDArray[np.int64]

SEEDS: Final = (0, 0x9E3779B97F4A7C15)
MERGE_FACTOR: Final = 4
IDENTITY: Final = ("entity_id", "event_id", "ingest_time", "log_offset")


@dataclass(frozen=True)
class _Run:
    """Kept events by ascending ``low``; where two have one ``low``, the later one counts and the other is missed."""

    low: Hashes
    high: Hashes
    kept_us: Ints
    newest_us: int


class Repeats:
    """The events of one log partition that were kept within the last horizon."""

    def __init__(self, horizon_s: int = DEDUPLICATION_HORIZON_S) -> None:
        self._horizon_s = horizon_s
        self._runs: list[_Run] = []

    def __len__(self) -> int:
        return sum(len(run.low) for run in self._runs)

    def drop(self, events: pa.Table) -> pa.Table:
        """The events that are no repeats, in their order; they are remembered.

        Args:
            events: the log's next events, all of them admitted.
        """
        if not events.num_rows:
            return events
        low, high = _hash(events)
        known_us = self._kept_us(low, high)
        suspect = known_us >= 0
        order = np.argsort(low, kind="stable")
        same = low[order][1:] == low[order][:-1]
        suspect[order[1:][same]] = suspect[order[:-1][same]] = True
        keep = np.ones(events.num_rows, bool)
        if suspect.any():
            keep[suspect] = self._judge(events, np.flatnonzero(suspect), known_us)
        ingest_us = events["ingest_time"].cast(pa.int64()).to_numpy()
        self.remember(low[keep], high[keep], ingest_us[keep])
        return events if keep.all() else events.filter(pa.array(keep))

    def _judge(self, events: pa.Table, rows: Ints, known_us: Ints) -> NDArray[np.bool_]:
        """Which of the suspected rows are kept, by the batch rule itself, over them and the copies kept before."""
        suspects = events.select(list(IDENTITY)).take(pa.array(rows))
        before = np.flatnonzero(known_us[rows] >= 0)
        earlier = suspects.take(pa.array(before))
        # An earlier copy stands before every row of the batch; which of several equal ones is taken does not matter.
        earlier = earlier.set_column(
            2, suspects.schema.field(2), pa.array(known_us[rows[before]]).cast(suspects.schema.field(2).type)
        )
        earlier = earlier.set_column(3, suspects.schema.field(3), pa.array(np.full(len(before), -1)))
        kept = deduplicate(pa.concat_tables([earlier, suspects]), horizon_s=self._horizon_s)
        mask: NDArray[np.bool_] = np.isin(suspects["log_offset"].to_numpy(), kept["log_offset"].to_numpy())
        return mask

    def _kept_us(self, low: Hashes, high: Hashes) -> Ints:
        """Ingest time of the copy kept last of each event, -1 where none is remembered."""
        found = np.full(len(low), -1, np.int64)
        order = np.argsort(low)
        for run in self._runs:
            # Ascending needles walk the run in one direction, which the cache likes.
            place = np.minimum(np.searchsorted(run.low, low[order]), len(run.low) - 1)
            hit = (run.low[place] == low[order]) & (run.high[place] == high[order])
            at = order[hit]
            found[at] = np.maximum(found[at], run.kept_us[place[hit]])
        return found

    def remember(self, low: Hashes, high: Hashes, kept_us: Ints) -> None:
        """Add events that were kept, by their hashes and ingest times, in offset order."""
        if not len(low):
            return
        newest_us = int(kept_us.max())
        oldest_us = newest_us - self._horizon_s * US_PER_S
        self._runs = [run for run in self._runs if run.newest_us >= oldest_us]
        run = _sorted_run(low, high, kept_us)
        while self._runs and len(self._runs[-1].low) < MERGE_FACTOR * len(run.low):
            run = _merge(self._runs.pop(), run, oldest_us)
        self._runs.append(run)


def recall(events_since: Callable[[int], pa.Table], position_us: int, horizon_s: int = DEDUPLICATION_HORIZON_S) -> Repeats:
    """What a stream remembers that has read its partition up to an event of ``position_us``.

    Whether a copy was kept depends on the copy kept before it, so one horizon alone cannot tell. Two are read, and more as
    long as a copy in the last one may depend on what lies before them.

    Args:
        events_since: the admitted events that the stream has read, from an ingest_time (UTC microseconds) on, in offset
            order: columns ``IDENTITY``. It may give more.
    """
    horizon_us = horizon_s * US_PER_S
    recent_us, horizons = position_us - horizon_us, 2
    while True:
        since_us = position_us - horizons * horizon_us
        events = events_since(since_us)
        if since_us <= 0 or not _depends_on_earlier(events, since_us + horizon_us, recent_us):
            break
        horizons *= 2
    kept = deduplicate(events, horizon_s=horizon_s)
    kept = kept.filter(pa.array(kept["ingest_time"].cast(pa.int64()).to_numpy() >= recent_us))
    repeats = Repeats(horizon_s)
    if kept.num_rows:
        repeats.remember(*_hash(kept), kept["ingest_time"].cast(pa.int64()).to_numpy())
    return repeats


def _depends_on_earlier(events: pa.Table, decided_us: int, recent_us: int) -> bool:
    """Whether any event with a copy since ``recent_us`` has its first one before ``decided_us``."""
    if not events.num_rows:
        return False
    low, _ = _hash(events)
    ingest_us = events["ingest_time"].cast(pa.int64()).to_numpy()
    return bool(np.isin(low[ingest_us >= recent_us], low[ingest_us < min(decided_us, recent_us)]).any())


def _hash(events: pa.Table) -> tuple[Hashes, Hashes]:
    frame = pl.DataFrame({name: pl.Series(name, events[name]) for name in IDENTITY[:2]})
    low, high = (frame.hash_rows(seed=seed).to_numpy() for seed in SEEDS)
    return low, high


def _sorted_run(low: Hashes, high: Hashes, kept_us: Ints) -> _Run:
    order = np.argsort(low, kind="stable")
    low, high, kept_us = low[order], high[order], kept_us[order]
    # Of one event's copies only the last one kept matters.
    last = np.append(low[1:] != low[:-1], True)
    return _Run(low[last], high[last], kept_us[last], int(kept_us.max()))


def _merge(older: _Run, newer: _Run, oldest_us: int) -> _Run:
    living = older.kept_us >= oldest_us
    low: Hashes = np.concatenate((older.low[living], newer.low))
    high: Hashes = np.concatenate((older.high[living], newer.high))
    kept_us: Ints = np.concatenate((older.kept_us[living], newer.kept_us))
    return _sorted_run(low, high, kept_us)
