"""Late, duplicate, skewed, future-dated events and label delays occur in the shares and lengths stated."""

from __future__ import annotations

from math import sqrt

import polars as pl
import pytest

from features.layout import MAX_FUTURE_S

DAY_US = 86_400 * 10**6


@pytest.fixture(scope="module")
def settled(quarter):
    """First deliveries of events other than labels and history, old enough for the latest of them to have arrived."""
    last_us = quarter.scenario.end_us - 3 * DAY_US
    return quarter.events.filter(
        pl.col("event_type").ne("cancellation")
        & pl.col("ingest_time").dt.epoch("us").is_between(quarter.scenario.start_us + DAY_US, last_us)
        & pl.col("event_time").dt.epoch("us").gt(quarter.scenario.start_us)
    ).with_columns(delay_s=(pl.col("ingest_time") - pl.col("event_time")).dt.total_microseconds() / 1e6)


def assert_share(found: int, rows: int, share: float) -> None:
    """Within 4.5 standard deviations of a binomial: one in 150,000 by chance, and the seed is fixed."""
    assert abs(found - rows * share) <= 4.5 * sqrt(rows * share * (1 - share)), (found / rows, share)


def test_late_events_occur_in_their_share(settled, quarter):
    world = quarter.scenario.world
    late = settled.filter(pl.col("delay_s") >= world.late_min_s)
    assert_share(len(late), len(settled), world.late_share)
    assert late["delay_s"].max() <= world.late_max_s
    # Delays are log-uniform from 120 s to 172,800 s: the median is sqrt(120 * 172,800) = 4,554 s.
    assert late["delay_s"].median() == pytest.approx(4_554, rel=0.1)


def test_other_delays_are_seconds_with_the_stated_median(settled, quarter):
    on_time = settled.filter(pl.col("delay_s").is_between(0, 119))
    assert on_time["delay_s"].median() == pytest.approx(quarter.scenario.world.delay_median_s, rel=0.02)


def test_future_dated_events_occur_in_their_share_and_lie_beyond_the_permitted_skew(settled, quarter):
    future = settled.filter(pl.col("delay_s") < -MAX_FUTURE_S)
    assert_share(len(future), len(settled), quarter.scenario.world.future_share)
    assert future["delay_s"].max() <= -quarter.scenario.world.future_min_s


def test_skewed_clocks_occur_in_their_share_within_what_is_permitted(settled, quarter):
    skewed = settled.filter(pl.col("delay_s") < 0, pl.col("delay_s") >= -MAX_FUTURE_S)
    assert_share(len(skewed), len(settled), quarter.scenario.world.skewed_share)


def test_an_event_id_repeats_only_as_a_duplicate_of_all_but_ingest_time(quarter):
    rows = quarter.read("events")
    repeated = rows.filter(pl.len().over("event_id") > 1)
    columns = [name for name in rows.columns if name != "ingest_time"]
    assert len(repeated.select(columns).unique()) == repeated["event_id"].n_unique()
    assert repeated.group_by("event_id").len()["len"].max() == 2
    assert_share(quarter.summary.duplicates, quarter.summary.events - quarter.summary.deliveries["backfilled"],
                 quarter.scenario.world.duplicate_share)  # fmt: skip


def test_some_duplicates_arrive_after_a_long_gap(quarter):
    world = quarter.scenario.world
    gaps = (
        quarter.read("events")
        .group_by("event_id")
        .agg(rows=pl.len(), gap=pl.col("ingest_time").max() - pl.col("ingest_time").min())
    )
    gaps_s = gaps.filter(pl.col("rows") == 2)["gap"].dt.total_microseconds() / 1e6
    # Short gaps are exponential with mean 60 s: none reaches an hour. A few long ones fall beyond the end of the log.
    long_share = (gaps_s >= world.duplicate_long_min_s).mean()
    assert long_share == pytest.approx(world.duplicate_long_share, abs=0.02)
    assert gaps_s.min() > 0
    assert 3 * 86_400 < gaps_s.max() <= world.duplicate_long_max_s + 1


def test_cancellations_become_known_after_the_label_delay(quarter):
    world = quarter.scenario.world
    cancelled = quarter.events.filter(
        pl.col("event_type").eq("cancellation") & pl.col("event_time").dt.epoch("us").lt(quarter.scenario.end_us - 30 * DAY_US)
    )
    delay_days = (cancelled["ingest_time"] - cancelled["event_time"]).dt.total_microseconds() / DAY_US
    # Gamma(shape 2, scale 1.5 days): mean 3 days, standard deviation 1.5 * sqrt(2) = 2.12 days.
    assert world.label_delay_shape * world.label_delay_scale_s / 86_400 == 3.0
    assert abs(delay_days.mean() - 3.0) <= 4.5 * 2.1213 / sqrt(len(delay_days))
    known = quarter.read("truth_users")["cancel_time"].dt.epoch("us") < quarter.scenario.end_us - 30 * DAY_US
    assert len(cancelled) == known.sum()


def test_signups_from_before_the_log_enter_it_in_its_first_hour(quarter):
    old = quarter.events.filter(pl.col("event_time").dt.epoch("us").lt(quarter.scenario.start_us - DAY_US))
    assert set(old["event_type"]) == {"signup"}
    assert len(old) > 2_000
    assert (old["ingest_time"].dt.epoch("us") - quarter.scenario.start_us).is_between(0, 3_600 * 10**6).all()
