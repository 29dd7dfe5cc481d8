"""One hour beside four weeks, every number by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from features.declarations import Attribute, Catalog, EventType
from features.errors import EventLogError
from features.events import append_events
from features.quality import measure_quality
from features.rows import QUALITY, TIME
from features.workspace import Workspace

CATALOG = Catalog(
    "shop",
    (Attribute("channel", "string"), Attribute("cents", "int64", unit="cents")),
    (EventType("order", "user", ("channel", "cents")), EventType("visit", "user", ("channel",)), EventType("call", "agent")),
)
HOUR = datetime(2026, 3, 4, 15, tzinfo=UTC)
HOUR_US = int(HOUR.timestamp()) * 1_000_000
MINUTE, WEEK = timedelta(minutes=1), timedelta(days=7)

Event = tuple[datetime, str, str | None, int | None]


def append(workspace: Workspace, *events: Event) -> None:
    rows = sorted(events, key=lambda event: event[0])
    times = pa.array([event[0] for event in rows], TIME)
    table = pa.table({
        "event_id": [f"e{number}" for number in range(len(rows))],
        "entity_id": ["u"] * len(rows),
        "event_type": [event[1] for event in rows],
        "event_time": times,
        "ingest_time": times,
        "region": ["global"] * len(rows),
        "channel": pa.array([event[2] for event in rows], pa.string()),
        "cents": pa.array([event[3] for event in rows], pa.int64()),
    })  # fmt: skip
    append_events(workspace, CATALOG, "user", table, source="test")


def row(table: pa.Table, event_type: str, metric: str, attribute: str | None = None) -> dict[str, Any]:
    wanted = (event_type, metric, attribute)
    (found,) = [r for r in table.to_pylist() if (r["event_type"], r["metric"], r["attribute"]) == wanted]
    return found


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Orders in the hour: 4 (channels web, app, app, missing; one without cents). In the same hour one week before: 2,
    two weeks before: 6; three weeks before: none, but the log begins then. Web alone was known; app came only in an hour
    of another day before the four weeks."""
    made = Workspace(tmp_path)
    earlier = [(HOUR - WEEK + k * MINUTE, "order", "web", 5) for k in range(2)]
    earlier += [(HOUR - 2 * WEEK + k * MINUTE, "order", "web", None if k < 3 else 5) for k in range(6)]
    beginning = [(HOUR - 3 * WEEK - 5 * MINUTE, "visit", "web", None)]
    edges = [(HOUR - timedelta(microseconds=1), "order", "web", 1), (HOUR + timedelta(hours=1), "order", "fax", 1)]
    now: list[Event] = [
        (HOUR, "order", "web", 1),
        (HOUR + MINUTE, "order", "app", 1),
        (HOUR + 2 * MINUTE, "order", "app", None),
        (HOUR + timedelta(hours=1) - timedelta(microseconds=1), "order", None, 1),
    ]
    append(made, *earlier, *beginning, *edges, *now)
    return made


def test_volume_stands_beside_the_same_hours_of_the_weeks_that_the_log_covers(workspace: Workspace) -> None:
    table = measure_quality(workspace, CATALOG, "user", hour_us=HOUR_US)
    assert table.schema == QUALITY
    volume = row(table, "order", "volume")
    assert (volume["value"], volume["events"]) == (4.0, 4)
    assert (volume["reference"], volume["reference_low"], volume["reference_high"]) == (8 / 3, 0.0, 6.0)
    assert volume["reference_windows"] == 3
    assert (volume["start"], volume["end"]) == (HOUR, HOUR + timedelta(hours=1))


def test_null_rates_stand_beside_those_of_earlier_hours_that_had_events(workspace: Workspace) -> None:
    table = measure_quality(workspace, CATALOG, "user", hour_us=HOUR_US)
    cents, channel = row(table, "order", "null_rate", "cents"), row(table, "order", "null_rate", "channel")
    assert (cents["value"], cents["reference"], cents["reference_low"], cents["reference_high"]) == (0.25, 0.25, 0.0, 0.5)
    assert (channel["value"], channel["reference"]) == (0.25, 0.0)


def test_values_that_nobody_has_seen_for_weeks_are_counted_and_named(workspace: Workspace) -> None:
    unseen = row(measure_quality(workspace, CATALOG, "user", hour_us=HOUR_US), "order", "unseen_share", "channel")
    assert (unseen["value"], unseen["detail"]) == (2 / 3, "app")


def test_a_type_that_has_stopped_coming_has_its_rows(workspace: Workspace) -> None:
    table = measure_quality(workspace, CATALOG, "user", hour_us=HOUR_US)
    assert row(table, "visit", "volume")["value"] == 0.0
    assert row(table, "visit", "null_rate", "channel")["value"] is None
    assert row(table, "visit", "unseen_share", "channel")["value"] is None
    assert set(table["event_type"].to_pylist()) == {"order", "visit"}


def test_before_the_log_begins_there_is_nothing_to_compare_with(workspace: Workspace) -> None:
    first_hour_us = HOUR_US - 3 * 7 * 86_400 * 1_000_000 - 3_600 * 1_000_000
    table = measure_quality(workspace, CATALOG, "user", hour_us=first_hour_us)
    visits = row(table, "visit", "volume")
    assert (visits["value"], visits["reference"], visits["reference_windows"]) == (1.0, None, 0)


def test_an_empty_log_is_no_pass(tmp_path: Path) -> None:
    table = measure_quality(Workspace(tmp_path), CATALOG, "user", hour_us=HOUR_US)
    assert row(table, "order", "volume")["value"] == 0.0
    assert row(table, "order", "null_rate", "cents")["value"] is None


def test_only_full_hours_are_measured(workspace: Workspace) -> None:
    with pytest.raises(EventLogError, match="start of an hour; got 1 s past it"):
        measure_quality(workspace, CATALOG, "user", hour_us=HOUR_US + 1_000_000)
