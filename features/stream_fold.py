"""One log partition into one shard of an online store: read, admit, drop repeats, fold, commit; exactly once.

The store's own position is the only one that counts. A commit moves states and position together, by compare-and-set: a
writer that restarts goes on from there, one that was replaced is refused, and a store that lost its last writes is caught up.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.codec import decode_states, encode_states
from features.declarations import Catalog, View
from features.erasure import ERASED, NONE, REASON, Markers, count_refused, living, read_markers, separate_lives
from features.errors import EventLogError, StoreError, explain
from features.event_log.admission import admit, count_reasons
from features.event_log.port import EventLog
from features.event_log.repeats import IDENTITY, Repeats, recall
from features.online.store import NO_OFFSET, CommitConflict, OnlineStore, Watermark
from features.tiles import FoldPlan, fold, plan_fold

RECALL_BATCH: Final = 200_000
"""Events whose ids are read at one time while a stream remembers what it had seen."""


class History(Protocol):
    """What the batch log knows of offsets before those that the live one still holds."""

    def __call__(self, partition: int, since_us: int, before: int) -> pa.Table:
        """Columns ``IDENTITY`` of a partition's living events from an ingest_time on, UTC microseconds, by offset."""

    def markers(self, partition: int, before: int) -> tuple[Markers, int]:
        """The partition's deletion markers before an offset, and up to which offset these are all there are."""


@dataclass(frozen=True)
class Folded:
    """One commit: how far it got and what it met.

    Attributes:
        events: log events read; ``repeats`` of them were dropped, and the ``refused`` by reason.
        erased: entities that a deletion marker erased.
        entity_ids: entities whose state changed, the erased ones among them.
        oldest_us, newest_us: ingest_time of the first and of the last event read, UTC microseconds.
    """

    partition: int
    next_offset: int
    oldest_us: int
    newest_us: int
    events: int
    repeats: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    erased: int = 0
    new_attributes: frozenset[str] = frozenset()
    entity_ids: list[str] = field(default_factory=list)


class ShardFold:
    """The writer of one shard; makes itself the only one when it is made."""

    def __init__(
        self, log: EventLog, store: OnlineStore, catalog: Catalog, view: View, partition: int, history: History
    ) -> None:  # fmt: skip
        self._log, self._store = log, store
        self._catalog, self._view, self._partition = catalog, view, partition
        self._history = history
        self._plan = plan_fold(catalog.signals_of(view))
        self._mark = Watermark()
        self._repeats = Repeats()
        self._markers = NONE
        self._claim()

    @property
    def position(self) -> Watermark:
        """Where the shard stands as far as this writer knows."""
        return self._mark

    def fold_next(self, limit: int, now_us: int) -> Folded | None:
        """Read on from the shard's position, fold and commit; None where nothing has come since.

        Args:
            limit: about how many events to fold at once.
            now_us: the time of asking, UTC microseconds: a shard that has read all of its log is as of now.

        Raises:
            CommitConflict: another writer has taken the shard over.
        """
        following = self._mark.log_offset + 1
        end = self._log.end_offset(self._partition)
        if following >= end:
            return None
        batches = self._log.read(self._partition, following, limit)
        if not batches:
            return None
        last = batches[-1].slice(batches[-1].num_rows - 1)
        next_offset, newest_us = last["log_offset"][0].as_py() + 1, last["ingest_time"].cast(pa.int64())[0].as_py()
        as_of_us = now_us if next_offset >= end else newest_us
        return self._fold(batches, replace(self._mark, log_offset=next_offset - 1, ingest_time_us=newest_us,
                                           as_of_us=max(as_of_us, self._mark.as_of_us)))  # fmt: skip

    def advance(self, now_us: int) -> bool:
        """Record that the shard has everything known at ``now_us``; False where the log holds more than it has read."""
        if self._mark.log_offset + 1 < self._log.end_offset(self._partition):
            return False
        return self._commit({}, replace(self._mark, as_of_us=max(now_us, self._mark.as_of_us)))

    def _fold(self, batches: list[pa.Table], after: Watermark) -> Folded | None:
        admitted = admit(batches, self._catalog, self._view.entity, self._partition)
        found = read_markers(admitted.markers)
        erased = frozenset(found.entity_ids)
        self._markers = self._markers.joined(found)
        alive = living(admitted.events, self._markers)
        events = drop_repeats(self._repeats, alive, self._markers)
        entity_ids, states = fold_into(self._store, events, self._plan, self._partition, erased)
        if not self._commit(dict(zip(entity_ids, states, strict=True)), after, erased):
            return None
        refused = count_reasons(admitted.refused) if admitted.refused.num_rows else {}
        if alive.num_rows < admitted.events.num_rows:
            refused[REASON] = count_refused(admitted.events, self._markers)
        return Folded(
            partition=self._partition,
            next_offset=after.log_offset + 1,
            oldest_us=batches[0]["ingest_time"].cast(pa.int64())[0].as_py(),
            newest_us=after.ingest_time_us,
            events=sum(batch.num_rows for batch in batches),
            repeats=alive.num_rows - events.num_rows,
            refused={reason: count for reason, count in refused.items() if count},
            erased=len(erased),
            new_attributes=admitted.new_attributes,
            entity_ids=entity_ids,
        )

    def _commit(self, states: dict[str, bytes], after: Watermark, erased: Set[str] = frozenset()) -> bool:
        """Whether the commit was made; if not, the shard has been found elsewhere and is followed there."""
        try:
            no_profiles = dict.fromkeys(erased, b"")
            self._store.commit(self._partition, states, no_profiles, after, expected_previous=self._mark.log_offset)
        except CommitConflict:
            if self._store.watermark(self._partition).epoch > self._mark.epoch:
                raise
            # Nobody else has written: the store lost what it had acknowledged. Go on from what it still has.
            self._claim()
            return False
        self._mark = after
        return True

    def _claim(self) -> None:
        """Take the shard over under an epoch higher than any that this writer has had, and remember what it has read."""
        mark = self._store.claim(self._partition)
        while mark.epoch <= self._mark.epoch:
            mark = self._store.claim(self._partition)
        end = self._log.end_offset(self._partition)
        if mark.log_offset >= end:
            raise EventLogError(
                explain("online store is ahead of the event log", which=f"shard {self._partition} of {self._store.view_key}",
                        expected=f"a position before offset {end}", got=str(mark.log_offset),
                        next_step="restore the log, or move the store's folder away and materialize again")
            )  # fmt: skip
        if mark.filling_to != NO_OFFSET:
            raise StoreError(
                explain("shard is half filled", which=f"shard {self._partition} of {self._store.view_key}",
                        expected="a finished fill", got=f"one under way to offset {mark.filling_to}",
                        next_step="run `plumb features materialize` again")
            )  # fmt: skip
        self._mark = mark
        self._markers = self._recall_markers()
        self._repeats = recall(self._events_since, mark.ingest_time_us)

    def _recall_markers(self) -> Markers:
        """The deletion markers up to the shard's position, from the batch log and, behind that, from the live one."""
        end = self._mark.log_offset + 1
        markers, complete_to = self._history.markers(self._partition, end)
        for batch in self._read_between(max(complete_to, self._log.start_offset(self._partition)), end):
            if "event_type" in batch.column_names and (marked := batch.filter(pc.equal(batch["event_type"], ERASED))).num_rows:
                rows = admit([marked], self._catalog, self._view.entity, self._partition).markers
                markers = markers.joined(read_markers(rows.filter(pc.less(rows["log_offset"], end))))
        return markers

    def _read_between(self, offset: int, end: int) -> Iterator[pa.Table]:
        """The log's rows from one offset to before another; the last append is not torn apart."""
        while offset < end:
            batches = self._log.read(self._partition, offset, min(RECALL_BATCH, end - offset))
            offset = int(batches[-1]["log_offset"][-1].as_py()) + 1
            yield from batches

    def _events_since(self, since_us: int) -> pa.Table:
        """``IDENTITY`` of the living events that the shard has read, from the batch log where the live one starts later."""
        start, end = self._log.start_offset(self._partition), self._mark.log_offset + 1
        offset = max(self._log.offset_at(self._partition, since_us), start)
        parts = [self._history(self._partition, since_us, min(start, end))] if offset == start and start > 0 else []
        while offset < end:
            batches = self._log.read(self._partition, offset, min(RECALL_BATCH, end - offset))
            offset = int(batches[-1]["log_offset"][-1].as_py()) + 1
            events = living(admit(batches, self._catalog, self._view.entity, self._partition).events, self._markers)
            parts.append(events.filter(pa.array(events["log_offset"].to_numpy() < end)).select(list(IDENTITY)))
        empty = admit([], self._catalog, self._view.entity, self._partition).events.select(list(IDENTITY))
        return separate_lives(pa.concat_tables([empty, *parts]), self._markers)


def drop_repeats(repeats: Repeats, events: pa.Table, markers: Markers) -> pa.Table:
    """The living events that are no repeats of living events; they are remembered."""
    if not markers:
        return repeats.drop(events)
    kept = repeats.drop(separate_lives(events, markers))
    if kept.num_rows == events.num_rows:
        return events
    return events.filter(pc.is_in(events["log_offset"], value_set=kept["log_offset"].combine_chunks()))


def fold_into(
    store: OnlineStore, events: pa.Table, plan: FoldPlan, partition: int, erased: Set[str] = frozenset()
) -> tuple[list[str], list[bytes]]:
    """Entities of these events and their states with them folded in; nothing is written.

    Args:
        erased: entities whose state begins anew; those without an event have the empty one.
    """
    if not events.num_rows:
        return list(erased), [b""] * len(erased)
    encoded = events["entity_id"].combine_chunks().dictionary_encode()
    entity_ids, owner = encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    before = store.get_many(entity_ids, profiles=False).states
    if erased:
        before = [b"" if name in erased else state for name, state in zip(entity_ids, before, strict=True)]
    tiles = fold(decode_states(before), events, owner, plan)
    offsets = np.zeros(len(entity_ids), np.int64)
    offsets[owner] = events["log_offset"].to_numpy()  # by ascending offset: the last one stays
    states = encode_states(tiles, np.full(len(entity_ids), partition), offsets).to_pylist()
    gone = sorted(set(erased) - set(entity_ids)) if erased else []
    return [*entity_ids, *gone], [*states, *(b"" for _ in gone)]
