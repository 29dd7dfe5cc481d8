"""How events reach the log: delays, late, skewed and future-dated clocks, duplicates, and labels that take days.

An event that truly happened at T is ingested at T + delay. Its event_time is T, except where the sender's clock runs
ahead: then event_time = ingest_time + up to 290 s (permitted) or + 310 s to 6 h (future-dated, to be dead-lettered).
A duplicate repeats every column but ingest_time, which is later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from features.layout import US_PER_S
from simulation.batch import EVENT_TYPE_CODES, Batch
from simulation.population import Flags, Floats, Ints
from simulation.scenario import World

ON_TIME, LATE, SKEWED, FUTURE, LABEL, BACKFILLED = range(6)
DELIVERY_NAMES: Final = ("on_time", "late", "skewed", "future", "label", "backfilled")


@dataclass(frozen=True)
class Delivered:
    """Events with their place in time as the log sees them; one entry a row to write, duplicates included.

    ``number`` identifies the event (equal for duplicates), ``row`` is its index in the batch, ``how`` one of
    ``DELIVERY_NAMES`` by position.
    """

    number: Ints
    row: Ints
    event_us: Ints
    ingest_us: Ints
    how: Ints
    duplicate: Flags


def deliver(batch: Batch, first_number: int, rng: np.random.Generator, world: World) -> Delivered:
    """Give each event of the batch its event_time, its ingest_time and perhaps a duplicate."""
    how = _draw_kinds(batch, rng, world)
    delay_us = (_draw_delays_s(how, rng, world) * US_PER_S).astype(np.int64)
    ingest_us = batch.time_us + delay_us
    ahead_us = (_draw_ahead_s(how, rng, world) * US_PER_S).astype(np.int64)
    event_us = np.where(ahead_us > 0, ingest_us + ahead_us, batch.time_us)
    rows = np.arange(len(batch))
    again = np.flatnonzero(rng.random(len(batch)) < world.duplicate_share)
    gap_us = 1 + (_draw_gaps_s(len(again), rng, world) * US_PER_S).astype(np.int64)
    row = np.concatenate([rows, again])
    return Delivered(
        number=first_number + row,
        row=row,
        event_us=event_us[row],
        ingest_us=np.concatenate([ingest_us, ingest_us[again] + gap_us]),
        how=how[row],
        duplicate=np.arange(len(row)) >= len(batch),
    )


def deliver_history(batch: Batch, first_number: int, opened_us: int, rng: np.random.Generator) -> Delivered:
    """Events from before the log began: ingested in its first hour, once."""
    rows = np.arange(len(batch))
    ingest_us = opened_us + rng.integers(0, 3_600 * US_PER_S, len(batch))
    how = np.full(len(batch), BACKFILLED)
    return Delivered(first_number + rows, rows, batch.time_us, ingest_us, how, np.zeros(len(batch), dtype=np.bool_))


def _draw_kinds(batch: Batch, rng: np.random.Generator, world: World) -> Ints:
    """Cancellations are labels, whose delay is their own; every other event draws its kind."""
    shares = np.array([world.late_share, world.skewed_share, world.future_share])
    kind = np.searchsorted(np.cumsum(shares), rng.random(len(batch)), side="right")
    how = np.array([LATE, SKEWED, FUTURE, ON_TIME])[kind]
    return np.where(batch.event_type == EVENT_TYPE_CODES["cancellation"], LABEL, how)


def _draw_delays_s(how: Ints, rng: np.random.Generator, world: World) -> Floats:
    rows = len(how)
    base = world.delay_median_s * np.exp(world.delay_sigma * rng.standard_normal(rows))
    late = world.late_min_s * (world.late_max_s / world.late_min_s) ** rng.random(rows)
    label = np.zeros(rows)
    labels = how == LABEL
    label[labels] = rng.gamma(world.label_delay_shape, world.label_delay_scale_s, int(labels.sum()))
    return np.select([how == LATE, labels], [late, label], base)


def _draw_ahead_s(how: Ints, rng: np.random.Generator, world: World) -> Floats:
    """How far the sender's clock runs ahead; skews are at least a second, so that 0 means a right clock."""
    position = rng.random(len(how))
    skewed = 1 + (world.skew_max_s - 1) * position
    future = world.future_min_s + (world.future_max_s - world.future_min_s) * position
    return np.select([how == SKEWED, how == FUTURE], [skewed, future], 0.0)


def _draw_gaps_s(rows: int, rng: np.random.Generator, world: World) -> Floats:
    short = rng.exponential(world.duplicate_short_mean_s, rows)
    long = world.duplicate_long_min_s * (world.duplicate_long_max_s / world.duplicate_long_min_s) ** rng.random(rows)
    return np.where(rng.random(rows) < world.duplicate_long_share, long, short)
