"""One user population carried from day to day: who is subscribed, what happens today, what is remembered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulation.batch import Batch, join_batches
from simulation.behaviour import Activity, State, change_mood, draw_activity, forget, fresh_state, remember
from simulation.hazards import churn_hazard, upgrade_hazard
from simulation.messages import play_messages
from simulation.population import Flags, Floats, Population
from simulation.randomness import stream
from simulation.scenario import Scenario
from simulation.sessions import play_sessions
from simulation.subscriptions import (
    Subscriptions,
    open_subscriptions,
    play_cancellations,
    play_payments,
    play_signups,
    play_upgrades,
)


@dataclass(frozen=True)
class Risks:
    """Hazards of one local day, and who was exposed to them: subscribed at the start of the day."""

    exposed: Flags
    churn: Floats
    upgrade: Floats


def warm_up(population: Population, scenario: Scenario) -> tuple[State, Subscriptions]:
    """Play the days before the start without events, so that users who signed up then arrive with a past.

    Whoever would cancel meanwhile starts afresh instead: the users of the log are those who were still there.
    """
    world = scenario.world
    state = fresh_state(population, stream(scenario.seed, "warm_up"), world)
    subscriptions = open_subscriptions(population)
    for day in range(-world.warm_up_days, 0):
        present = population.signup_day < day
        rng = stream(scenario.seed, "hazards", day)
        leaves = present & (rng.random(len(population)) < churn_hazard(state, population, day, scenario))
        forget(state, leaves | (population.signup_day == day))
        _live_a_day(state, population, day, present | (population.signup_day == day), scenario)
    subscriptions.subscribed = population.signup_day < 0
    return state, subscriptions


def assess(state: State, subscriptions: Subscriptions, population: Population, day: int, scenario: Scenario) -> Risks:
    """The day's hazards, from what happened before it."""
    churn = churn_hazard(state, population, day, scenario)
    return Risks(subscriptions.subscribed.copy(), churn, upgrade_hazard(state, day, scenario))


def play_day(
    state: State, subscriptions: Subscriptions, population: Population, day: int, risks: Risks, scenario: Scenario
) -> Batch:
    """Everything that happens on one local day; changes the state and the subscriptions."""
    seed, users = scenario.seed, len(population)
    rng = stream(seed, "hazards", day)
    leaves = risks.exposed & (rng.random(users) < risks.churn)
    moves = risks.exposed & ~leaves & (rng.random(users) < risks.upgrade)
    position = rng.random(users)
    cancelled = play_cancellations(subscriptions, state, population, day, (leaves, position), scenario)
    upgraded = play_upgrades(subscriptions, state, population, day, (moves, position), scenario)
    arriving = population.signup_day == day
    subscriptions.subscribed |= arriving
    forget(state, arriving)
    signed_up = play_signups(np.flatnonzero(arriving), population, scenario)
    activity = _live_a_day(state, population, day, subscriptions.subscribed, scenario)
    receiving = subscriptions.subscribed & ~arriving
    return join_batches(
        [
            signed_up,
            upgraded,
            *play_sessions(activity, state, population, day, stream(seed, "sessions", day), scenario),
            *play_messages(receiving, state, population, day, stream(seed, "messages", day), scenario),
            *play_payments(subscriptions, state, population, day, stream(seed, "billing", day), scenario),
            cancelled,
        ]
    )


def _live_a_day(state: State, population: Population, day: int, present: Flags, scenario: Scenario) -> Activity:
    """Mood, then the counts of those present, then memory."""
    rng = stream(scenario.seed, "mood", day)
    change_mood(state, population, rng, scenario.world)
    drawn = draw_activity(state, population, day, rng, scenario)
    activity = Activity(drawn.sessions * present, drawn.shown * present, drawn.clicked * present)
    remember(state, activity, day)
    return activity
