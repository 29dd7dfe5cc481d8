"""How a user behaves from day to day: mood, quiet stretches, sessions, offers shown and clicked.

Only daily counts live here. They are all that the hazards depend on, so futures can be played by the thousand without
building events (see ``simulation.forward``).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt

from simulation.population import Flags, Floats, Ints, Population
from simulation.scenario import Scenario, World

MONTH_DAYS = 30
WEEK_DAYS = 7

Counts = npt.NDArray[np.int16]


@dataclass
class State:
    """What changes about each user, as of the end of the last local day played.

    The three rings hold daily counts, slot ``day % 30``, shape [30, users]. ``last_session_day`` is -10,000 before the
    first session. ``plan`` is 0 free, 1 basic, 2 pro.
    """

    plan: Ints
    mood: Floats
    quiet: Flags
    last_session_day: Ints
    session_ring: Counts
    shown_ring: Counts
    clicked_ring: Counts
    sessions_7d: Ints
    sessions_30d: Ints
    shown_30d: Ints
    clicked_30d: Ints

    def take(self, users: Ints) -> Self:
        """A copy of some users' state, repeats allowed."""
        return type(self)(**{field.name: getattr(self, field.name)[..., users] for field in fields(self)})


@dataclass(frozen=True)
class Activity:
    """One local day's counts for each user: sessions, those that showed an offer, those whose offer was clicked."""

    sessions: Ints
    shown: Ints
    clicked: Ints


def fresh_state(population: Population, rng: np.random.Generator, world: World) -> State:
    """The state of users who have just signed up: no history, an active mood."""
    users = len(population)
    return State(
        plan=population.signup_plan.copy(),
        mood=world.mood_sigma * rng.standard_normal(users),
        quiet=np.zeros(users, dtype=np.bool_),
        last_session_day=np.full(users, -10_000, dtype=np.int64),
        session_ring=np.zeros((MONTH_DAYS, users), dtype=np.int16),
        shown_ring=np.zeros((MONTH_DAYS, users), dtype=np.int16),
        clicked_ring=np.zeros((MONTH_DAYS, users), dtype=np.int16),
        sessions_7d=np.zeros(users, dtype=np.int64),
        sessions_30d=np.zeros(users, dtype=np.int64),
        shown_30d=np.zeros(users, dtype=np.int64),
        clicked_30d=np.zeros(users, dtype=np.int64),
    )


def change_mood(state: State, population: Population, rng: np.random.Generator, world: World) -> None:
    """One night passes: the mood drifts as an AR(1), users fall quiet or come back."""
    users = len(population)
    innovation = world.mood_sigma * np.sqrt(1 - world.mood_persistence**2)
    state.mood = world.mood_persistence * state.mood + innovation * rng.standard_normal(users)
    chance = rng.random(users)
    state.quiet = np.where(state.quiet, chance >= world.quiet_exit, chance < population.quiet_entry)


def draw_activity(state: State, population: Population, day: int, rng: np.random.Generator, scenario: Scenario) -> Activity:
    """Draw one local day's counts.

    Sessions are Poisson, an offer is shown in a share of them and clicked in a share of those: three independent Poisson
    counts (clicked; shown, not clicked; not shown) have the same joint law.
    """
    world = scenario.world
    rate = population.session_rate * np.exp(state.mood) * world.weekday_factors[scenario.weekday(day)]
    rate = np.where(state.quiet, rate * world.quiet_session_factor, rate)
    if scenario.has_drift("engagement", day):
        rate = rate * world.drift_engagement_factor
    click_share = click_shares(population, day, scenario)
    clicked = rng.poisson(rate * world.show_share * click_share)
    ignored = rng.poisson(rate * world.show_share * (1 - click_share))
    plain = rng.poisson(rate * (1 - world.show_share))
    return Activity(sessions=clicked + ignored + plain, shown=clicked + ignored, clicked=clicked)


def click_shares(population: Population, day: int, scenario: Scenario) -> Floats:
    """Each user's chance to click an offer shown on this local day."""
    factor = scenario.world.drift_conversion_factor if scenario.has_drift("conversion", day) else 1.0
    return population.click_share * factor


def remember(state: State, activity: Activity, day: int) -> None:
    """Put one local day's counts into the state."""
    slot, week_slot = day % MONTH_DAYS, (day - WEEK_DAYS) % MONTH_DAYS
    state.sessions_7d += activity.sessions - state.session_ring[week_slot]
    state.sessions_30d += activity.sessions - state.session_ring[slot]
    state.shown_30d += activity.shown - state.shown_ring[slot]
    state.clicked_30d += activity.clicked - state.clicked_ring[slot]
    state.session_ring[slot] = activity.sessions
    state.shown_ring[slot] = activity.shown
    state.clicked_ring[slot] = activity.clicked
    state.last_session_day = np.where(activity.sessions > 0, day, state.last_session_day)


def forget(state: State, who: Flags) -> None:
    """Wipe the history of these users; their plan stays."""
    for ring in (state.session_ring, state.shown_ring, state.clicked_ring):
        ring[:, who] = 0
    for total in (state.sessions_7d, state.sessions_30d, state.shown_30d, state.clicked_30d):
        total[who] = 0
    state.quiet[who] = False
    state.last_session_day[who] = -10_000
