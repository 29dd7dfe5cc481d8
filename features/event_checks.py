"""What a batch must fulfil to be appended to an event log."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from features.declarations import Catalog
from features.errors import EventLogError, explain
from features.layout import MAX_FUTURE_S, US_PER_S
from features.rows import event_schema
from features.workspace import Workspace

STAMPED = ("ingest_day", "log_partition", "log_offset")
"""Columns that the log itself fills in."""


def micros_of(table: pa.Table, column: str) -> np.ndarray:
    """A column of times as UTC microseconds."""
    values: np.ndarray = table[column].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    return values


def check_not_live(workspace: Workspace, entity: str) -> None:
    """Offsets have one giver: where a live log has begun, events go through it and reach this table by compaction."""
    live = workspace.live_log(entity)
    if live.exists():
        raise EventLogError(
            explain("events of this entity arrive by its live log", which=str(live), expected="an append to the live log",
                    got="an append to the batch log", next_step="send them with `plumb stream append`")
        )  # fmt: skip


def check_batch(catalog: Catalog, entity: str, table: pa.Table) -> None:
    """Raise ``EventLogError`` at the first rule that a batch breaks."""
    schema = event_schema(catalog.attributes_of(entity))
    required = [field.name for field in schema if not field.nullable and field.name not in STAMPED]
    missing = ", ".join(sorted(set(required) - set(table.column_names)))
    _require(not missing, entity, f"columns {', '.join(required)}", f"no {missing}")
    extra = set(table.column_names) - set(schema.names) | set(STAMPED) & set(table.column_names)
    _require(not extra, entity, "columns that the catalog declares", ", ".join(sorted(extra)))
    for name in required:
        _require(table[name].null_count == 0, entity, f"a value of {name} in every row", f"{table[name].null_count} nulls")
    declared = {kind.name for kind in catalog.event_types if kind.entity == entity}
    _require(not (unknown := set(table["event_type"].unique().to_pylist()) - declared), entity,
             f"event types {', '.join(sorted(declared))}", ", ".join(sorted(unknown)))  # fmt: skip
    _require(not (unknown := set(table["region"].unique().to_pylist()) - set(catalog.regions)), entity,
             f"regions {', '.join(catalog.regions)}", ", ".join(sorted(unknown)))  # fmt: skip
    event_us = micros_of(table, "event_time")
    _require(bool((event_us >= 0).all()), entity, "event_time since 1970", "an earlier one")
    ahead = int((event_us - micros_of(table, "ingest_time") > MAX_FUTURE_S * US_PER_S).sum())
    latest = f"event_time at most {MAX_FUTURE_S} s after ingest_time"
    _require(ahead == 0, entity, latest, f"{ahead} events dated further ahead")


def _require(holds: bool, entity: str, expected: str, got: str) -> None:
    if not holds:
        raise EventLogError(explain("events cannot be appended", which=f"log of {entity!r}", expected=expected, got=got,
                                    next_step="correct the batch, or send its bad rows to the dead letters"))  # fmt: skip


def older_than_the_log(workspace: Workspace, entity: str, rows: int, oldest_us: int, last_us: int) -> EventLogError:
    """The one-line error for events behind their partition's last ingest_time."""
    times = [str(np.datetime64(value, "us")) + "Z" for value in (last_us, oldest_us)]
    return EventLogError(
        explain("events are older than the log", which=str(workspace.events(entity)),
                expected=f"ingest_time from {times[0]} on",
                got=f"{rows} events behind their partition, the oldest of {times[1]}",
                next_step="import files in time order, or pass --late to have them known from the log's last ingest time on")
    )  # fmt: skip
