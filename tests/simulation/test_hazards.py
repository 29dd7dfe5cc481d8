"""The recorded hazards are the ones acted on, depend on the past alone, and can be learned from."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log, sqrt

import numpy as np
import polars as pl
import pytest

from simulation import Scenario, World
from simulation.behaviour import Activity, fresh_state, remember
from simulation.hazards import churn_hazard, upgrade_hazard
from simulation.population import draw_population


def calibration_errors(probability: np.ndarray, happened: np.ndarray, groups: int = 10) -> np.ndarray:
    """(found - expected) / standard deviation in each of the groups of rising probability."""
    order = np.argsort(probability, kind="stable")
    errors = []
    for rows in np.array_split(order, groups):
        expected, variance = probability[rows].sum(), (probability[rows] * (1 - probability[rows])).sum()
        errors.append((happened[rows].sum() - expected) / sqrt(variance))
    return np.array(errors)


def area_under_curve(score: np.ndarray, happened: np.ndarray) -> float:
    """Share of (positive, negative) pairs in the right order, ties half."""
    ranks = pl.Series(score).rank("average").to_numpy()
    positives, negatives = happened.sum(), (~happened).sum()
    return float((ranks[happened].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def test_the_churn_hazard_of_a_known_history_is_the_documented_one():
    scenario = Scenario(users=1, days=60, seed=1)
    population = replace(draw_population(scenario), signup_day=np.array([0]), signup_plan=np.array([1]))
    state = fresh_state(population, np.random.default_rng(0), scenario.world)
    for day in range(40):
        # 2 sessions on each of the days 31 to 35, one offer shown a day, clicked on day 31 only.
        sessions = np.array([2 if 31 <= day <= 35 else 0])
        remember(state, Activity(sessions, sessions // 2, np.array([int(day == 31)])), day)
    # At the start of day 40: last session on day 35, so days 36 to 39 were without: gap 39 - 35 = 4.
    # Week (days 33 to 39): 3 days * 2 = 6. Month (days 10 to 39): 10. Growth (6/7)/(10/30) > 1: no decline.
    # Click rate (1 + 1) / (5 + 6). Tenure 40 days: not new. Plan basic.
    expected = 0.0044 * exp(0.20 * 4 - 0.8 * log(7) - 6 * 2 / 11)
    assert churn_hazard(state, population, 40, scenario)[0] == pytest.approx(expected)
    # Upgrade from basic: one click.
    assert upgrade_hazard(state, 40, scenario)[0] == pytest.approx(0.00022 * exp(0.45 * log(7) + 0.9 * log(2)))


def test_the_churn_hazard_is_capped():
    scenario = Scenario(users=1, days=60, seed=1, world=World(churn_base=(5.0, 5.0, 5.0)))
    population = draw_population(scenario)
    state = fresh_state(population, np.random.default_rng(0), scenario.world)
    assert churn_hazard(state, population, 10, scenario)[0] == scenario.world.churn_cap


def test_cancellations_are_calibrated_against_the_daily_hazard(quarter):
    daily = quarter.read("truth_daily").join(quarter.read("truth_users").select("user_id", "cancel_day"), on="user_id")
    happened = (daily["cancel_day"] == daily["day"]).fill_null(False).to_numpy()
    assert happened.sum() == quarter.summary.cancelled_users
    errors = calibration_errors(daily["churn_hazard"].cast(pl.Float64).to_numpy(), happened)
    assert np.abs(errors).max() < 3.5, errors


def test_upgrades_are_calibrated_against_the_daily_hazard(quarter):
    """Among those never upgraded; an upgrade is drawn only for users who do not cancel on that day."""
    daily = quarter.read("truth_daily").join(quarter.read("truth_users").select("user_id", "first_upgrade_day"), on="user_id")
    daily = daily.filter(pl.col("first_upgrade_day").is_null() | (pl.col("day") <= pl.col("first_upgrade_day")))
    happened = (daily["first_upgrade_day"] == daily["day"]).fill_null(False).to_numpy()
    chance = (daily["upgrade_hazard"].cast(pl.Float64) * (1 - daily["churn_hazard"].cast(pl.Float64))).to_numpy()
    at_risk = chance > 0
    assert np.abs(calibration_errors(chance[at_risk], happened[at_risk])).max() < 3.5


@pytest.mark.parametrize("day", [28, 56])
def test_thirty_day_churn_is_calibrated_against_its_true_probability(quarter, day):
    outlook = quarter.read("truth_outlook").filter(pl.col("day") == day)
    outlook = outlook.join(quarter.read("truth_users").select("user_id", "cancel_day"), on="user_id")
    happened = (outlook["cancel_day"] < day + 30).fill_null(False).to_numpy()
    probability = outlook["churn_probability_30d"].cast(pl.Float64).to_numpy()
    assert 0.12 < happened.mean() < 0.30
    assert np.abs(calibration_errors(probability, happened)).max() < 3.5
    assert outlook["churn_standard_error"].mean() < 0.05


def test_behaviour_tells_more_of_churn_than_recency_alone(quarter):
    day, users = 56, quarter.read("truth_users")
    outlook = (
        quarter.read("truth_outlook").filter(pl.col("day") == day).join(users.select("user_id", "cancel_day"), on="user_id")
    )
    sessions = quarter.events.filter(pl.col("event_type") == "session", pl.col("event_time") <= pl.col("ingest_time"))
    last = sessions.join(outlook.select("user_id", "time"), on="user_id").filter(pl.col("event_time") < pl.col("time"))
    last = last.group_by("user_id").agg(last=pl.col("event_time").max().dt.epoch("us"))
    outlook = outlook.join(last, on="user_id", how="left").with_columns(pl.col("last").fill_null(0))
    happened = (outlook["cancel_day"] < day + 30).fill_null(False).to_numpy()
    truth = area_under_curve(outlook["churn_probability_30d"].to_numpy(), happened)
    recency = area_under_curve(-outlook["last"].to_numpy(), happened)
    assert 0.80 < truth < 0.89
    assert 0.05 < truth - recency < 0.15


def test_the_recorded_session_counts_are_those_of_the_events(play_scenario):
    """A session counts for the local day that it began on; without wrong clocks the log holds exactly these."""
    world = World(skewed_share=0.0, future_share=0.0)
    played = play_scenario(users=300, days=45, seed=9, truth_users=0, world=world)
    users = played.read("truth_users").select("user_id", "utc_offset_minutes")
    sessions = played.events.filter(pl.col("event_type") == "session").drop("utc_offset_minutes").join(users, on="user_id")
    began = pl.col("event_time") - pl.duration(milliseconds="duration_ms") + pl.duration(minutes="utc_offset_minutes")
    start = pl.lit(played.scenario.start).cast(pl.Date)
    sessions = sessions.select("user_id", session_day=(began.dt.date() - start).dt.total_days())
    for day in (32, 40):
        found = sessions.filter(pl.col("session_day").is_between(day - 30, day - 1)).group_by("user_id").agg(
            week=(pl.col("session_day") >= day - 7).sum(), month=pl.len()
        )  # fmt: skip
        recorded = played.read("truth_daily").filter(pl.col("day") == day).join(found, on="user_id", how="left").fill_null(0)
        assert recorded["sessions_7d"].to_list() == recorded["week"].to_list()
        assert recorded["sessions_30d"].to_list() == recorded["month"].to_list()
        assert recorded["month"].sum() > 1_000
