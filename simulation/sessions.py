"""Sessions of a day, and the offers shown and clicked in them."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from simulation.batch import CHANNEL_CODES, Batch, local_time_us, make_batch
from simulation.behaviour import Activity, State, click_shares
from simulation.population import Floats, Ints, Population
from simulation.scenario import Scenario, World

DIURNAL: Final = (2, 1, 1, 1, 1, 2, 4, 6, 7, 6, 5, 5, 6, 6, 5, 5, 6, 7, 8, 9, 10, 9, 7, 4)
"""Relative use of the app by local hour, for the share of sessions that ignores the user's own habit."""
HABIT_SHARE: Final = 0.6
HABIT_HOURS: Final = 2.0
MAX_SESSION_S: Final = 3 * 3_600
MIN_SESSION_MS: Final = 5_000


def play_sessions(
    activity: Activity, state: State, population: Population, day: int, rng: np.random.Generator, scenario: Scenario
) -> list[Batch]:
    """The day's events ``session``, ``offer_shown`` and ``offer_clicked``.

    A session's event_time is its end; offers lie within the session.
    """
    world = scenario.world
    users = np.repeat(np.arange(len(population)), activity.sessions)
    rank = np.arange(len(users)) - np.repeat(np.cumsum(activity.sessions) - activity.sessions, activity.sessions)
    start_us = local_time_us(scenario, population, day, users, _draw_seconds(rng, population, users, scenario.weekday(day)))
    duration_ms = _draw_durations(rng, state, population, users, world)
    platform = _draw_platforms(rng, population, users, world)
    logged_ms = duration_ms // world.drift_unit_divisor if scenario.has_drift("unit", day) else duration_ms
    session = make_batch("session", users, start_us + duration_ms * 1_000, duration_ms=logged_ms, platform=platform)
    shown, clicked = rank < activity.shown[users], rank < activity.clicked[users]
    share = click_shares(population, day, scenario)[users]
    offer = _draw_offers(rng, share, clicked, world)
    shown_us = start_us + (0.5 * rng.random(len(users)) * duration_ms * 1_000).astype(np.int64)
    clicked_us = shown_us + (0.4 * rng.random(len(users)) * duration_ms * 1_000).astype(np.int64)
    channel = np.full(len(users), CHANNEL_CODES["in_app"])
    return [
        session,
        make_batch("offer_shown", users[shown], shown_us[shown], offer=offer[shown], channel=channel[shown]),
        make_batch("offer_clicked", users[clicked], clicked_us[clicked], offer=offer[clicked], channel=channel[clicked]),
    ]


def offer_appeals(world: World) -> Floats:
    """How much likelier than average each offer is clicked; mean 1, so that offers leave a user's click share as it is."""
    return np.linspace(0.4, 1.6, world.offers)


def _draw_seconds(rng: np.random.Generator, population: Population, users: Ints, weekday: int) -> Floats:
    rows = len(users)
    habit = population.best_hour(users, weekday) + 0.5 + HABIT_HOURS * rng.standard_normal(rows)
    shares = np.array(DIURNAL, dtype=np.float64) / sum(DIURNAL)
    common = rng.choice(24, size=rows, p=shares) + rng.random(rows)
    hours = np.where(rng.random(rows) < HABIT_SHARE, habit % 24, common)
    return hours * 3_600


def _draw_durations(rng: np.random.Generator, state: State, population: Population, users: Ints, world: World) -> Ints:
    centre = world.duration_median_ms * population.duration_scale[users] * np.exp(0.3 * state.mood[users])
    drawn = centre * np.exp(world.duration_sigma * rng.standard_normal(len(users)))
    return np.clip(drawn, MIN_SESSION_MS, MAX_SESSION_S * 1_000).astype(np.int64)


def _draw_platforms(rng: np.random.Generator, population: Population, users: Ints, world: World) -> Ints:
    other = rng.integers(0, len(world.platforms), len(users))
    return np.where(rng.random(len(users)) < world.platform_loyalty, population.platform[users], other)


def _draw_offers(rng: np.random.Generator, share: Floats, clicked: npt.NDArray[np.bool_], world: World) -> Ints:
    """The offer of each session: uniform among those shown; given a click, in proportion to its appeal."""
    appeal = offer_appeals(world)
    chance = share[:, None] * appeal
    weights = np.where(clicked[:, None], chance, 1 - chance)
    edges = np.cumsum(weights, axis=1)
    drawn: Ints = (rng.random((len(share), 1)) * edges[:, -1:] > edges).sum(axis=1)
    return drawn
