"""The chance, on one local day, that a user cancels or upgrades, given recent behaviour: the truth that models learn.

Both are evaluated at the start of a local day from what happened before it, with

    gap        whole days since the last session (or since signup), capped
    week       sessions of the last 7 days          month      sessions of the last 30 days
    decline    1 - (week / 7) / (month / 30), from 0 (steady or growing) to 1 (stopped); 0 without sessions
    click_rate (clicked + 1) / (shown + 6) over the last 30 days

    churn   = base[plan] * exp(0.2 gap - 0.8 log(1 + week) + 1.1 decline - 6 click_rate + 0.5 [tenure < 30 days])
    upgrade = base[plan] * exp(0.45 log(1 + week) + 0.9 log(1 + clicked))

both capped; the coefficients are those of ``simulation.scenario.World``.
"""

from __future__ import annotations

import numpy as np

from simulation.behaviour import MONTH_DAYS, WEEK_DAYS, State
from simulation.population import Floats, Population
from simulation.scenario import Scenario


def churn_hazard(state: State, population: Population, day: int, scenario: Scenario) -> Floats:
    """Chance of each user to cancel on this local day, were they subscribed; shape [users]."""
    world = scenario.world
    gap = np.minimum(day - 1 - np.maximum(state.last_session_day, population.signup_day), world.churn_gap_cap_days)
    growth = (state.sessions_7d / WEEK_DAYS) / np.maximum(state.sessions_30d / MONTH_DAYS, 1e-9)
    decline = np.where(state.sessions_30d > 0, np.clip(1 - growth, 0, 1), 0.0)
    click_rate = (state.clicked_30d + 1) / (state.shown_30d + 6)
    exponent = (
        world.churn_per_gap_day * np.maximum(gap, 0)
        + world.churn_per_log_week * np.log1p(state.sessions_7d)
        + world.churn_decline * decline
        + world.churn_click_rate * click_rate
        + world.churn_new_user * (day - population.signup_day < 30)
    )
    hazard = np.asarray(world.churn_base)[state.plan] * np.exp(exponent)
    if scenario.has_drift("churn", day):
        hazard = hazard * world.drift_churn_factor
    return np.asarray(np.minimum(hazard, world.churn_cap), dtype=np.float64)


def upgrade_hazard(state: State, day: int, scenario: Scenario) -> Floats:
    """Chance of each user to move one plan up on this local day, were they subscribed; shape [users]."""
    world = scenario.world
    exponent = world.upgrade_per_log_week * np.log1p(state.sessions_7d)
    exponent = exponent + world.upgrade_per_log_clicks * np.log1p(state.clicked_30d)
    hazard = np.asarray(world.upgrade_base)[state.plan] * np.exp(exponent)
    if scenario.has_drift("conversion", day):
        hazard = hazard * world.drift_conversion_factor
    return np.asarray(np.minimum(hazard, world.upgrade_cap), dtype=np.float64)
