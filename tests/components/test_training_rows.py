"""Training rows from a log written by hand: 60 customers who order every 20 to 79 days for a year."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from components.training_rows import build_training_rows, describe_data
from features.catalogs import load_catalog
from features.events import append_events
from features.layout import DAY_S, HOUR_S, US_PER_S
from features.profiles import append_profiles
from features.rows import TIME, profile_schema, training_schema
from features.workspace import Workspace
from models.errors import TrainingError

RETAIL = load_catalog("retail")
START_US = int(dt.datetime(2024, 1, 1, tzinfo=dt.UTC).timestamp()) * US_PER_S
DAY_US = DAY_S * US_PER_S
DAYS = 400
KNOWN_AT_US = START_US + 360 * DAY_US


def orders(first_day: int, last_day: int) -> pa.Table:
    """Customer number k orders every 20 + k days, at 09:00, known an hour later; the amount is 100 x (k + 1) cents."""
    rows = [
        (f"order-{customer}-{day}", f"c{customer}", START_US + day * DAY_US + 9 * HOUR_S * US_PER_S, 100 * (customer + 1))
        for customer in range(60)
        for day in range(customer % 20, DAYS, 20 + customer)
        if first_day <= day < last_day
    ]
    event_id, entity_id, event_us, amount = zip(*rows, strict=True)
    times = pa.array(event_us, pa.int64())
    return pa.table(
        {
            "event_id": pa.array(event_id), "entity_id": pa.array(entity_id), "event_type": pa.repeat("order", len(rows)),
            "event_time": times.cast(TIME), "ingest_time": pc.add(times, HOUR_S * US_PER_S).cast(TIME),
            "region": pa.repeat("eu", len(rows)), "amount_cents": pa.array(amount, pa.int64()),
        }
    )  # fmt: skip


def address(customer: str, country: str, day: int) -> pa.Table:
    at = pa.array([START_US + day * DAY_US]).cast(TIME)
    schema = profile_schema(RETAIL, "address")
    return pa.table([pa.array([customer]), at, at, pa.array([country])], schema=schema)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "workspace")
    append_events(made, RETAIL, "customer", orders(0, 360), source="first")
    append_profiles(made, RETAIL, "address", address("c1", "France", 0), source="first")
    return made


def build(workspace: Workspace, path: Path, known_at_us: int = KNOWN_AT_US) -> pa.Table:
    build_training_rows(workspace, "churn_retail", known_at_us, path)
    return pq.read_table(path)


def test_rows_have_the_declared_schema_and_the_file_appears_whole(workspace: Workspace, tmp_path: Path) -> None:
    rows = build(workspace, tmp_path / "rows")
    assert rows.schema.equals(training_schema(RETAIL, RETAIL.view("customer")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows", "workspace"]
    assert {"train", "validation", "test"} <= set(rows["split"].to_pylist())


def test_what_became_known_later_changes_no_row(workspace: Workspace, tmp_path: Path) -> None:
    before = build(workspace, tmp_path / "before", known_at_us=START_US + 355 * DAY_US)
    append_events(workspace, RETAIL, "customer", orders(360, DAYS), source="second")
    append_profiles(workspace, RETAIL, "address", address("c2", "Spain", 380), source="second")
    assert build(workspace, tmp_path / "after", known_at_us=START_US + 355 * DAY_US).equals(before)


def test_silence_after_the_end_of_the_log_is_no_evidence(workspace: Workspace, tmp_path: Path) -> None:
    log_end_us = describe_data(workspace, "churn_retail").log_end_us
    assert log_end_us < KNOWN_AT_US + DAYS * DAY_US
    at_the_end = build(workspace, tmp_path / "end", known_at_us=log_end_us)
    assert build(workspace, tmp_path / "long-after", known_at_us=KNOWN_AT_US + DAYS * DAY_US).equals(at_the_end)


def test_labels_and_profiles_are_those_of_the_customers(workspace: Workspace, tmp_path: Path) -> None:
    rows = build(workspace, tmp_path / "rows")
    # The horizon is 90 days and nobody pauses longer than 79, so nobody leaves.
    assert set(rows["label"].to_pylist()) == {0}
    assert rows["matured"].to_pylist() == [True] * rows.num_rows
    country = dict(zip(rows["entity_id"].to_pylist(), rows["country"].to_pylist(), strict=True))
    assert (country["c1"], country["c2"]) == ("France", "unknown")


def test_every_row_lies_after_an_order_and_a_horizon_before_the_end(workspace: Workspace, tmp_path: Path) -> None:
    rows = build(workspace, tmp_path / "rows")
    now_us = rows["now"].cast(pa.int64()).to_numpy()
    assert (now_us + (90 + 1) * DAY_US <= KNOWN_AT_US).all()
    assert all(len(state) > 0 and len(state) % 16 == 0 for state in rows["state"].to_pylist())
    assert len(np.unique(now_us % DAY_US)) > 30  # at serving's times of day, not all at midnight


def test_counts_and_data_versions_are_returned_for_the_record(workspace: Workspace, tmp_path: Path) -> None:
    facts = build_training_rows(workspace, "churn_retail", KNOWN_AT_US, tmp_path / "rows")
    rows = pq.read_table(tmp_path / "rows")
    assert facts["rows"] == rows.num_rows == sum(facts[f"rows_{name}"] for name in ("train", "validation", "test", "embargo"))
    assert facts["view_hash"] == RETAIL.view_hash(RETAIL.view("customer"))
    tables = describe_data(workspace, "churn_retail").tables
    assert (facts["events/customer"], facts["profiles/address"]) == (tables["events/customer"], tables["profiles/address"])
    append_events(workspace, RETAIL, "customer", orders(360, DAYS), source="second")
    assert describe_data(workspace, "churn_retail").tables["events/customer"] > tables["events/customer"]


def test_an_empty_log_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="event log is empty.*plumb events import"):
        build_training_rows(Workspace(tmp_path), "churn_retail", KNOWN_AT_US, tmp_path / "rows")
    assert list(tmp_path.iterdir()) == []
