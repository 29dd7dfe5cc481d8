"""Dropping raw events of before a region's retention: first what they made of states is kept, then they go.

A snapshot of each of the entity's views is written at the position of the last event that goes; then the events leave the
table in one commit that records the position, and their files leave the disk. Ended anywhere, it is completed by the next
run: a snapshot beside events that are still there changes no answer. Whole days go, once their last second is old enough.

Logged predictions hold what users did and say nothing of their region: they go, a file at a time, with the shortest retention.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import polars as pl

from features import delta, predictions
from features.declarations import Catalog
from features.erasure import ERASED
from features.event_log.compaction import compacted_to, open_live_log
from features.events import EXPIRED_KEY, EXPIRED_US_KEY, expired_to, open_log, read_events
from features.snapshots import Position, extend, read_snapshot, write_snapshot
from features.workspace import Workspace


@dataclass(frozen=True)
class Expired:
    """What left one entity type's log: events, and files of the live log.

    Attributes:
        first_days: first day that each region keeps.
        prediction_files: files of logged predictions that left, by model.
    """

    entity: str
    events: int
    live_files: int
    first_days: dict[str, date]
    prediction_files: dict[str, int] = field(default_factory=dict)


def expire_events(workspace: Workspace, catalog: Catalog, entity: str, *, now_us: int) -> Expired:
    """Drop the events of an entity type that are older than their region's retention, and predictions on them.

    Raises:
        TemporaryError: another process writes the log.
        EventLogError: a view was declared after events that it would need had been dropped.
    """
    first_days = {region: _day(now_us, kept_s) for region, kept_s in catalog.retention_s}
    path = workspace.events(entity)
    with delta.writing(path):
        log = open_log(workspace, catalog, entity)
        if log is None or not first_days:
            return Expired(entity, 0, 0, first_days)
        old = [(pl.col("region") == region) & (pl.col("ingest_day") < day) for region, day in first_days.items()]
        doomed = pl.scan_delta(log).filter(pl.any_horizontal(old) & (pl.col("event_type") != ERASED))
        last = pl.col("log_offset").max(), pl.col("ingest_time").max().dt.epoch("us"), pl.len()
        ends = delta.collect(doomed.group_by("log_partition").agg(last).sort("log_partition"), path).rows()
        for partition, offset, ingest_us, _ in ends:
            _keep_states(workspace, catalog, entity, Position(partition, offset, ingest_us))
        if ends:
            predicate = " OR ".join(
                f"(region = {delta.quoted(region)} AND ingest_day < '{day}')" for region, day in first_days.items()
            )
            # A region that keeps its events for longer drops some of before what another one has dropped already.
            further = [end for end in ends if end[1] > expired_to(workspace, catalog, entity, end[0])]
            recorded = {EXPIRED_KEY.format(partition=partition): offset for partition, offset, _, _ in further}
            recorded |= {EXPIRED_US_KEY.format(partition=partition): ingest_us for partition, _, ingest_us, _ in further}
            delta.delete_rows(log, f"({predicate}) AND event_type <> {delta.quoted(ERASED)}", recorded)
        delta.remove_old_files(log)
    dropped = _drop_live(workspace, catalog, entity)
    served = _expire_predictions(workspace, catalog, entity, max(first_days.values()))
    return Expired(entity, sum(count for *_, count in ends), dropped, first_days, served)


def _expire_predictions(workspace: Workspace, catalog: Catalog, entity: str, first_day: date) -> dict[str, int]:
    """Drop files of predictions on the entity's views, all answered before a day; how many, by model that lost some."""
    views = [key for view in catalog.views if view.entity == entity for key in (view.key, *view.former_keys)]
    folder = workspace.predictions("any").parent
    models = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    before_us = (first_day - date(1970, 1, 1)) // timedelta(microseconds=1)
    gone = {model: predictions.expire(workspace.predictions(model), before_us, views=views) for model in models}
    return {model: files for model, files in gone.items() if files}


def _keep_states(workspace: Workspace, catalog: Catalog, entity: str, at: Position) -> None:
    """Bring the snapshot of every view of the entity up to a position."""
    events = read_events(workspace, catalog, entity, partition=at.partition)
    events = events.filter(pl.Series(events["log_offset"].to_numpy() <= at.log_offset).to_arrow())
    for view in (each for each in catalog.views if each.entity == entity):
        before = read_snapshot(workspace, catalog, view, at.partition)
        if before.log_offset < at.log_offset:
            write_snapshot(workspace, catalog, view, at.partition, extend(before, events, catalog, view, at))


def _drop_live(workspace: Workspace, catalog: Catalog, entity: str) -> int:
    """Drop the live log's files whose every event was dropped, by this run or by one that ended before it came to them."""
    if not workspace.live_log(entity).exists():
        return 0
    with open_live_log(workspace, catalog, entity) as log:
        dropped = 0
        for partition in range(log.partitions):
            held = compacted_to(log, workspace, catalog, entity, partition)
            dropped += log.drop_segments(partition, min(expired_to(workspace, catalog, entity, partition) + 1, held))
        return dropped


def _day(now_us: int, kept_s: int) -> date:
    """The first day of which something is younger."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now_us) - timedelta(seconds=kept_s)).date()
