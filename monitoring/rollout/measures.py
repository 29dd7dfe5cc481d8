"""What each gate measures: bets on harm, the size of the harm, and how large it may still be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from monitoring.rollout.evidence import SLICES, Evidence, Tally
from monitoring.rollout.features_gate import KINDS, find_drifts
from monitoring.rollout.histograms import MISSING
from monitoring.rollout.outcomes import SUMS
from monitoring.rollout.sequential import (
    HARMS,
    SHIFTS,
    SPREADS,
    Floats,
    bound,
    log_wealth,
    log_wealth_any_shape,
    mix,
    rank_ratios,
)

PROOF_LEVEL: Final = 0.05
"""The chance that a "bound" proof passes a canary that is worse than the tolerance."""
ASYMPTOTIC_USERS: Final = 100
"""Canary users below which an asymptotic bound is not trusted to find harm."""
TUNED_FOR_USERS: Final = 500
"""Canary users at which bounds are tightest."""


@dataclass(frozen=True)
class Reading:
    """One look of a gate at one thing: log wealth of the bet on harm, what it needs, and the effect's estimate.

    Of several that fail, the lowest ``order`` is told: it explains the others.
    """

    what: str
    log_wealth: float
    log_needed: float
    effect: float
    order: int = 0


@dataclass(frozen=True)
class Measurement:
    """All that a gate saw. ``upper`` is how large the effect may still be, NaN if the gate has no such bound."""

    users: int
    readings: Sequence[Reading]
    upper: float = math.nan


def measure_errors(evidence: Evidence, price: float, needed: float) -> Measurement:
    return measure_event(evidence, price, needed, "errors")


def measure_degraded(evidence: Evidence, price: float, needed: float) -> Measurement:
    return measure_event(evidence, price, needed, "degraded")


def measure_latency(evidence: Evidence, price: float, needed: float) -> Measurement:
    """Half the stake on users who meet a slow answer, half on the ranks of first latencies having risen."""
    tally = evidence.tallies["latency"]
    users = int(evidence.moment("timed")[1])
    if not evidence.firsts.ready:
        return Measurement(users, [Reading("", 0.0, needed, 0.0)])
    shares = _shares_without_missing(evidence.firsts.shares[1:2])
    rises = rank_ratios(shares, SHIFTS[SHIFTS > 0], np.zeros(0))
    readings = []
    for index, what, cost in _slices(evidence):
        events = _event_wealth(tally, index, price)
        ranks = mix(log_wealth(_values(evidence, index, 1), rises[0], price))
        both = float(np.logaddexp(events, ranks)) - math.log(2)
        readings.append(Reading(what, both, needed + cost, _rate_effect(evidence, tally, index), index))
    return Measurement(users, readings, _upper_share(evidence, "latency", "timed"))


def measure_event(evidence: Evidence, price: float, needed: float, name: str) -> Measurement:
    tally = evidence.tallies[name]
    readings = [
        Reading(what, _event_wealth(tally, index, price), needed + cost, _rate_effect(evidence, tally, index), index)
        for index, what, cost in _slices(evidence)
    ]
    return Measurement(int(evidence.moment("users")[1]), readings, _upper_share(evidence, name, "users"))


def _event_wealth(tally: Tally, index: int, price: float) -> float:
    """Each user's first event: given that it happened, was the user on the canary more often than the price says?"""
    return float(mix(log_wealth(tally.users[index][:, None], HARMS[:, None], price)))


def _rate_effect(evidence: Evidence, tally: Tally, index: int) -> float:
    """Canary's share of requests less stable's: over the stage, or lately if that is more."""
    rates = tally.events[index] / np.maximum(evidence.requests[index], 1)
    effect = float(rates[1] - rates[0])
    if index == 0 and evidence.recent.min() > 0:
        recent = tally.recent / evidence.recent
        effect = max(effect, float(recent[1] - recent[0]))
    return effect


def _upper_share(evidence: Evidence, name: str, of: str) -> float:
    """How much larger the canary's share of first requests may be; half an event is added to each revision's."""
    users = evidence.moment(of)
    shares = (evidence.moment(name) + 0.5) / (users + 1)
    return _upper_difference(shares, shares * (1 - shares), users)


def _upper_difference(means: Floats, variances: Floats, users: Floats) -> float:
    """Upper bound on canary's mean less stable's.

    Each user is one draw of the pseudo-outcome mean1 - mean0 + A (x - mean1) / p - (1 - A)(x - mean0) / (1 - p) (Waudby-Smith
    et al. 2024, section 3), whose variance is n (v1 / n1 + v0 / n0) of n = n0 + n1 users.
    """
    if users.min() < 2:
        return math.nan
    count = float(users.sum())
    variance = count * float((variances / users).sum())
    return float(means[1] - means[0]) + bound(variance, count, PROOF_LEVEL, tuned_for=_count_for_tuning(users))


def _count_for_tuning(users: Floats) -> float:
    """Users of both revisions when the canary has ``TUNED_FOR_USERS``."""
    return TUNED_FOR_USERS * float(users.sum() / users[1])


def measure_score(evidence: Evidence, price: float, needed: float) -> Measurement:
    """Any change of the distribution, mean and shape: half the stake on ranks, half on any difference between bins."""
    users = int(evidence.moment("scored")[1])
    if not evidence.firsts.ready:
        return Measurement(users, [Reading("", 0.0, needed, 0.0)])
    ratios = rank_ratios(_shares_without_missing(evidence.firsts.shares[0:1]), SHIFTS, SPREADS)[0]
    readings = []
    for index, what, cost in _slices(evidence):
        counts = _values(evidence, index, 0)
        wealth = np.logaddexp(mix(log_wealth(counts, ratios, price)), log_wealth_any_shape(counts, price)) - math.log(2)
        readings.append(Reading(what, float(wealth), needed + cost, distance(counts), index))
    return Measurement(users, readings)


def distance(counts: npt.NDArray[np.int64]) -> float:
    """Largest difference in the share of any bin or of any range of lowest bins: counts (2, K) of stable and canary."""
    shares = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    apart = shares[1] - shares[0]
    return float(max(np.abs(apart).max(), np.abs(np.cumsum(apart)).max())) if counts.sum(axis=-1).min() else 0.0


def measure_features(evidence: Evidence, price: float, needed: float) -> Measurement:
    rows = evidence.rows
    if not rows.names or not rows.ready:
        return Measurement(rows.users(1), [Reading("", 0.0, needed, 0.0)])
    readings = [
        Reading(f"{drift.feature} {drift.kind}", drift.log_wealth, drift.log_needed, drift.effect, KINDS.index(drift.kind))
        for drift in find_drifts(rows, price, needed)
    ]
    return Measurement(rows.users(1), readings)


def measure_labels(evidence: Evidence, _price: float, needed: float) -> Measurement:
    """Harm is a larger log loss, or a larger bias, than stable's."""
    sums = evidence.outcomes.sums
    users = sums[:, 0]
    means = sums[:, 1:] / np.maximum(users, 1)[:, None]
    loss, bias = means[:, SUMS.index("loss") - 1], np.abs(means[:, SUMS.index("bias") - 1])
    effects = {"log loss": float(loss[1] - loss[0]), "bias": float(bias[1] - bias[0])}
    wealth = float(mix(evidence.outcomes.wealth)) if users.min() else 0.0
    readings = [Reading(what, wealth, needed, effect) for what, effect in effects.items()]
    return Measurement(int(users[1]), readings, _upper_difference(loss, means[:, 1] - loss**2, users))


def measure_estimate(evidence: Evidence, _price: float, needed: float) -> Measurement:
    """The log loss that scores expect of themselves: a confidence-based estimate, true as far as scores are calibrated.

    No bet: it fails when even the lower bound of the difference is positive, at the level that a bet would have.
    """
    users = evidence.moment("scored")
    means = evidence.moment("surprise") / np.maximum(users, 1)
    variances = evidence.moment("surprise_squared") / np.maximum(users, 1) - means**2
    upper = _upper_difference(means, variances, users)
    effect = float(means[1] - means[0])
    if users[1] < ASYMPTOTIC_USERS:
        return Measurement(int(users[1]), [Reading("expected log loss", 0.0, needed, 0.0)], upper)
    count = float(users.sum())
    width = bound(count * float((variances / users).sum()), count, math.exp(-needed), _count_for_tuning(users))
    return Measurement(int(users[1]), [Reading("expected log loss", needed if effect > width else 0.0, needed, effect)], upper)


def _slices(evidence: Evidence) -> list[tuple[int, str, float]]:
    """Index, name and cost in log wealth of everybody (half the level) and of each slice seen (an even part of the rest)."""
    cost = math.log(2)
    seen = np.flatnonzero(evidence.requests.sum(axis=1) > 0)
    return [(0, "", cost), *((int(index), f"slice {index}", cost + math.log(SLICES - 1)) for index in seen if index)]


def _values(evidence: Evidence, index: int, column: int) -> npt.NDArray[np.int64]:
    """Counts (2, 14) of one slice and column of first requests, without failed ones: these are the errors gate's."""
    counts: npt.NDArray[np.int64] = evidence.firsts.counts[index, column].copy()
    counts[:, MISSING] = 0
    return counts


def _shares_without_missing(shares: Floats) -> Floats:
    shares = shares.copy()
    shares[:, MISSING] = 0.0
    return np.asarray(shares / np.maximum(shares.sum(axis=-1, keepdims=True), 1e-12))


MEASURERS: Final[dict[str, Callable[[Evidence, float, float], Measurement]]] = {
    "errors": measure_errors,
    "latency": measure_latency,
    "degraded": measure_degraded,
    "score": measure_score,
    "features": measure_features,
    "labels": measure_labels,
    "estimate": measure_estimate,
}
"""By a gate's kind: evidence, the price of bets and the log wealth that the gate needs, to what it saw."""
