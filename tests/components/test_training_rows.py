"""Training rows from a log written by hand: 60 customers who order every 20 to 79 days for a year."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from components.training_rows import build_training_rows, describe_data, read_requests
from features.catalogs import load_catalog
from features.deletion import Deletion, delete_entities
from features.errors import EventLogError
from features.events import append_events
from features.layout import DAY_S, HOUR_S, US_PER_S
from features.profiles import append_profiles
from features.retention import expire_events
from features.rows import TIME, profile_schema, training_schema
from features.workspace import Workspace
from models.cutoffs import Sample
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


def test_no_instant_means_the_end_of_the_log(workspace: Workspace, tmp_path: Path) -> None:
    facts = [
        build_training_rows(workspace, "churn_retail", known_at_us, tmp_path / "rows") for known_at_us in (0, 2 * KNOWN_AT_US)
    ]
    assert facts[0] == facts[1]
    assert facts[0]["known_at_us"] == facts[0]["log_end_us"] == describe_data(workspace, "churn_retail").log_end_us


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
    assert set(rows["label"].to_pylist()) <= {0, None}
    assert [label is None for label in rows["label"].to_pylist()] == [not matured for matured in rows["matured"].to_pylist()]
    warm = rows.filter(pc.not_equal(pc.binary_length(rows["state"]), 0))
    country = dict(zip(warm["entity_id"].to_pylist(), warm["country"].to_pylist(), strict=True))
    assert (country["c1"], country["c2"]) == ("France", "unknown")


def test_every_matured_row_lies_after_an_order_and_a_horizon_before_the_end(workspace: Workspace, tmp_path: Path) -> None:
    rows = build(workspace, tmp_path / "rows")
    now_us = rows["now"].cast(pa.int64()).to_numpy()
    assert (now_us[rows["matured"].to_numpy()] + (90 + 1) * DAY_US <= KNOWN_AT_US).all()
    assert all(len(state) % 16 == 0 for state in rows["state"].to_pylist())
    assert len(np.unique(now_us % DAY_US)) > 30  # at serving's times of day, not all at midnight


def test_an_outcome_is_named_with_its_time_and_with_when_it_was_known(workspace: Workspace, tmp_path: Path) -> None:
    rows = build(workspace, tmp_path / "rows")
    now_us, outcome_us, known_us = (
        rows[name].cast(pa.int64()).to_numpy() for name in ("now", "outcome_time", "outcome_known_time")
    )
    customer = np.array([int(entity[1:]) for entity in rows["entity_id"].to_pylist()])
    # Customer k orders on every day k % 20 + (20 + k) j at 09:00; an hour later it is known.
    first_us = START_US + (customer % 20) * DAY_US + 9 * HOUR_S * US_PER_S
    period_us = (20 + customer) * DAY_US
    expected_us = first_us + ((now_us - first_us) // period_us + 1) * period_us
    seen = expected_us + HOUR_S * US_PER_S <= KNOWN_AT_US
    assert (outcome_us[seen] == expected_us[seen]).all()
    assert (known_us[seen] == expected_us[seen] + HOUR_S * US_PER_S).all()
    assert rows["outcome_time"].is_valid().to_numpy().tolist() == seen.tolist()


def test_earlier_columns_hold_what_was_known_when_the_test_begins_and_only_of_rows_before_it(
    workspace: Workspace, tmp_path: Path
) -> None:
    facts = build_training_rows(workspace, "churn_retail", KNOWN_AT_US, tmp_path / "rows")
    rows, begins_us = pq.read_table(tmp_path / "rows"), facts["test_begins_us"]
    before = np.isin(rows["split"].to_pylist(), ("train", "validation", "embargo"))
    assert rows["earlier_observed_until"].is_valid().to_numpy().tolist() == before.tolist()
    assert not rows["earlier_outcome_time"].filter(pa.array(~before)).is_valid().to_numpy().any()
    assert pc.max(rows["earlier_outcome_known_time"].cast(pa.int64())).as_py() <= begins_us
    assert pc.max(rows["outcome_known_time"].cast(pa.int64())).as_py() > begins_us
    now_us = rows["now"].cast(pa.int64()).to_numpy()
    assert (now_us[before] < begins_us).all()
    assert (now_us[~before] >= begins_us).all()
    # The delay is one day: the newest embargoed rows are observed until a day before the test begins.
    assert pc.max(rows["earlier_observed_until"].cast(pa.int64())).as_py() <= begins_us - DAY_US


def test_copies_of_test_rows_are_cold_and_keep_their_labels(workspace: Workspace, tmp_path: Path) -> None:
    rows = build(workspace, tmp_path / "rows").to_pylist()
    test = {(row["entity_id"], row["now"]): row["label"] for row in rows if row["split"] == "test"}
    cold = {(row["entity_id"], row["now"]): row["label"] for row in rows if row["split"] == "cold"}
    assert test == cold
    assert {(row["state"], row["country"]) for row in rows if row["split"] == "cold"} == {(b"", "unknown")}
    trained = [row for row in rows if row["split"] == "train"]
    copies = sum(row["state"] == b"" for row in trained)
    warm = len(trained) - copies
    # A fair draw of 5 %: four standard errors.
    assert abs(copies - 0.05 * warm) < 4 * np.sqrt(0.05 * 0.95 * warm)


def test_request_fields_are_those_of_the_event_that_a_row_is_drawn_at() -> None:
    view = load_catalog("subscription").view("subscriber")
    events = pa.table({"platform": pa.array(["ios", "web", None])})
    split = np.array(["train", "train"])
    sample = Sample(pa.array(["a", "a"]), np.array([5, 6]), split, test_begins_us=9, touch=np.array([2, 1]))
    assert {name: column.to_pylist() for name, column in read_requests(events, view, sample)} == {
        "platform": ["unknown", "web"]
    }
    at_dates = Sample(pa.array(["a", "a"]), np.array([5, 6]), split, test_begins_us=9)
    assert dict(read_requests(events, view, at_dates))["platform"].to_pylist() == ["unknown", "unknown"]


def test_counts_and_data_versions_are_returned_for_the_record(workspace: Workspace, tmp_path: Path) -> None:
    facts = build_training_rows(workspace, "churn_retail", KNOWN_AT_US, tmp_path / "rows")
    rows = pq.read_table(tmp_path / "rows")
    assert facts["rows"] == rows.num_rows == sum(value for name, value in facts.items() if name.startswith("rows_"))
    assert {"rows_train", "rows_validation", "rows_embargo", "rows_test", "rows_cold"} <= set(facts)
    assert facts["view_hash"] == RETAIL.view_hash(RETAIL.view("customer"))
    tables = describe_data(workspace, "churn_retail").tables
    assert (facts["events/customer"], facts["profiles/address"]) == (tables["events/customer"], tables["profiles/address"])
    append_events(workspace, RETAIL, "customer", orders(360, DAYS), source="second")
    assert describe_data(workspace, "churn_retail").tables["events/customer"] > tables["events/customer"]


def test_an_empty_log_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="event log is empty.*plumb events import"):
        build_training_rows(Workspace(tmp_path), "churn_retail", KNOWN_AT_US, tmp_path / "rows")
    assert list(tmp_path.iterdir()) == []


def test_a_deleted_customer_is_absent_from_the_next_training_rows(workspace: Workspace, tmp_path: Path) -> None:
    before = build(workspace, tmp_path / "before")
    task = Deletion(workspace, RETAIL, "customer")
    delete_entities(task, ["c1"], who="ann", reason="asked by mail", now_us=KNOWN_AT_US + DAY_US)
    after = build(workspace, tmp_path / "after")
    assert "c1" in before["entity_id"].to_pylist()
    assert "c1" not in after["entity_id"].to_pylist()
    # Nobody else's row changes, also not at an instant before the deletion.
    others = before.filter(pc.not_equal(before["entity_id"], "c1"))
    assert after.equals(others)


def known_states(rows: pa.Table) -> dict[tuple[str, dt.datetime], bytes]:
    """State by (entity, now), copies as of unknown entities left out."""
    return {(row["entity_id"], row["now"]): row["state"] for row in rows.to_pylist() if row["state"]}


def test_training_goes_on_from_snapshots_and_refuses_what_they_cannot_tell(workspace: Workspace, tmp_path: Path) -> None:
    whole = build(workspace, tmp_path / "whole")
    kept = replace(RETAIL, retention_s=(("eu", 280 * DAY_S), ("uk", 280 * DAY_S)), regions=("eu", "uk"))
    assert expire_events(workspace, kept, "customer", now_us=KNOWN_AT_US).events > 0
    rows = build(workspace, tmp_path / "rows")
    # 360 days less 280: nothing is drawn before; what is drawn later has the state of the whole log.
    first_us = pc.min(rows["now"].cast(pa.int64())).as_py()
    assert first_us > START_US + 79 * DAY_US
    assert known_states(rows) == known_states(whole.filter(pc.greater_equal(whole["now"].cast(pa.int64()), first_us)))
    with pytest.raises(EventLogError, match="events of that time are gone"):
        build(workspace, tmp_path / "early", START_US + 70 * DAY_US)
