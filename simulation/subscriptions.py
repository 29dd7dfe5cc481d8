"""A subscription's course: signup, upgrades, payments, refunds, cancellation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.layout import DAY_S, US_PER_S
from simulation.batch import Batch, local_time_us, make_batch
from simulation.behaviour import State
from simulation.population import Flags, Floats, Ints, Population
from simulation.scenario import Scenario

NEVER_DAY = 1_000_000
NEVER_US = -1


@dataclass
class Subscriptions:
    """Where each user's subscription stands.

    ``paid_since_day`` starts the billing cycle. ``cancel_us`` and ``upgrade_us`` (first upgrade) are UTC microseconds,
    ``NEVER_US`` where it has not happened; the days are local days, ``NEVER_DAY`` likewise.
    """

    subscribed: Flags
    paid_since_day: Ints
    cancel_day: Ints
    cancel_us: Ints
    upgrade_day: Ints
    upgrade_us: Ints


def open_subscriptions(population: Population) -> Subscriptions:
    """Nobody is subscribed yet."""
    users = len(population)
    return Subscriptions(
        subscribed=np.zeros(users, dtype=np.bool_),
        paid_since_day=np.where(population.signup_plan > 0, population.signup_day, NEVER_DAY),
        cancel_day=np.full(users, NEVER_DAY),
        cancel_us=np.full(users, NEVER_US),
        upgrade_day=np.full(users, NEVER_DAY),
        upgrade_us=np.full(users, NEVER_US),
    )


def signup_times_us(scenario: Scenario, population: Population) -> Ints:
    """When each user signed up or will, UTC microseconds."""
    local_us = (population.signup_day * DAY_S + population.signup_second) * US_PER_S
    return scenario.start_us + local_us - population.utc_offset_minutes * 60 * US_PER_S


def play_signups(who: Ints, population: Population, scenario: Scenario) -> Batch:
    """``signup`` of these users, on whichever day it was."""
    time_us = signup_times_us(scenario, population)[who]
    return make_batch("signup", who, time_us, plan=population.signup_plan[who], platform=population.platform[who])


def play_cancellations(
    subscriptions: Subscriptions,
    state: State,
    population: Population,
    day: int,
    leaving: tuple[Flags, Floats],
    scenario: Scenario,
) -> Batch:
    """``cancellation`` of the users who leave on this local day, at a second of it in 6:00 to 24:00; ends them."""
    leaves, position = leaving
    users = np.flatnonzero(leaves)
    second = 6 * 3_600 + position[users] * (DAY_S - 6 * 3_600)
    time_us = local_time_us(scenario, population, day, users, second)
    subscriptions.subscribed[users] = False
    subscriptions.cancel_day[users] = day
    subscriptions.cancel_us[users] = time_us
    return make_batch("cancellation", users, time_us, plan=state.plan[users])


def play_upgrades(
    subscriptions: Subscriptions,
    state: State,
    population: Population,
    day: int,
    moving: tuple[Flags, Floats],
    scenario: Scenario,
) -> Batch:
    """``upgrade`` one plan up, charged at once; the billing cycle starts again."""
    world = scenario.world
    moves, position = moving
    users = np.flatnonzero(moves)
    time_us = local_time_us(scenario, population, day, users, position[users] * DAY_S)
    state.plan[users] += 1
    first = users[subscriptions.upgrade_day[users] == NEVER_DAY]
    subscriptions.upgrade_us[first] = time_us[subscriptions.upgrade_day[users] == NEVER_DAY]
    subscriptions.upgrade_day[first] = day
    subscriptions.paid_since_day[users] = day
    price = np.asarray(world.price_cents)[state.plan[users]]
    return make_batch("upgrade", users, time_us, plan=state.plan[users], amount_cents=price)


def play_payments(
    subscriptions: Subscriptions, state: State, population: Population, day: int, rng: np.random.Generator, scenario: Scenario
) -> list[Batch]:
    """The day's events ``payment`` (every 30 days of a paid plan) and the ``refund`` of some, 1 to 5 days later.

    A refund may come after the cancellation: it is the company's act.
    """
    world = scenario.world
    paid_days = day - subscriptions.paid_since_day
    due = subscriptions.subscribed & (paid_days >= 0) & (paid_days % world.billing_days == 0)
    due &= (paid_days > 0) | (subscriptions.upgrade_day == NEVER_DAY)
    users = np.flatnonzero(due & (state.plan > 0))
    price = np.asarray(world.price_cents)[state.plan[users]]
    time_us = local_time_us(scenario, population, day, users, rng.random(len(users)) * DAY_S)
    refunded = rng.random(len(users)) < world.refund_share
    wait_us = ((1 + 4 * rng.random(len(users))) * DAY_S * US_PER_S).astype(np.int64)
    return [
        make_batch("payment", users, time_us, amount_cents=price),
        make_batch("refund", users[refunded], (time_us + wait_us)[refunded], amount_cents=-price[refunded]),
    ]
