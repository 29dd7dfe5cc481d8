"""Which served rows an audit looks at, and which of them can be made again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.erasure import Markers
from features.event_log.complete import CompletePartition
from features.online.guarded import DEFAULTS
from features.predictions import read_predictions
from features.rows import PREDICTION

Ints = NDArray[np.int64]

CHECKED: Final = "checked"
ERASED: Final = "erased"
"""The entity was deleted since: its events are gone, so the row cannot be made again."""
EXPIRED: Final = "expired"
"""The log has dropped events that the row had not seen the last of: its state is in no snapshot."""
AHEAD: Final = "not_in_log"
"""The row names an offset that the log at hand does not reach: a log on Kafka that is not compacted so far."""
UNDECLARED: Final = "undeclared"
"""The version's view is declared otherwise by now: nothing here tells how its states were made."""
STAND_IN: Final = "stand_in"
"""Of the checked: the store gave nothing, so defaults were served and are what the replay expects."""
PROFILES_UNNAMED: Final = "profiles_unnamed"
"""Of the checked: profile values were of no single fill, so only state and request are compared."""
STATUSES: Final = (CHECKED, ERASED, EXPIRED, AHEAD, UNDECLARED, STAND_IN, PROFILES_UNNAMED)

WHOLE: Final = ("state", "fields", "integers", "finished", "transformed")
SLIM: Final = tuple(name for name in PREDICTION.names if name not in WHOLE)


@dataclass(frozen=True)
class Selection:
    """Which rows of a model's prediction log are audited.

    Attributes:
        since_us, until_us: answered from, and before, UTC microseconds; None for no bound.
        rate: share of entities, drawn by a hash of their id: all rows of an entity or none.
    """

    since_us: int | None = None
    until_us: int | None = None
    rate: float = 1.0


@dataclass
class Span:
    """First and last answer of the rows read, UTC microseconds."""

    start_us: int
    end_us: int
    rows: int


def survey(folder: Path, selection: Selection) -> dict[int, Span]:
    """Versions that answered, when, and in how many rows."""
    found: dict[int, Span] = {}
    columns = ["model_version", "answered_at", "entity_id"]
    for frame in read_predictions(folder, since_us=selection.since_us, until_us=selection.until_us, columns=columns):
        rows = _draw(frame, selection.rate)
        for number in rows["model_version"].unique().to_pylist():
            at_us = rows.filter(pc.equal(rows["model_version"], number))["answered_at"].cast(pa.int64()).to_numpy()
            span = found.setdefault(number, Span(int(at_us.min()), int(at_us.max()), 0))
            span.start_us, span.end_us = min(span.start_us, int(at_us.min())), max(span.end_us, int(at_us.max()))
            span.rows += len(at_us)
    return found


@dataclass(frozen=True)
class Served:
    """Rows of one version and partition: ``rows`` without the columns ``WHOLE``, and ``whole`` of those that have them.

    Attributes:
        place: number in ``rows`` of each whole row.
    """

    rows: pa.Table
    whole: pa.Table
    place: Ints

    @classmethod
    def read(cls, folder: Path, version: int, partition: int, selection: Selection) -> Served:
        slim, whole, place, count = [], [], [], 0
        for frame in read_predictions(folder, since_us=selection.since_us, until_us=selection.until_us):
            mine = pc.and_(pc.equal(frame["model_version"], version), pc.equal(frame["log_partition"], partition))
            rows = _draw(frame.filter(mine), selection.rate)
            at = np.flatnonzero(pc.is_valid(rows["state"]).to_numpy())
            slim.append(rows.select(SLIM))
            whole.append(rows.select(WHOLE).take(pa.array(at)))
            place.append(at + count)
            count += rows.num_rows
        empty = PREDICTION.empty_table()
        rows, whole_rows = (pa.concat_tables([empty.select(names), *parts]) for names, parts in ((SLIM, slim), (WHOLE, whole)))
        return cls(rows, whole_rows, np.concatenate([np.empty(0, np.int64), *place]))

    def checkable(self, log: CompletePartition, partition: int, statuses: Counter[str]) -> Served:
        """Without the rows that cannot be made again, which are counted by the reason."""
        seen_to = self.seen_to
        erased = (_erased_to(self.rows["entity_id"], log.markers) >= seen_to) & (seen_to >= 0)
        expired = ~erased & (seen_to >= 0) & (seen_to < log.dropped_to(partition))
        ahead = ~erased & (seen_to >= log.end_offset)
        statuses[ERASED] += int(erased.sum())
        statuses[EXPIRED] += int(expired.sum())
        statuses[AHEAD] += int(ahead.sum())
        kept = ~(erased | expired | ahead)
        statuses[CHECKED] += int(kept.sum())
        statuses[STAND_IN] += int((kept & self.stands_in).sum())
        number = np.cumsum(kept) - 1
        chosen = kept[self.place]
        return Served(
            self.rows.filter(pa.array(kept)), self.whole.filter(pa.array(chosen)), number[self.place[chosen]]
        )  # fmt: skip

    @property
    def stands_in(self) -> NDArray[np.bool_]:
        """(n,) whether nothing of the store's was served."""
        reason = pc.fill_null(self.rows["degraded"], "")
        mask: NDArray[np.bool_] = pc.ends_with(reason, f"_{DEFAULTS}").to_numpy()
        return mask

    @property
    def seen_to(self) -> Ints:
        """(n,) offset that each row's shard had been read to; a value from a node-local copy may be ahead of the mark."""
        own, shard = (self.rows[name].to_numpy() for name in ("log_offset", "shard_offset"))
        seen: Ints = np.where(self.stands_in, -1, np.maximum(own, shard))
        return seen

    @property
    def profiles_as_of_us(self) -> Ints:
        """(n,) UTC microseconds, -1 where the row does not name it; 0, before any profile, where defaults were served."""
        as_of_us = pc.fill_null(self.rows["profiles_as_of"].cast(pa.int64()), -1).to_numpy()
        named: Ints = np.where(self.stands_in, 0, as_of_us)
        return named


def _erased_to(entity_ids: pa.ChunkedArray, markers: Markers) -> Ints:
    """(n,) offset to which each entity was erased, -1 where it was not."""
    last = markers.last.to_arrow()
    found = pc.index_in(entity_ids, value_set=last["entity_id"].combine_chunks().cast(pa.string()))
    erased: Ints = pc.fill_null(last["erased_to"].combine_chunks().take(found.combine_chunks()), -1).to_numpy()
    return erased


def _draw(rows: pa.Table, rate: float) -> pa.Table:
    if rate >= 1:
        return rows
    words = rows["entity_id"].combine_chunks().dictionary_encode()
    # Not the hash that places entities in partitions, which would draw whole partitions.
    drawn = np.array([crc32(b"audit" + word.encode()) < rate * 2**32 for word in words.dictionary.to_pylist()], bool)
    return rows.filter(pa.array(drawn[words.indices.to_numpy()]))
