"""The live log's tail into the batch log, exactly once: same partitions, same offsets, same rule of admission.

Each Delta commit records for every partition the offset up to which it holds the live log, so that a run which ends anywhere
is completed by the next one. A refused row keeps its offset and goes to the dead letters: in the batch log its offset is
missing, and a batch replay folds what the stream folded.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from features import delta
from features.declarations import Catalog
from features.erasure import Markers, living, read_markers
from features.event_log.admission import REFUSED, admit
from features.event_log.files import Durability, FileLog
from features.event_log.port import EventLog
from features.event_log.repeats import IDENTITY
from features.events import commit_events, expired_to, find_markers, log_heads, open_log, read_events
from features.rows import DEAD_LETTER
from features.snapshots import newest_snapshot
from features.workspace import Workspace

COMPACTION_EVENTS: Final = 1_000_000
"""At most about this many events a commit."""


@dataclass(frozen=True)
class Compacted:
    """What one run moved: events and markers into the batch log, rows into the dead letters; erased events went nowhere."""

    events: int
    refused: int
    erased: int = 0


@dataclass(frozen=True)
class BatchHistory:
    """``features.stream_fold.History`` of a workspace's batch log; pickled to the workers."""

    root: Path
    catalog: Catalog
    entity: str

    def __call__(self, partition: int, since_us: int, before: int) -> pa.Table:
        workspace = Workspace(self.root)
        events = read_events(workspace, self.catalog, self.entity, partition=partition, columns=list(IDENTITY))
        if expired_to(workspace, self.catalog, self.entity, partition) >= 0:
            base = newest_snapshot(workspace, self.catalog, self.entity, partition)
            behind = events.filter(pc.greater(events["log_offset"], base.log_offset))
            events = pa.concat_tables([base.counted().cast(events.schema), behind])
        recent = pc.greater_equal(events["ingest_time"].cast(pa.int64()), since_us)
        return events.filter(pc.and_(recent, pc.less(events["log_offset"], before)))

    def markers(self, partition: int, before: int) -> tuple[Markers, int]:
        workspace = Workspace(self.root)
        complete_to = _position(open_log(workspace, self.catalog, self.entity), _name(self.entity, partition), 0)
        return find_markers(workspace, self.catalog, self.entity, partition=partition, before=before), complete_to


def open_live_log(workspace: Workspace, catalog: Catalog, entity: str, *, durability: Durability = "disk") -> FileLog:
    """The entity's log on files; a new one goes on where the batch log ends."""
    folder = workspace.live_log(entity)
    if folder.exists():
        return FileLog.open(folder, catalog.log_partitions, durability=durability)
    with delta.writing(workspace.events(entity)):
        next_offsets, last_ingest_us = log_heads(workspace, catalog, entity)
        floor_us = [max(int(last), 0) for last in last_ingest_us]
        return FileLog.create(folder, next_offsets.tolist(), base_ingest_us=floor_us, durability=durability)


def compact(log: EventLog, workspace: Workspace, catalog: Catalog, entity: str, *, now_us: int) -> Compacted:
    """Bring the batch log and the dead letters up to where the live log ends now.

    Args:
        now_us: recorded with dead letters, UTC microseconds.

    Raises:
        EventLogError: one of the logs is damaged.
        TemporaryError: another process writes one of the tables.
    """
    ends = [log.end_offset(partition) for partition in range(log.partitions)]
    events = refused = erased = 0
    with ExitStack() as locks:
        for folder in sorted((workspace.dead_letters, workspace.events(entity))):
            locks.enter_context(delta.writing(folder))
        for partition, end in enumerate(ends):
            done = None
            while done is None or done < end:
                some, done = _compact_some(log, workspace, catalog, entity, partition, now_us)
                events, refused, erased = events + some.events, refused + some.refused, erased + some.erased
    return Compacted(events, refused, erased)


def compacted_to(log: EventLog, workspace: Workspace, catalog: Catalog, entity: str, partition: int) -> int:
    """The offset up to which the batch log holds a partition of the live one."""
    return _position(open_log(workspace, catalog, entity), _name(entity, partition), log.start_offset(partition))


def has_live_history(workspace: Workspace, catalog: Catalog, entity: str) -> bool:
    """Whether the batch log's offsets were given by a live log, wherever that is."""
    log = open_log(workspace, catalog, entity)
    names = (_name(entity, partition) for partition in range(catalog.log_partitions))
    return log is not None and any(log.transaction_version(name) is not None for name in names)


def _compact_some(
    log: EventLog, workspace: Workspace, catalog: Catalog, entity: str, partition: int, now_us: int
) -> tuple[Compacted, int]:  # fmt: skip
    """What one commit to each table moved, dead letters first, and the offset reached."""
    name = _name(entity, partition)
    start = log.start_offset(partition)
    events_from = _position(open_log(workspace, catalog, entity), name, start)
    letters = delta.open_table(workspace.dead_letters)
    letters_from = _position(letters, name, start)
    batches = log.read(partition, min(events_from, letters_from), COMPACTION_EVENTS)
    if not batches:
        return Compacted(0, 0), events_from
    reached = int(batches[-1]["log_offset"][-1].as_py()) + 1
    admitted = admit(batches, catalog, entity, partition)
    refused = admitted.refused.filter(pc.greater_equal(admitted.refused["log_offset"], letters_from))
    if refused.num_rows:
        letters = letters or delta.create_table(workspace.dead_letters, DEAD_LETTER, [], {})
        delta.append(letters, _dead_letters(refused, name, entity, now_us), {name: reached})
    markers = find_markers(workspace, catalog, entity, partition=partition).joined(read_markers(admitted.markers))
    alive = pa.concat_tables([living(admitted.events, markers), admitted.markers])
    events = alive.filter(pc.greater_equal(alive["log_offset"], events_from)).sort_by("log_offset")
    commit_events(workspace, catalog, entity, events, {name: reached})
    erased = admitted.events.num_rows + admitted.markers.num_rows - alive.num_rows
    return Compacted(events.num_rows, refused.num_rows, erased), reached


def _name(entity: str, partition: int) -> str:
    """Under which a table records how much of a partition it holds."""
    return f"stream:{entity}/{partition}"


def _position(table: DeltaTable | None, name: str, start: int) -> int:
    recorded = table.transaction_version(name) if table else None
    return start if recorded is None else int(recorded)


def _dead_letters(refused: pa.Table, source: str, entity: str, now_us: int) -> pa.Table:
    frame = pl.DataFrame({name: pl.Series(name, refused[name]) for name in REFUSED.names if name != "ingest_time"})
    return frame.select(
        pl.lit(source).alias("source"),
        pl.col("log_offset").alias("row"),
        pl.lit(entity).alias("entity"),
        "reason",
        "content",
        pl.lit(now_us).cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("recorded_at"),
    ).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(DEAD_LETTER)  # fmt: skip
