"""Writing deletion markers: each into its entity's own partition, behind everything that it erases.

A marker's moment is the time of asking, or, where a clock ran ahead, that of the entity's latest event: what was ever seen
of it happened by then, so none of it can come back by an old file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

from features import delta
from features.declarations import Catalog
from features.erasure import ERASED, keep_living, read_markers
from features.errors import EventLogError, explain
from features.event_log.admission import admit
from features.event_log.compaction import compacted_to, has_live_history
from features.event_log.files import FileLog
from features.event_log.port import EventLog
from features.events import commit_events, log_heads, open_log
from features.layout import DAY_S, US_PER_S
from features.online.records import encode_entity_ids
from features.partitions import partition_of
from features.rows import TIME, event_schema
from features.workspace import Workspace

_READ: Final = ("event_id", "entity_id", "event_type", "event_time", "region", "log_offset")


@dataclass(frozen=True)
class _Due:
    """A marker that is to be written."""

    entity_id: str
    region: str
    moment_us: int


def mark_batch_log(
    workspace: Workspace, catalog: Catalog, entity: str, entity_ids: list[str], request_id: str, *, now_us: int
) -> int:
    """Append markers to a log that files are imported into; returns how many were due.

    They take the ingest_time of their partition's last event, so that files of after it can still be imported.

    Raises:
        TemporaryError: another process writes the log.
        EventLogError: its offsets are given by a live log.
    """
    path = workspace.events(entity)
    with delta.writing(path):
        if workspace.live_log(entity).exists() or has_live_history(workspace, catalog, entity):
            raise EventLogError(
                explain("events of this entity arrive by its live log", which=str(path), expected="a marker in the live log",
                        got="no live log named", next_step="say where it is: --from files, or --from kafka with --kafka")
            )  # fmt: skip
        due = _find_due(_rows_of(workspace, catalog, entity, entity_ids), catalog, entity_ids, request_id, now_us)
        if due:
            commit_events(workspace, catalog, entity, _stamp(workspace, catalog, entity, due, request_id), {})
    return len(due)


def mark_live_log(  # noqa: PLR0913 - three names say which log, three what to write
    log: EventLog, workspace: Workspace, catalog: Catalog, entity: str, entity_ids: list[str], request_id: str, *, now_us: int
) -> int:  # fmt: skip
    """Append markers to a live log; returns how many were due. On files they begin a segment.

    Raises:
        TemporaryError: another process appends to a partition.
    """
    written = 0
    placed = partition_of(entity_ids, log.partitions)
    for partition in np.unique(placed).tolist():
        ids = [entity_id for entity_id, place in zip(entity_ids, placed.tolist(), strict=True) if place == partition]
        if isinstance(log, FileLog):
            log.begin_segment(partition)  # takes the partition's lock: nobody appends between looking and marking
        rows = [_rows_of(workspace, catalog, entity, ids), _tail(log, workspace, catalog, entity, partition, ids)]
        due = _find_due(pl.concat(rows), catalog, ids, request_id, now_us)
        if due:
            log.append(partition, _rows(due, request_id), now_us=now_us)
        written += len(due)
    return written


def _rows_of(workspace: Workspace, catalog: Catalog, entity: str, entity_ids: list[str]) -> pl.DataFrame:
    """Everything that the batch log has of these entities, erased or not."""
    log = open_log(workspace, catalog, entity)
    if log is None:
        return pl.DataFrame(event_schema(()).empty_table()).select(_READ)
    frame = pl.scan_delta(log).filter(pl.col("entity_id").is_in(entity_ids)).select(_READ)
    return delta.collect(frame, workspace.events(entity))


def _tail(
    log: EventLog, workspace: Workspace, catalog: Catalog, entity: str, partition: int, entity_ids: list[str]
) -> pl.DataFrame:  # fmt: skip
    """The same of the live log's rows that the batch log does not have; rows that are refused are no events."""
    start, end = compacted_to(log, workspace, catalog, entity, partition), log.end_offset(partition)
    admitted = admit(log.read(partition, start, end - start) if start < end else (), catalog, entity, partition)
    rows = pa.concat_tables([admitted.events, admitted.markers]).select(_READ)
    return pl.DataFrame(rows).filter(pl.col("entity_id").is_in(entity_ids))


def _find_due(rows: pl.DataFrame, catalog: Catalog, entity_ids: list[str], request_id: str, now_us: int) -> list[_Due]:
    """Whom a marker is due for: anybody who has living events, or no marker yet; not twice by one request."""
    encode_entity_ids(entity_ids)
    marked = rows.filter(pl.col("event_type") == ERASED)
    markers = read_markers(marked.to_arrow(compat_level=pl.CompatLevel.oldest()))
    alive = set(keep_living(rows.lazy(), markers).collect()["entity_id"])
    settled = set(marked.filter(pl.col("event_id") == request_id)["entity_id"]) | (set(markers.entity_ids) - alive)
    last = rows.sort("log_offset").group_by("entity_id", maintain_order=True)
    seen = {name: (region, newest) for name, region, newest in
            last.agg(pl.col("region").last(), pl.col("event_time").max().dt.epoch("us")).iter_rows()}  # fmt: skip
    unseen = (catalog.regions[0], now_us)
    due = [(name, *seen.get(name, unseen)) for name in dict.fromkeys(entity_ids) if name not in settled]
    return [_Due(name, region, max(now_us, newest_us)) for name, region, newest_us in due]


def _rows(due: list[_Due], request_id: str) -> pa.Table:
    return pa.table({
        "event_id": pa.array([request_id] * len(due), pa.string()),
        "entity_id": pa.array([each.entity_id for each in due], pa.string()),
        "event_type": pa.array([ERASED] * len(due), pa.string()),
        "event_time": pa.array([each.moment_us for each in due], pa.int64()).cast(TIME),
        "region": pa.array([each.region for each in due], pa.string()),
    })  # fmt: skip


def _stamp(workspace: Workspace, catalog: Catalog, entity: str, due: list[_Due], request_id: str) -> pa.Table:
    """Markers as rows of the event schema, at the end of their partitions."""
    rows = _rows(due, request_id)
    schema = event_schema(catalog.attributes_of(entity))
    next_offsets, last_ingest_us = log_heads(workspace, catalog, entity)
    placed = partition_of(rows["entity_id"], catalog.log_partitions)
    offsets = np.array([next_offsets[place] + int((placed[:row] == place).sum()) for row, place in enumerate(placed)])
    ingest_us = np.maximum(last_ingest_us[placed], 0)
    columns = {name: rows[name] for name in rows.column_names} | {
        "ingest_time": pa.array(ingest_us).cast(TIME),
        "ingest_day": pa.array((ingest_us // (DAY_S * US_PER_S)).astype(np.int32)).cast(pa.date32()),
        "log_partition": pa.array(placed, pa.int32()),
        "log_offset": pa.array(offsets, pa.int64()),
    }
    return pa.table([columns.get(field.name, pa.nulls(rows.num_rows, field.type)) for field in schema], schema=schema)
