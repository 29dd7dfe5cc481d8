"""What a workspace's logs and dead letters hold, in numbers, read without any catalog."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from features import delta
from features.events import HASH_KEY
from features.workspace import Workspace


@dataclass(frozen=True)
class LogSummary:
    """One entity type's log; times are ISO 8601 in UTC, empty where the log is."""

    entity: str
    events: int
    event_types: dict[str, int]
    first_event_time: str
    last_event_time: str
    last_ingest_time: str
    partitions: dict[int, int]
    partition_hash: str
    files: int
    dead_letters: dict[str, int]


def summarize_logs(workspace: Workspace) -> list[LogSummary]:
    """Every log of the workspace, by entity name; an entity with dead letters alone has a summary too.

    Raises:
        EventLogError: a table is corrupted.
    """
    folder = workspace.events("any").parent
    logs = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    refused = _count_dead_letters(workspace)
    return [_summarize(workspace, entity, refused.get(entity, {})) for entity in sorted(logs | set(refused))]


def _summarize(workspace: Workspace, entity: str, dead_letters: dict[str, int]) -> LogSummary:
    path = workspace.events(entity)
    log = delta.open_table(path)
    if log is None:
        return LogSummary(entity, 0, {}, "", "", "", {}, "", 0, dead_letters)
    names = ["event_type", "event_time", "ingest_time", "log_partition"]
    frame = delta.collect(pl.scan_delta(log).select(names), path)
    spans = frame.select(
        pl.col("event_time").min().alias("first"), pl.col("event_time").max().alias("last"), pl.col("ingest_time").max()
    ).select(pl.all().dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").fill_null(""))
    first, last, ingested = spans.row(0)
    return LogSummary(
        entity=entity,
        events=frame.height,
        event_types=dict(frame["event_type"].value_counts().sort("event_type").iter_rows()),
        first_event_time=first,
        last_event_time=last,
        last_ingest_time=ingested,
        partitions=dict(frame["log_partition"].value_counts().sort("log_partition").iter_rows()),
        partition_hash=str(log.metadata().configuration.get(HASH_KEY)),
        files=len(log.file_uris()),
        dead_letters=dead_letters,
    )


def _count_dead_letters(workspace: Workspace) -> dict[str, dict[str, int]]:
    table = delta.open_table(workspace.dead_letters)
    if table is None:
        return {}
    grouped = pl.scan_delta(table).group_by("entity", "reason").agg(pl.len()).sort("entity", "reason")
    counts: dict[str, dict[str, int]] = {}
    for entity, reason, rows in delta.collect(grouped, workspace.dead_letters).iter_rows():
        counts.setdefault(entity, {})[reason] = rows
    return counts
