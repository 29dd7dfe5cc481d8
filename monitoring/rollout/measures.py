"""What each gate measures: bets on harm, the size of the harm, and how large it may still be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from monitoring.rollout.evidence import LASTING, Evidence, Tally
from monitoring.rollout.features_gate import KINDS, find_drifts
from monitoring.rollout.histograms import MAX_SLICES, MISSING, Histograms
from monitoring.rollout.outcomes import SUMS, label_ratios
from monitoring.rollout.sequential import (
    HARMS,
    SHIFTS,
    SPREADS,
    Floats,
    bound,
    log_threshold,
    log_wealth,
    log_wealth_any_shape,
    mix,
    rank_ratios,
)
from monitoring.rollout.spans import log_wealth_spans

Counts = npt.NDArray[np.int64]
_Number = TypeVar("_Number", np.int64, np.float64)

PROOF_LEVEL: Final = 0.05
"""The chance that a "bound" proof passes a canary that is worse than the tolerance."""
LASTING_LEVEL: Final = 0.01
"""The chance that pauses alone, as frequent in stable's process, ever pass for lasting slowness in one stage."""
SPLIT_LEVEL: Final = 0.01
"""The chance that bets on values are settled at another price though the split is right: that costs a little power."""
SPLITS: Final = np.array([[0.5], [0.67], [0.8], [1.25], [1.5], [2.0]])
"""Bets on a split other than the plan's."""
ASYMPTOTIC_USERS: Final = 100
"""Canary users below which an asymptotic bound is not trusted to find harm."""
TUNED_FOR_USERS: Final = 500
"""Canary users at which bounds are tightest."""


@dataclass(frozen=True)
class Reading:
    """One look of a gate at one thing: log wealth of the bet on harm, what it needs, and the effect's estimate.

    Of several that fail, the lowest ``order`` is told: it explains the others. ``lasts`` is False while the harm may have been
    one pause of a process (``spans``).
    """

    what: str
    log_wealth: float
    log_needed: float
    effect: float
    order: int = 0
    lasts: bool = True


@dataclass(frozen=True)
class Measurement:
    """All that a gate saw. ``upper`` is how large the effect may still be, NaN if the gate has no such bound.

    ``lacks`` says what must come before the gate can see harm at all, and so before it may pass; empty once nothing does.
    """

    users: int
    readings: Sequence[Reading]
    upper: float = math.nan
    lacks: str = ""


def measure_errors(evidence: Evidence, price: float, needed: float) -> Measurement:
    """Failed requests."""
    return _measure_event(evidence, price, needed, "errors")


def measure_degraded(evidence: Evidence, price: float, needed: float) -> Measurement:
    """Answers given without the store."""
    return _measure_event(evidence, price, needed, "degraded")


def measure_latency(evidence: Evidence, price: float, needed: float) -> Measurement:
    """Half the stake on users who meet a slow answer, half on the ranks of first latencies having risen."""
    tally = evidence.tallies["latency"]
    users = int(evidence.moment("timed")[1])
    if not evidence.firsts.ready:
        return _without_reference(evidence.firsts, users, needed)
    rises = rank_ratios(_present(evidence.firsts.shares)[1], SHIFTS[SHIFTS > 0], np.zeros(0))
    ranks = mix(log_wealth(_present(evidence.firsts.counts)[:, 1], rises, price))
    both = np.logaddexp(_event_wealth(tally, price), ranks) - math.log(2)
    readings = _read_slices(evidence, both, _rate_effects(evidence, tally), needed)
    readings = [replace(reading, lasts=_lasts(evidence, "latency")) for reading in readings]
    return Measurement(users, readings, _upper_share(evidence, "latency", "timed"))


def _measure_event(evidence: Evidence, price: float, needed: float, name: str) -> Measurement:
    tally = evidence.tallies[name]
    readings = _read_slices(evidence, _event_wealth(tally, price), _rate_effects(evidence, tally), needed)
    if name in LASTING:
        readings = [replace(reading, lasts=_lasts(evidence, name)) for reading in readings]
    return Measurement(int(evidence.moment("users")[1]), readings, _upper_share(evidence, name, "users"))


def _event_wealth(tally: Tally, price: float) -> Floats:
    """Each user's first event: given that it happened, was the user on the canary more often than the price says? (slices,)."""
    return mix(log_wealth(tally.users[..., None], HARMS[:, None], price))


def _lasts(evidence: Evidence, name: str) -> bool:
    """Whether the same harm also wins span by span: what one pause of the canary's process would not do."""
    return log_wealth_spans(evidence.spans, LASTING.index(name)) >= log_threshold(LASTING_LEVEL)


def _rate_effects(evidence: Evidence, tally: Tally) -> Floats:
    """Canary's share of requests less stable's (slices,): over the stage, or of everybody lately if that is more."""
    rates = tally.events / np.maximum(evidence.requests, 1)
    effects = rates[:, 1] - rates[:, 0]
    recent = tally.recent / np.maximum(evidence.recent, 1e-9)
    effects[0] = max(effects[0], recent[1] - recent[0])
    return np.asarray(effects)


def _upper_share(evidence: Evidence, name: str, of: str) -> float:
    """How much larger the canary's share of first requests may be; half an event is added to each revision's."""
    users = evidence.moment(of)
    shares = (evidence.moment(name) + 0.5) / (users + 1)
    return _upper_difference(shares, shares * (1 - shares), users)


def _upper_difference(means: Floats, variances: Floats, users: Floats) -> float:
    """Upper bound on canary's mean less stable's.

    Each user is one draw of the pseudo-outcome mean1 - mean0 + A (x - mean1) / p - (1 - A)(x - mean0) / (1 - p) (Waudby-Smith
    et al. 2024, on randomised experiments), whose variance is n (v1 / n1 + v0 / n0) of n = n0 + n1 users.
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
    if not evidence.firsts.ready:
        return _without_reference(evidence.firsts, 0, needed)
    counts = _present(evidence.firsts.counts)[:, 0]
    price = settle(counts[0].sum(axis=-1), price)
    # Those who came before the bins were set are in nobody's count: they prove nothing.
    users = int(counts[0, 1].sum())
    ranks = mix(log_wealth(counts, rank_ratios(_present(evidence.firsts.shares)[0], SHIFTS, SPREADS), price))
    both = np.logaddexp(ranks, log_wealth_any_shape(counts, price)) - math.log(2)
    return Measurement(users, _read_slices(evidence, both, distances(counts), needed))


def settle(users: Counts, price: float) -> float:
    """The price for bets on values of those users (2,) whose value was seen.

    If surely more or fewer of them are the canary's than ``price`` says (answers or rows of one revision are missing, or a
    share came later than was written down), the share that was seen: else who bets on any value would win without any harm.
    """
    wealth = float(mix(log_wealth(users[:, None], SPLITS, price)))
    share = float((users[1] + 0.5) / (users.sum() + 1))
    return min(share, 0.99) if wealth >= log_threshold(SPLIT_LEVEL) else price


def distances(counts: Counts) -> Floats:
    """Largest difference in the share of any bin or of any range of lowest bins: counts (..., 2, K) to (...)."""
    totals = counts.sum(axis=-1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    apart = shares[..., 1, :] - shares[..., 0, :]
    largest = np.maximum(np.abs(apart).max(axis=-1), np.abs(np.cumsum(apart, axis=-1)).max(axis=-1))
    return np.where(totals.min(axis=(-2, -1)) > 0, largest, 0.0)


def measure_features(evidence: Evidence, price: float, needed: float) -> Measurement:
    """Features of whole rows: missing, unseen, shifted."""
    rows = evidence.rows
    if not rows.names or not rows.ready:
        return _without_reference(rows, rows.users(1), needed)
    readings = [
        Reading(f"{drift.feature} {drift.kind}", drift.log_wealth, drift.log_needed, drift.effect, KINDS.index(drift.kind))
        for drift in find_drifts(rows, settle(rows.counts[0, 0].sum(axis=-1), price), needed)
    ]
    return Measurement(rows.users(1), readings)


def measure_labels(evidence: Evidence, _price: float, needed: float) -> Measurement:
    """Harm is a larger log loss, or a larger bias, than stable's. Labels are settled at their time's share, or as seen."""
    ratios = label_ratios(_mean_score(evidence))
    wealths = [
        log_wealth(table, ratios, settle(table.sum(axis=-1), share / 100)) for share, table in evidence.outcomes.by_percent()
    ]
    sums = evidence.outcomes.sums
    users = sums[:, 0]
    means = sums[:, 1:] / np.maximum(users, 1)[:, None]
    loss, bias = means[:, SUMS.index("loss") - 1], np.abs(means[:, SUMS.index("bias") - 1])
    effects = {"log loss": float(loss[1] - loss[0]), "bias": float(bias[1] - bias[0])}
    wealth = float(mix(np.sum(wealths, axis=0))) if users.min() else 0.0
    readings = [Reading(what, wealth, needed, effect) for what, effect in effects.items()]
    return Measurement(int(users[1]), readings, _upper_difference(loss, means[:, 1] - loss**2, users))


def _mean_score(evidence: Evidence) -> float:
    """Of the first users of stable, who set the bins; a half until they have come."""
    firsts = evidence.firsts
    return float(np.clip(np.nanmean(firsts.reference[:, 0]), 1e-4, 1 - 1e-4)) if firsts.ready else 0.5


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
        return Measurement(int(users[1]), [_nothing(needed)], upper)
    count = float(users.sum())
    width = bound(count * float((variances / users).sum()), count, math.exp(-needed), _count_for_tuning(users))
    return Measurement(int(users[1]), [Reading("expected log loss", needed if effect > width else 0.0, needed, effect)], upper)


def _read_slices(evidence: Evidence, wealth: Floats, effects: Floats, needed: float) -> list[Reading]:
    """Everybody for half the level, and each slice that was seen for its part of the other half."""
    readings = [Reading("", float(wealth[0]), needed + math.log(2), float(effects[0]))]
    for index in np.flatnonzero(evidence.requests[1:].sum(axis=1)) + 1:
        cost = math.log(2 * MAX_SLICES)
        readings.append(Reading(f"slice {index}", float(wealth[index]), needed + cost, float(effects[index]), int(index)))
    return readings


def _without_reference(reference: Histograms, users: int, needed: float) -> Measurement:
    lacks = f"its reference has {len(reference.reference)} of {reference.wanted} stable users"
    return Measurement(users, [_nothing(needed)], lacks=lacks)


def _nothing(needed: float) -> Reading:
    return Reading("", 0.0, needed, 0.0)


def _present(binned: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """Counts or shares (..., 14) without what is missing: of a score or a latency, that is a failed request."""
    kept = binned.copy()
    kept[..., MISSING] = 0
    return kept


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
