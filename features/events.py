"""The event log: one Delta table for each entity type, by region and ingest day, with partitions and offsets of its own.

Within a log partition ``log_offset`` is contiguous from 0 and ``ingest_time`` never decreases, so that an offset names
exactly which events a reader had seen. The log is at-least-once: a repeated event_id is kept here and dropped by
``deduplicate`` wherever events are folded or counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
from deltalake import DeltaTable

from features import delta
from features.declarations import Catalog
from features.erasure import ERASED, MARKER_COLUMNS, NONE, Markers, is_marker, keep_living, read_markers
from features.errors import EventLogError, explain
from features.event_checks import check_batch, check_not_live, micros_of, older_than_the_log
from features.layout import DAY_S, US_PER_S
from features.partitions import PARTITION_HASH, partition_of
from features.rows import event_schema
from features.workspace import Workspace

DEDUPLICATION_HORIZON_S: Final = 7 * DAY_S
"""How long after the copy kept a repeated event_id is still taken for the same event, seconds of ingest time."""

PARTITIONS_KEY: Final = "plumbline.log_partitions"
HASH_KEY: Final = "plumbline.partition_hash"
EXPIRED_KEY: Final = "plumbline.expired/{partition}"
EXPIRED_US_KEY: Final = "plumbline.expired_us/{partition}"
"""Recorded when old events are dropped: offset of a partition's last dropped one, and its ingest_time in microseconds."""
PARTIAL: Final = {b"plumbline.partial": b"1"}
"""Schema metadata of events read from a log that has dropped old ones: alone they are no history."""
MARKED_KEY: Final = "plumbline.marked"
"""Recorded with the first deletion marker: a log without it need not be searched for any."""


def append_events(
    workspace: Workspace, catalog: Catalog, entity: str, table: pa.Table, *, source: str | Mapping[str, int], late: bool = False
) -> int:
    """Append events to an entity's log in one atomic commit.

    Args:
        table: columns of ``event_schema`` without those in ``STAMPED``, in source order; attributes may be absent.
        source: a name under which this batch is recorded; a batch whose name is recorded already adds nothing.
            A mapping of names to versions records several at once.
        late: stamp events that are older than their partition's last ingest_time at that time instead of refusing.

    Returns:
        Number of events appended; 0 if the source was already there.

    Raises:
        EventLogError: the batch breaks a rule of the log; nothing is written then.
        TemporaryError: another writer holds the log.
    """
    sources = {source: 0} if isinstance(source, str) else source
    path = workspace.events(entity)
    with delta.writing(path):
        log = open_log(workspace, catalog, entity)
        if delta.have_applied(log, sources, path):
            return 0
        stamped = stamp_events(workspace, catalog, entity, table, late=late)
        commit_events(workspace, catalog, entity, stamped, sources)
    return int(stamped.num_rows)


def commit_events(workspace: Workspace, catalog: Catalog, entity: str, stamped: pa.Table, sources: Mapping[str, int]) -> None:
    """Write rows made by ``stamp_events``; the caller holds the log's writer lock since before stamping."""
    log = open_log(workspace, catalog, entity)
    if log is None:
        configuration = {PARTITIONS_KEY: str(catalog.log_partitions), HASH_KEY: PARTITION_HASH}
        schema = event_schema(catalog.attributes_of(entity))
        log = delta.create_table(workspace.events(entity), schema, ["region", "ingest_day"], configuration)
    marked = {MARKED_KEY: 0} if is_marker(stamped["event_type"]).any() else {}
    delta.append(log, stamped, {**sources, **marked})


def open_log(workspace: Workspace, catalog: Catalog, entity: str) -> DeltaTable | None:
    """The entity's log, or None if nothing was ever appended.

    Raises:
        EventLogError: the table is corrupted, was written with another hash or number of partitions, or a column's
            type differs from the catalog's.
    """
    path = workspace.events(entity)
    log = delta.open_table(path)
    if log is None:
        return None
    configuration = log.metadata().configuration
    found = f"{configuration.get(HASH_KEY)} over {configuration.get(PARTITIONS_KEY)} partitions"
    expected = f"{PARTITION_HASH} over {catalog.log_partitions} partitions"
    if found != expected:
        raise EventLogError(
            explain("event log is partitioned differently", which=str(path), expected=expected, got=found,
                    next_step="use the catalog that the log was made with, or import into another workspace")
        )  # fmt: skip
    delta.check_columns(log, event_schema(catalog.attributes_of(entity)), path)
    return log


def stamp_events(workspace: Workspace, catalog: Catalog, entity: str, table: pa.Table, *, late: bool = False) -> pa.Table:
    """Check a batch and give it its place in the log: rows of ``event_schema``, by ingest_time, then source order.

    Raises:
        EventLogError: an undeclared event type or region, a null, an event dated too far ahead, or one older than what
            its partition already holds (unless ``late``).
    """
    schema = event_schema(catalog.attributes_of(entity))
    check_not_live(workspace, entity)
    check_batch(catalog, entity, table)
    ingest_us = micros_of(table, "ingest_time")
    partitions = partition_of(table["entity_id"], catalog.log_partitions)
    next_offsets, last_ingest_us = log_heads(workspace, catalog, entity)
    floor_us = last_ingest_us[partitions]
    if late:
        ingest_us = np.maximum(ingest_us, floor_us)
    elif (behind := ingest_us < floor_us).any():
        raise older_than_the_log(workspace, entity, int(behind.sum()), int(ingest_us.min()), int(last_ingest_us.max()))
    order = np.argsort(ingest_us, kind="stable")
    ingest_us, partitions = ingest_us[order], partitions[order]
    offsets = np.empty(len(order), np.int64)
    for partition in range(catalog.log_partitions):
        members = partitions == partition
        offsets[members] = next_offsets[partition] + np.arange(int(members.sum()))
    ordered = table.take(pa.array(order))
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        "ingest_time": pa.array(ingest_us, pa.timestamp("us", tz="UTC")),
        "ingest_day": pa.array((ingest_us // (DAY_S * US_PER_S)).astype(np.int32)).cast(pa.date32()),
        "log_partition": pa.array(partitions, pa.int32()),
        "log_offset": pa.array(offsets, pa.int64()),
    }
    for field in schema:
        if field.name not in columns:
            present = field.name in ordered.column_names
            columns[field.name] = ordered[field.name].cast(field.type) if present else pa.nulls(len(order), field.type)
    return pa.table([columns[field.name] for field in schema], schema=schema)


def read_events(  # noqa: PLR0913 - three names say which log, four narrow the read
    workspace: Workspace, catalog: Catalog, entity: str, *, known_by_us: int | None = None, lag_s: int = 0,
    partition: int | None = None, columns: list[str] | None = None,
) -> pa.Table:  # fmt: skip
    """Living events of one entity type as known at a time, repeats included.

    What was erased since is not there either, whatever the time asked for (``features.erasure``).

    Args:
        known_by_us: keep events with ingest_time + lag_s <= known_by_us; None keeps all.
        lag_s: the reader's declared lag, seconds.
        partition: one log partition alone.
        columns: which columns of ``event_schema``, in this order; None reads all.

    Returns:
        Rows of ``event_schema`` by (log_partition, log_offset); empty if nothing was ever appended.

    Raises:
        EventLogError: the log is corrupted or was written under another contract.
    """
    schema = event_schema(catalog.attributes_of(entity))
    wanted = pa.schema([schema.field(name) for name in columns]) if columns is not None else schema
    log = open_log(workspace, catalog, entity)
    if log is None:
        return wanted.empty_table()
    stored = {field.name for field in pa.schema(log.schema())}
    frame = pl.scan_delta(log)
    if known_by_us is not None:
        latest = _at(known_by_us - lag_s * US_PER_S)
        frame = frame.filter((pl.col("ingest_day") <= latest.date()) & (pl.col("ingest_time") <= latest))
    if partition is not None:
        frame = frame.filter(pl.col("log_partition") == partition)
    place = ["log_partition", "log_offset"]
    if markers := find_markers(workspace, catalog, entity, partition=partition):
        frame = keep_living(frame, markers)
    names = [*dict.fromkeys([*(name for name in wanted.names if name in stored), *place])]
    rows = delta.collect_arrow(frame.select(names).sort(place), workspace.events(entity))
    found = [
        rows[field.name].cast(field.type) if field.name in stored else pa.nulls(rows.num_rows, field.type) for field in wanted
    ]
    table = pa.table(found, schema=wanted)
    expired = any(
        log.transaction_version(EXPIRED_KEY.format(partition=each)) is not None for each in range(catalog.log_partitions)
    )
    return table.replace_schema_metadata(PARTIAL) if expired else table


def find_markers(
    workspace: Workspace, catalog: Catalog, entity: str, *, partition: int | None = None, before: int | None = None
) -> Markers:
    """Deletion markers of the batch log, of one partition or all, before an offset or all."""
    log = open_log(workspace, catalog, entity)
    if log is None or log.transaction_version(MARKED_KEY) is None:
        return NONE
    frame = pl.scan_delta(log).filter(pl.col("event_type") == ERASED)
    if partition is not None:
        frame = frame.filter(pl.col("log_partition") == partition)
    if before is not None:
        frame = frame.filter(pl.col("log_offset") < before)
    return read_markers(delta.collect_arrow(frame.select(MARKER_COLUMNS), workspace.events(entity)))


def deduplicate(table: pa.Table, *, horizon_s: int = DEDUPLICATION_HORIZON_S) -> pa.Table:
    """Drop later copies of the same event; rows keep their order.

    The copy with the lowest offset is kept; a later copy is dropped if its ingest_time is at most ``horizon_s`` after
    that of the copy kept. A copy beyond the horizon is kept and counted from in its turn. Copies share entity_id and
    event_id, so the result does not depend on the number of partitions.

    Args:
        table: needs entity_id, event_id, ingest_time, log_offset; any row order.
    """
    keys = pl.DataFrame({name: pl.Series(name, table[name]) for name in ("entity_id", "event_id")})
    hashes = keys.hash_rows(seed=0)
    if hashes.n_unique() == table.num_rows:
        return table
    frame = keys.with_row_index("row").with_columns(
        log_offset=pl.Series(table["log_offset"].to_numpy()), ingest_us=pl.Series(micros_of(table, "ingest_time"))
    )
    left = frame.filter(pl.struct("entity_id", "event_id").is_duplicated()).sort("log_offset")
    dropped: list[pl.Series] = []
    while left.height:
        # One round settles one kept copy of every event_id left; copies beyond its horizon wait for the next round.
        kept = pl.col("row").first().over("entity_id", "event_id")
        kept_us = pl.col("ingest_us").first().over("entity_id", "event_id")
        later = left.with_columns(kept=kept, kept_us=kept_us).filter(pl.col("row") != pl.col("kept"))
        repeat = pl.col("ingest_us") - pl.col("kept_us") <= horizon_s * US_PER_S
        dropped.append(later.filter(repeat)["row"])
        left = later.filter(~repeat).drop("kept", "kept_us")
    keep = np.ones(table.num_rows, bool)
    if dropped:
        keep[pl.concat(dropped).to_numpy()] = False
    return table if keep.all() else table.filter(pa.array(keep))


def count_repeats(workspace: Workspace, catalog: Catalog, entity: str, stamped: pa.Table) -> int:
    """How many of the events about to be committed ``deduplicate`` will drop, given the log's last horizon."""
    names = ["entity_id", "event_id", "ingest_time", "log_offset"]
    if stamped.num_rows == 0:
        return 0
    batch = stamped.select(names)
    log = open_log(workspace, catalog, entity)
    if log is None:
        return int(batch.num_rows - deduplicate(batch).num_rows)
    since = stamped["ingest_time"].combine_chunks().cast(pa.int64()).to_numpy().min() - DEDUPLICATION_HORIZON_S * US_PER_S
    frame = pl.scan_delta(log).filter((pl.col("ingest_day") >= _at(since).date()) & (pl.col("ingest_time") >= _at(since)))
    tail = delta.collect_arrow(frame.select(names), workspace.events(entity)).cast(batch.schema)
    kept = deduplicate(pa.concat_tables([tail, batch])).num_rows - deduplicate(tail).num_rows
    return int(batch.num_rows - kept)


def log_heads(workspace: Workspace, catalog: Catalog, entity: str) -> tuple[np.ndarray, np.ndarray]:
    """(next offset, last ingest_time in microseconds) of each partition; 0 and the least int64 where it is empty."""
    next_offsets = np.zeros(catalog.log_partitions, np.int64)
    last_ingest_us = np.full(catalog.log_partitions, np.iinfo(np.int64).min)
    log = open_log(workspace, catalog, entity)
    if log is not None:
        newest = (pl.col("log_offset").max(), pl.col("ingest_time").max().dt.epoch("us"))
        grouped = pl.scan_delta(log).group_by("log_partition").agg(newest)
        for partition, offset, ingest_us in delta.collect(grouped, workspace.events(entity)).iter_rows():
            next_offsets[partition], last_ingest_us[partition] = offset + 1, ingest_us
        for partition in range(catalog.log_partitions):
            dropped_to = log.transaction_version(EXPIRED_KEY.format(partition=partition))
            if dropped_to is not None and dropped_to >= next_offsets[partition]:
                next_offsets[partition] = dropped_to + 1
                last_ingest_us[partition] = log.transaction_version(EXPIRED_US_KEY.format(partition=partition))
    return next_offsets, last_ingest_us


def expired_to(workspace: Workspace, catalog: Catalog, entity: str, partition: int) -> int:
    """Offset up to which events of a partition may have been dropped for their age; -1 where none have."""
    log = open_log(workspace, catalog, entity)
    dropped_to = log.transaction_version(EXPIRED_KEY.format(partition=partition)) if log is not None else None
    return -1 if dropped_to is None else int(dropped_to)


def log_position(
    workspace: Workspace, catalog: Catalog, entity: str, partition: int, *, known_by_us: int, lag_s: int
) -> tuple[int, int]:
    """(offset, ingest_time in microseconds) of a partition's last row known by a time, erased or not; (-1, 0) if none."""
    log = open_log(workspace, catalog, entity)
    if log is None:
        return -1, 0
    latest = _at(known_by_us - lag_s * US_PER_S)
    known = (pl.col("ingest_day") <= latest.date()) & (pl.col("ingest_time") <= latest)
    rows = pl.scan_delta(log).filter((pl.col("log_partition") == partition) & known)
    newest = rows.select(pl.col("log_offset").max(), pl.col("ingest_time").max().dt.epoch("us"))
    offset, ingest_us = delta.collect(newest, workspace.events(entity)).row(0)
    return (-1, 0) if offset is None else (offset, ingest_us)


def _at(time_us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(time_us))
