"""What a scheduler asks of a distribution over hours of the week: which slots, when they begin, and what is gained by waiting.

The gain of a slot over the present one is the ratio of their probabilities less 1: 0.5 says that half as many more responses
come if it is sent then. Its 95 % interval takes the two probabilities for those of a Dirichlet distribution with as many events
behind them as ``evidence`` says, whose log ratio has the variance psi'(a) + psi'(b), and adds the variance of not knowing at
which hours the user's days lie: without data that is how much people differ.

A local hour that the clock skips begins where it leaps, and one that comes twice at its first time (RFC 5545, section 3.3.5).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import tensorflow as tf

from features.layout import HOUR_S, WEEK_S
from features.slots import BEST, SLOTS

INTERVAL: Final = 1.959964

MOST_REACH: Final = math.log(1e6)
"""An interval ends at a millionth and a million times the ratio: next to no evidence would make it infinite."""

Vary = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

_TIE: Final = 1e5
"""Probabilities that agree to 1 in this many count as equal, and the earlier slot of the week comes first: the last bits of a
matrix product hang on the batch, and batch and server must choose alike."""


def plan_slots(
    preference: tf.Tensor, evidence: tf.Tensor, clock: tf.Tensor, own: tf.Tensor, vary: Vary
) -> tuple[tf.Tensor, tf.Tensor]:  # fmt: skip
    """The score and the facts of n users.

    Args:
        preference: (n, 168) distributions.
        evidence: (n, 168) events behind each probability.
        clock: (n, 3) ``features.zones.CLOCK_FEATURES`` of ``now``.
        own: (n, 3) ``OWN_FACTS``.
        vary: further variance (n, k) of the log ratio of the rates at two slots, int32 (n, k).
    Returns:
        ``score`` (n, 1): the share of responses that sending now rather than at the best slot would lose, within [0, 1).
        ``facts`` (n, F).
    """
    now = tf.cast(tf.clip_by_value(tf.math.floordiv(clock[:, :1], HOUR_S), 0, SLOTS - 1), tf.int32)
    best = tf.math.top_k(tf.round(tf.math.log(preference) * _TIE), BEST).indices
    at_best, at_now = (tf.gather(preference, slot, batch_dims=1) for slot in (best, now))
    ratio = at_best / at_now
    variance = tf.add(*(tf.math.polygamma(1.0, tf.gather(evidence, slot, batch_dims=1)) for slot in (best, now)))
    variance += vary(best, tf.repeat(now, BEST, axis=1))
    reach = tf.minimum(INTERVAL * tf.sqrt(variance), MOST_REACH)
    reach = tf.where(tf.equal(best, now), tf.zeros_like(reach), reach)
    facts = [
        tf.cast(now, tf.float32), own, tf.cast(best, tf.float32), wait_until(best, clock),
        ratio - 1, ratio * tf.exp(-reach) - 1, ratio * tf.exp(reach) - 1,
    ]  # fmt: skip
    score = 1 - tf.minimum(at_now / at_best[:, :1], 1.0)
    return score, tf.concat(facts, axis=1)


def wait_until(slots: tf.Tensor, clock: tf.Tensor) -> tf.Tensor:
    """float32 (n, k): seconds from now until each slot int32 (n, k) next begins by the local clock; 0 within it."""
    week_s, change_in_s, change_s = (clock[:, place : place + 1] for place in range(3))
    by_clock_s = tf.math.floormod(tf.cast(slots, tf.float32) * HOUR_S - week_s, float(WEEK_S))
    wait_s = tf.where(by_clock_s < change_in_s, by_clock_s, tf.maximum(by_clock_s - change_s, change_in_s))
    within = tf.equal(tf.cast(slots, tf.float32), tf.math.floordiv(week_s, HOUR_S))
    return tf.where(within, tf.zeros_like(wait_s), wait_s)
