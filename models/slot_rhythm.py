"""Everybody's week has one shape, but lies at another hour: what a few actions say of the whole week.

A user's chance to act on an occasion at hour h of a day is a * d * g[h - c], with g (24,) the shape of a day, the same for
all; d a factor of the day of the week; c the hour at which her day lies, one on working days and another one at the weekend;
and a, how readily she acts. With m occasions and o actions by hour of the week, o ~ Poisson(m a d g), a ~ Gamma(r, r):

    P(c, c' | o, m)  proportional to  P(c) P(c' - c) * prod g^o / (r + sum m d g)^(O + r),  O being the sum of o
    E[a | c, c', o, m] = (O + r) / (r + sum m d g)

so occasions that were let pass count as those that were taken do, hours without occasions say nothing, and nothing is
weighted by an inverse propensity. g, d, r and the shares of hours P(c) and of shifts P(c' - c) are fitted to everybody's
counts by expectation maximisation.

Source: Dempster, Laird and Rubin, Maximum likelihood from incomplete data via the EM algorithm, 1977; McLachlan and Peel,
Finite mixture models, 2000, chapter 5 (gamma-Poisson).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import tensorflow as tf

from models.frame import Floats, Matrix

HOURS: Final = 24
DAYS: Final = 7
WORKING_DAYS: Final = 5
STEPS: Final = 40
MOST_USERS: Final = 5_000
TOLERANCE: Final = 1e-3
"""Steps end when no hour of the shape moves by more than this part of the greatest."""
AT_ONCE: Final = 2_048
PSEUDO_EVENTS: Final = 2.0
"""Actions at the mean rate that are added to each hour of the shape, and to each share."""
SPREAD_BOUNDS: Final = (0.05, 100.0)


@dataclass(frozen=True)
class Rhythm:
    """What is common to all; the names are those of the module's formulas.

    Attributes:
        shape: (24,) g.
        centres: (24,) P(c).
        shifts: (24,) P(c' - c), hours later at the weekend.
        days: (7,) d.
        spread: () r.
    """

    shape: Floats
    centres: Floats
    shifts: Floats
    days: Floats
    spread: float


class Placed(NamedTuple):
    """What is believed of n users' hours.

    Attributes:
        hours: (n, 24, 24) P(c, c').
        readiness: (n, 24, 24) E[a | c, c'].
    """

    hours: tf.Tensor
    readiness: tf.Tensor


class Common(NamedTuple):
    """``Rhythm`` as tensors."""

    shape: tf.Tensor
    centres: tf.Tensor
    shifts: tf.Tensor
    days: tf.Tensor
    spread: tf.Tensor


def place_users(common: Common, acts: tf.Tensor, occasions: tf.Tensor) -> Placed:
    """The posterior of users with actions and occasions (n, 168)."""
    shapes = day_shapes(common.shape)
    logs = tf.math.log(shapes)
    working, weekend = _split(acts)
    likely = tf.matmul(working, logs, transpose_b=True)[:, :, None] + tf.matmul(weekend, logs, transpose_b=True)[:, None, :]
    working, weekend = _split(occasions * tf.repeat(common.days, HOURS)[None, :])
    expected = (
        common.spread
        + tf.matmul(working, shapes, transpose_b=True)[:, :, None]
        + tf.matmul(weekend, shapes, transpose_b=True)[:, None, :]
    )
    total = tf.reduce_sum(acts, axis=1)[:, None, None] + common.spread
    prior = tf.math.log(common.centres)[:, None] + tf.math.log(tf.gather(common.shifts, _differences()))
    logits = tf.reshape(likely - total * tf.math.log(expected) + prior, [-1, HOURS * HOURS])
    return Placed(tf.reshape(tf.nn.softmax(logits), [-1, HOURS, HOURS]), total / expected)


def expect_week(common: Common, placed: Placed) -> tf.Tensor:
    """(n, 168) distributions: the expected chance to act by hour of the week, summing to 1."""
    ready, shapes = placed.hours * placed.readiness, day_shapes(common.shape)
    working, weekend = (tf.matmul(tf.reduce_sum(ready, axis=axis), shapes) for axis in (2, 1))
    week = tf.concat([*[working] * WORKING_DAYS, *[weekend] * (DAYS - WORKING_DAYS)], axis=1)
    week *= tf.repeat(common.days, HOURS)[None, :]
    return week / tf.reduce_sum(week, axis=1, keepdims=True)


def vary_ratio(common: Common, placed: Placed, one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """(n, k): variance over P(c, c') of the log ratio of the rates at slots ``one`` and ``other``, both int32 (n, k)."""
    logs = tf.transpose(tf.math.log(day_shapes(common.shape)))
    difference = [
        tf.gather(logs, slot % HOURS) * tf.cast((slot // HOURS < WORKING_DAYS) == working, tf.float32)[:, :, None] * sign
        for working in (True, False)
        for slot, sign in ((one, 1.0), (other, -1.0))
    ]
    working, weekend = difference[0] + difference[1], difference[2] + difference[3]
    marginals = [tf.reduce_sum(placed.hours, axis=axis) for axis in (2, 1)]
    parts = list(zip(marginals, (working, weekend), strict=True))
    mean = tf.add_n([tf.einsum("nc,nkc->nk", share, logs) for share, logs in parts])
    square = tf.add_n([tf.einsum("nc,nkc->nk", share, logs * logs) for share, logs in parts])
    both = tf.reduce_sum(tf.matmul(working, placed.hours) * weekend, axis=2)
    return tf.maximum(square + 2 * both - tf.square(mean), 0.0)


def moved_from_prior(common: Common, placed: Placed) -> tf.Tensor:
    """(n, 1): how far P(c, c') of users lies from everybody's, as total variation: 0 without data, at most 1."""
    apart = tf.abs(placed.hours - (common.centres[:, None] * tf.gather(common.shifts, _differences()))[None])
    return tf.reduce_sum(apart, axis=(1, 2))[:, None] / 2


def day_shapes(shape: tf.Tensor) -> tf.Tensor:
    """(24, 24): row c is the day of a user whose day lies at hour c."""
    return tf.gather(shape, _differences())


def fit_rhythm(acts: Matrix, occasions: Matrix, *, seed: int) -> Rhythm:
    """The likeliest shape of a day, of at most ``MOST_USERS`` users with actions.

    Args:
        acts, occasions: (n, 168) counts of each user.
    """
    acted = np.flatnonzero(acts.sum(axis=1) > 0)
    if len(acted) > MOST_USERS:
        acted = np.sort(np.random.default_rng(seed).choice(acted, MOST_USERS, replace=False))
    shape = 0.1 + np.exp(3 * (np.cos(2 * np.pi * np.arange(HOURS) / HOURS) - 1))
    if not len(acted):
        return Rhythm(np.ones(HOURS), np.full(HOURS, 1 / HOURS), np.full(HOURS, 1 / HOURS), np.ones(DAYS), 1.0)
    done, had = acts[acted].astype(np.float64), occasions[acted].astype(np.float64)
    rate = done.sum() / max(had.sum(), 1.0)
    shifts = np.full(HOURS, 0.5 / (HOURS - 1))
    shifts[0] = 0.5
    found = Rhythm(shape / shape.mean() * rate, np.full(HOURS, 1 / HOURS), shifts, np.ones(DAYS), 3.0)
    for _ in range(STEPS):
        before, found = found, _improve(found, done, had)
        if np.abs(found.shape - before.shape).max() < TOLERANCE * found.shape.max():
            break
    return found


def as_tensors(rhythm: Rhythm) -> Common:
    """float32 tensors."""
    return Common(*(tf.constant(value, tf.float32) for value in vars(rhythm).values()))


@dataclass
class _Sums:
    """What a step sums over users."""

    hours: Floats
    acts: Floats
    expected: Floats
    readiness: float
    square: float


def _improve(rhythm: Rhythm, acts: Floats, occasions: Floats) -> Rhythm:
    """One step of expectation maximisation."""
    by_day = (DAYS, HOURS, HOURS)
    sums = _Sums(np.zeros((HOURS, HOURS)), np.zeros(by_day), np.zeros(by_day), 0.0, 0.0)
    for start in range(0, len(acts), AT_ONCE):
        _gather(sums, rhythm, acts[start : start + AT_ONCE], occasions[start : start + AT_ONCE])
    # By day, hour since the centre: a working day and one at the weekend tell the same shape.
    done, expected = (np.einsum("dch,chs->ds", part, _since_centre()) for part in (sums.acts, sums.expected))
    weighted = rhythm.days[:, None] * expected
    mean = done.sum() / weighted.sum()
    shape = (done.sum(axis=0) + PSEUDO_EVENTS) / (weighted.sum(axis=0) + PSEUDO_EVENTS / mean)
    daily = expected @ shape
    days = (done.sum(axis=1) + PSEUDO_EVENTS) / (daily + PSEUDO_EVENTS * daily.sum() / done.sum())
    users = len(acts)
    readiness = sums.readiness / users
    variance = max(sums.square / users - readiness**2, 1e-3)
    shifts = np.einsum("cw,cws->s", sums.hours, _since_centre())
    return Rhythm(
        shape=shape * readiness * days.mean(),
        centres=(sums.hours.sum(axis=1) + PSEUDO_EVENTS) / (users + HOURS * PSEUDO_EVENTS),
        shifts=(shifts + PSEUDO_EVENTS) / (users + HOURS * PSEUDO_EVENTS),
        days=days / days.mean(),
        spread=float(np.clip(readiness**2 / variance, *SPREAD_BOUNDS)),
    )


def _gather(sums: _Sums, rhythm: Rhythm, acts: Floats, occasions: Floats) -> None:
    placed = place_users(as_tensors(rhythm), tf.constant(acts, tf.float32), tf.constant(occasions, tf.float32))
    hours, readiness = (part.numpy().astype(np.float64) for part in placed)
    ready = hours * readiness
    total = (acts.sum(axis=1) + rhythm.spread)[:, None, None]
    sums.hours += hours.sum(axis=0)
    sums.readiness += float(ready.sum())
    # E[a^2] of a gamma distribution with this mean and shape O + r.
    sums.square += float((ready * readiness * (1 + 1 / total)).sum())
    for day in range(DAYS):
        axis = 2 if day < WORKING_DAYS else 1
        span = slice(day * HOURS, (day + 1) * HOURS)
        sums.acts[day] += hours.sum(axis=axis).T @ acts[:, span]
        sums.expected[day] += ready.sum(axis=axis).T @ occasions[:, span]


def _split(counts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(n, 24) of working days and of the weekend."""
    by_day = tf.reshape(counts, [-1, DAYS, HOURS])
    return tf.reduce_sum(by_day[:, :WORKING_DAYS], axis=1), tf.reduce_sum(by_day[:, WORKING_DAYS:], axis=1)


def _differences() -> tf.Tensor:
    """(24, 24): hours from row to column, around the clock."""
    hours = np.arange(HOURS)
    return tf.constant((hours[None, :] - hours[:, None]) % HOURS, tf.int32)


def _since_centre() -> Floats:
    """(24, 24, 24): 1 where the third is the hours from the first to the second."""
    hours = np.arange(HOURS)
    since: Floats = (((hours[None, :] - hours[:, None]) % HOURS)[:, :, None] == hours).astype(np.float64)
    return since
