"""Messages of a day: when they are sent, and whether the user opens them at that hour.

P(open) = open_share[channel] * openness[user] * (floor + (1 - floor) * exp(-(d / width)^2 / 2)), d being the circular
distance in hours between the local hour of sending and the middle of the user's best hour; less in a quiet stretch.
"""

from __future__ import annotations

import numpy as np

from features.layout import US_PER_S
from simulation.batch import Batch, join_batches, local_time_us, make_batch
from simulation.behaviour import State
from simulation.population import Flags, Floats, Ints, Population
from simulation.scenario import Scenario, World

MAX_OPEN_DELAY_S = 3 * 3_600.0


def play_messages(
    receiving: Flags, state: State, population: Population, day: int, rng: np.random.Generator, scenario: Scenario
) -> list[Batch]:
    """The day's events ``message_sent`` and ``message_opened`` for the users of the mask ``receiving``."""
    world = scenario.world
    sent, opened = [], []
    hour_weights = sending_hour_weights(scenario)
    for channel, share in enumerate(world.send_shares):
        users = np.flatnonzero(receiving & (rng.random(len(population)) < share))
        hours = rng.choice(24, size=len(users), p=hour_weights) + rng.random(len(users))
        time_us = local_time_us(scenario, population, day, users, hours * 3_600)
        codes = np.full(len(users), channel)
        offset = population.utc_offset_minutes[users]
        sent.append(make_batch("message_sent", users, time_us, channel=codes, utc_offset_minutes=offset))
        chance = world.open_shares[channel] * open_chance(population, state, users, scenario.weekday(day), hours, world)
        opens = rng.random(len(users)) < chance
        delay_s = np.minimum(rng.exponential(world.open_delay_mean_s, len(users)), MAX_OPEN_DELAY_S)
        open_us = time_us + 1_000_000 + (delay_s * US_PER_S).astype(np.int64)
        values = {"channel": codes[opens], "utc_offset_minutes": offset[opens]}
        opened.append(make_batch("message_opened", users[opens], open_us[opens], **values))
    return [join_batches(sent), join_batches(opened)]


def open_chance(population: Population, state: State, users: Ints, weekday: int, hours: Floats, world: World) -> Floats:
    """The chance of opening at a local hour of day (a fraction), before the channel's own share."""
    distance = np.abs(hours - population.best_hour(users, weekday) - 0.5)
    distance = np.minimum(distance, 24 - distance)
    closeness = np.exp(-0.5 * (distance / world.open_width_hours) ** 2)
    mood = np.where(state.quiet[users], world.quiet_open_factor, 1.0)
    return np.asarray(population.openness[users] * mood * (world.open_floor + (1 - world.open_floor) * closeness))


def sending_hour_weights(scenario: Scenario) -> Floats:
    """Share of messages sent in each local hour, shape [24]."""
    weights = np.ones(24)
    if scenario.sending_hours == "biased":
        weights[list(scenario.world.biased_hours)] = scenario.world.biased_weight
    shares: Floats = weights / weights.sum()
    return shares
