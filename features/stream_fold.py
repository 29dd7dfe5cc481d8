"""One log partition into one shard of an online store: read, admit, drop repeats, fold, commit; exactly once.

The store's own position is the only one that counts. A commit moves states and position together, by compare-and-set: a
writer that restarts goes on from there, one that was replaced is refused, and a store that lost its last writes is caught up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import pyarrow as pa

from features.codec import decode_states, encode_states
from features.declarations import Catalog, View
from features.errors import EventLogError, StoreError, explain
from features.event_log.admission import admit, count_reasons
from features.event_log.port import EventLog
from features.event_log.repeats import IDENTITY, Repeats, recall
from features.online.store import NO_OFFSET, CommitConflict, OnlineStore, Watermark
from features.tiles import FoldPlan, fold, plan_fold

RECALL_BATCH: Final = 200_000
"""Events whose ids are read at one time while a stream remembers what it had seen."""

History = Callable[[int, int, int], pa.Table]
"""(partition, since ingest_time in microseconds, before offset) -> columns ``IDENTITY`` of the batch log, by offset."""


@dataclass(frozen=True)
class Folded:
    """One commit: how far it got and what it met.

    Attributes:
        events: log events read; ``repeats`` of them were dropped, and the ``refused`` by reason.
        entity_ids: entities whose state changed.
        oldest_us, newest_us: ingest_time of the first and of the last event read, UTC microseconds.
    """

    partition: int
    next_offset: int
    oldest_us: int
    newest_us: int
    events: int
    repeats: int = 0
    refused: dict[str, int] = field(default_factory=dict)
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
        events = self._repeats.drop(admitted.events)
        entity_ids, states = fold_into(self._store, events, self._plan, self._partition)
        if not self._commit(dict(zip(entity_ids, states, strict=True)), after):
            return None
        return Folded(
            partition=self._partition,
            next_offset=after.log_offset + 1,
            oldest_us=batches[0]["ingest_time"].cast(pa.int64())[0].as_py(),
            newest_us=after.ingest_time_us,
            events=sum(batch.num_rows for batch in batches),
            repeats=admitted.events.num_rows - events.num_rows,
            refused=count_reasons(admitted.refused) if admitted.refused.num_rows else {},
            new_attributes=admitted.new_attributes,
            entity_ids=entity_ids,
        )

    def _commit(self, states: dict[str, bytes], after: Watermark) -> bool:
        """Whether the commit was made; if not, the shard has been found elsewhere and is followed there."""
        try:
            self._store.commit(self._partition, states, {}, after, expected_previous=self._mark.log_offset)
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
        self._repeats = recall(self._events_since, mark.ingest_time_us)

    def _events_since(self, since_us: int) -> pa.Table:
        """``IDENTITY`` of the admitted events that the shard has read, from the batch log where the live one starts later."""
        start, end = self._log.start_offset(self._partition), self._mark.log_offset + 1
        offset = max(self._log.offset_at(self._partition, since_us), start)
        parts = [self._history(self._partition, since_us, min(start, end))] if offset == start and start > 0 else []
        while offset < end:
            batches = self._log.read(self._partition, offset, min(RECALL_BATCH, end - offset))
            offset = int(batches[-1]["log_offset"][-1].as_py()) + 1
            events = admit(batches, self._catalog, self._view.entity, self._partition).events.select(list(IDENTITY))
            parts.append(events.filter(pa.array(events["log_offset"].to_numpy() < end)))
        empty = admit([], self._catalog, self._view.entity, self._partition).events.select(list(IDENTITY))
        return pa.concat_tables([empty, *parts])


def fold_into(store: OnlineStore, events: pa.Table, plan: FoldPlan, partition: int) -> tuple[list[str], list[bytes]]:
    """Entities of these events and their states with them folded in; nothing is written."""
    if not events.num_rows:
        return [], []
    encoded = events["entity_id"].combine_chunks().dictionary_encode()
    entity_ids, owner = encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    tiles = fold(decode_states(store.get_many(entity_ids, profiles=False).states), events, owner, plan)
    offsets = np.zeros(len(entity_ids), np.int64)
    offsets[owner] = events["log_offset"].to_numpy()  # by ascending offset: the last one stays
    return entity_ids, encode_states(tiles, np.full(len(entity_ids), partition), offsets).to_pylist()
