"""Drift changes what it says, from its day on, and nothing before."""

from __future__ import annotations

import polars as pl
import pytest

from simulation.population import MAX_UTC_OFFSET_MINUTES
from simulation.scenario import DRIFT_KINDS

DRIFT_DAY = 25
DAY_US = 86_400 * 10**6


@pytest.fixture(scope="module")
def drifted(small_options, play_scenario):
    return {kind: play_scenario(**small_options, drift_day=DRIFT_DAY, drift_kind=kind) for kind in DRIFT_KINDS}


@pytest.mark.parametrize("kind", DRIFT_KINDS)
def test_nothing_differs_before_the_drift_day_and_something_after(kind, drifted, small):
    limit_us = small.scenario.start_us + DRIFT_DAY * DAY_US - MAX_UTC_OFFSET_MINUTES * 60 * 10**6
    before = pl.col("ingest_time").dt.epoch("us") < limit_us
    assert drifted[kind].read("events").filter(before).equals(small.read("events").filter(before))
    assert not drifted[kind].read("events").equals(small.read("events"))
    early = pl.col("day") < DRIFT_DAY
    assert drifted[kind].read("truth_daily").filter(early).equals(small.read("truth_daily").filter(early))


def daily_sessions(played) -> pl.DataFrame:
    """Sessions that began in UTC day 3 or more after the drift day, or as long before it."""
    day = (pl.col("event_time").dt.epoch("us") - played.scenario.start_us) // DAY_US
    sessions = played.events.filter(pl.col("event_type") == "session").with_columns(day=day)
    return sessions.filter(pl.col("day") >= DRIFT_DAY + 2)


def test_engagement_drift_halves_the_sessions(drifted, small):
    assert len(daily_sessions(drifted["engagement"])) / len(daily_sessions(small)) == pytest.approx(0.5, abs=0.1)


def test_unit_drift_logs_durations_in_seconds(drifted, small):
    mine, other = daily_sessions(drifted["unit"]), daily_sessions(small)
    pairs = mine.join(other, on="event_id")
    assert len(pairs) == len(mine) == len(other)
    assert (pairs["duration_ms"] == pairs["duration_ms_right"] // 1_000).all()


def test_churn_drift_multiplies_the_hazard(drifted, small):
    def hazards(played):
        return played.read("truth_daily").filter(pl.col("day") == DRIFT_DAY).select("user_id", "churn_hazard")

    pairs = hazards(drifted["churn"]).join(hazards(small), on="user_id").filter(pl.col("churn_hazard") < 0.2)
    ratio = pairs["churn_hazard"] / pairs["churn_hazard_right"]
    assert ratio.to_list() == pytest.approx([2.5] * len(pairs), rel=1e-5)


def test_conversion_drift_cuts_upgrades_and_clicks(drifted, small):
    def hazards(played):
        return played.read("truth_daily").filter(pl.col("day") == DRIFT_DAY).select("user_id", "upgrade_hazard")

    pairs = hazards(drifted["conversion"]).join(hazards(small), on="user_id").filter(pl.col("upgrade_hazard") > 0)
    assert (pairs["upgrade_hazard"] / pairs["upgrade_hazard_right"]).to_list() == pytest.approx([0.3] * len(pairs), rel=1e-5)
    counts = {
        name: played.summary.event_types["offer_clicked"] / played.summary.event_types["offer_shown"]
        for name, played in (("drifted", drifted["conversion"]), ("steady", small))
    }
    assert counts["drifted"] < 0.9 * counts["steady"]
