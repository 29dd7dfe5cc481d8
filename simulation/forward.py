"""True 30-day probabilities by playing many futures from a user's exact state (branching).

Futures use the same behaviour and the same hazards as the simulation. Whether a user cancels is not drawn but carried as
a weight (the product of 1 - hazard), which leaves only the spread between activity paths as noise; it is reported.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulation.behaviour import State, change_mood, draw_activity, remember
from simulation.hazards import churn_hazard, upgrade_hazard
from simulation.population import Floats, Ints, Population
from simulation.scenario import Scenario


@dataclass(frozen=True)
class Outlook:
    """For each asked user, the chance to cancel (and to upgrade while subscribed) within the horizon, with standard errors."""

    churn: Floats
    churn_error: Floats
    upgrade: Floats
    upgrade_error: Floats


def look_ahead(
    state: State, population: Population, users: Ints, day: int, rng: np.random.Generator, scenario: Scenario
) -> Outlook:
    """Probabilities over the local days ``day`` to ``day + horizon - 1`` for subscribed users at the start of ``day``."""
    world = scenario.world
    replicates = world.truth_replicates
    repeated = np.repeat(users, replicates)
    state, population = state.take(repeated), population.take(repeated)
    subscribed = np.ones(len(repeated))
    waiting = np.ones(len(repeated), dtype=np.bool_)
    upgraded = np.zeros(len(repeated))
    for future_day in range(day, day + world.truth_horizon_days):
        subscribed = subscribed * (1 - churn_hazard(state, population, future_day, scenario))
        hazard = upgrade_hazard(state, future_day, scenario)
        upgraded += subscribed * waiting * hazard
        upgrades = rng.random(len(repeated)) < hazard
        waiting &= ~upgrades
        state.plan = state.plan + upgrades
        change_mood(state, population, rng, world)
        remember(state, draw_activity(state, population, future_day, rng, scenario), future_day)
    churn, upgrade = (1 - subscribed).reshape(-1, replicates), upgraded.reshape(-1, replicates)
    return Outlook(
        churn=churn.mean(axis=1),
        churn_error=churn.std(axis=1, ddof=1) / np.sqrt(replicates),
        upgrade=upgrade.mean(axis=1),
        upgrade_error=upgrade.std(axis=1, ddof=1) / np.sqrt(replicates),
    )
