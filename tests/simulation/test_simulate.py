"""What a simulation writes: complete, ordered, repeatable, and nothing on failure."""

from __future__ import annotations

import json
from datetime import timedelta

import polars as pl
import pyarrow.parquet as pq
import pytest

from features.catalogs import subscription
from simulation import Scenario, play, simulate
from simulation.errors import SimulationError
from simulation.simulate import FILES
from simulation.tables import EVENTS


def test_the_same_seed_writes_the_same_bytes(small, out_dir):
    again = play(small.scenario, out_dir)
    for name in FILES:
        assert (out_dir / name).read_bytes() == (small.summary.out_dir / name).read_bytes(), name
    assert again.rows == small.summary.rows


def test_another_seed_writes_other_events(small, small_options, play_scenario):
    other = play_scenario(**{**small_options, "seed": 6})
    assert other.summary.rows != small.summary.rows


def test_following_users_for_the_truth_does_not_change_the_events(small, small_options, play_scenario):
    unfollowed = play_scenario(**{**small_options, "truth_users": 0})
    assert unfollowed.read("events").equals(small.read("events"))
    assert unfollowed.read("truth_outlook").is_empty()


def test_events_are_ordered_by_ingest_time_and_end_with_the_simulation(quarter):
    table = pq.read_table(quarter.summary.events_path)
    assert table.schema.equals(EVENTS)
    ingest_time = quarter.read("events")["ingest_time"]
    assert ingest_time.is_sorted()
    assert ingest_time.dt.epoch("us").min() >= quarter.scenario.start_us - 3 * 3_600 * 10**6
    assert ingest_time.dt.epoch("us").max() < quarter.scenario.end_us


def test_every_event_made_is_written_or_counted_as_not_yet_ingested(quarter):
    summary = quarter.summary
    assert summary.rows == len(quarter.read("events"))
    assert summary.rows + summary.rows_after_end == summary.events + summary.duplicates
    assert sum(summary.event_types.values()) == sum(summary.deliveries.values()) == summary.events
    assert summary.rows_after_end < 0.01 * summary.rows


def test_every_event_type_of_the_catalog_occurs_with_exactly_its_attributes(quarter):
    events = quarter.events
    for event_type in subscription.EVENT_TYPES:
        rows = events.filter(pl.col("event_type") == event_type.name)
        assert len(rows) > 0, event_type.name
        for attribute in subscription.ATTRIBUTES:
            nulls = rows[attribute.name].null_count()
            assert nulls == (0 if attribute.name in event_type.attributes else len(rows)), (event_type.name, attribute.name)
    assert events.filter(pl.col("event_type") == "refund")["amount_cents"].max() < 0
    assert set(events["channel"].drop_nulls()) == set(subscription.CHANNELS)
    assert set(events["plan"].drop_nulls()) == set(subscription.PLANS)
    assert set(events["region"]) == {"eu", "us"}


def test_a_cancelled_user_does_nothing_more_but_may_be_refunded(quarter):
    cancelled = quarter.read("truth_users").select("user_id", "cancel_time").drop_nulls()
    right_clock = quarter.events.filter(pl.col("event_time") <= pl.col("ingest_time"))
    after = right_clock.join(cancelled, on="user_id").filter(pl.col("event_time") > pl.col("cancel_time"))
    assert set(after["event_type"]) == {"refund"}


def test_nobody_acts_before_signing_up(quarter):
    users = quarter.read("truth_users").select("user_id", "signup_time")
    joined = quarter.events.join(users, on="user_id")
    assert joined.filter(pl.col("event_time") < pl.col("signup_time")).is_empty()


def test_paid_users_are_charged_every_thirty_days(quarter):
    payments = quarter.events.filter((pl.col("event_type") == "payment") & (pl.col("event_time") <= pl.col("ingest_time")))
    assert set(payments["amount_cents"]) == {799, 1_999}
    users = quarter.read("truth_users").filter(pl.col("first_upgrade_day").is_null())
    days = payments.drop("utc_offset_minutes").join(users.select("user_id", "utc_offset_minutes", "signup_day"), on="user_id")
    local = pl.col("event_time") + pl.duration(minutes=pl.col("utc_offset_minutes"))
    start = pl.lit(quarter.scenario.start).cast(pl.Date)
    day = (local.dt.date() - start).dt.total_days()
    assert set(days.select((day - pl.col("signup_day")) % 30).to_series()) == {0}


def test_accounts_hold_a_row_for_each_plan_known_from_the_next_nightly_export(quarter):
    accounts = quarter.read("accounts")
    assert accounts["user_id"].n_unique() >= 0.98 * quarter.summary.users
    assert accounts.select("user_id", "valid_from").is_unique().all()
    grown = accounts.filter(pl.len().over("user_id") > 1)
    assert grown["user_id"].n_unique() > 100
    start = pl.lit(quarter.scenario.start).cast(pl.Datetime("us", "UTC"))
    later = accounts.filter(pl.col("valid_from") >= start)
    wait = (later["created_time"] - later["valid_from"]).dt.total_microseconds()
    assert wait.min() >= 0
    assert wait.max() <= timedelta(days=1) / timedelta(microseconds=1)
    assert set(later["created_time"].dt.hour()) == {2}


def test_truth_json_holds_the_scenario_the_constants_and_the_counts(small):
    truth = json.loads((small.summary.out_dir / "truth.json").read_text())
    assert truth["scenario"]["seed"] == 5
    assert truth["world"]["late_share"] == small.scenario.world.late_share
    assert truth["counts"]["events"] == small.summary.events
    assert sum(truth["offer_appeals"]) == pytest.approx(small.scenario.world.offers)


def test_progress_is_told_after_every_day(out_dir):
    told: list[tuple[int, int]] = []
    simulate(users=5, days=3, seed=1, out_dir=out_dir, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_an_interrupted_simulation_leaves_no_file(out_dir):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(users=5, days=3, seed=1, out_dir=out_dir, progress=interrupt)
    assert list(out_dir.iterdir()) == []


@pytest.mark.parametrize("users", [1, 2])
def test_a_handful_of_users_for_one_day_is_played(users, out_dir):
    summary = simulate(users=users, days=1, seed=0, out_dir=out_dir)
    assert len(pl.read_parquet(summary.events_path)) == summary.rows


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"users": 0}, "users"),
        ({"days": 0}, "days"),
        ({"seed": -1}, "seed"),
        ({"drift_day": 10}, "drift_day"),
        ({"drift_kind": "mood"}, "drift_kind"),
        ({"sending_hours": "noon"}, "sending_hours"),
    ],
)
def test_a_parameter_out_of_range_is_refused_in_one_line(options, named):
    with pytest.raises(SimulationError) as refused:
        Scenario(**{"users": 10, "days": 10, "seed": 1, **options})
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)
