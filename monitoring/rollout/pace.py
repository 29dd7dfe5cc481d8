"""How fast stable is at the moment, and so from where on an answer is slow.

Load and hours change what is slow, and one pause of stable's process must not. So the limit is twice the median of stable's
answers, of the last five spans of requests: the median of their medians. It rests on what came before, as a bet must.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from monitoring.rollout.observations import CANARY, STABLE
from monitoring.rollout.spans import SPAN

SLOW_FACTOR: Final = 2.0
KEPT_SPANS: Final = 5
LEAST_ANSWERS: Final = 10
"""Answers of stable without which a span says nothing of its pace."""
SHORTEST_S: Final = 1e-6
STEP: Final = 1.05
"""Ratio of a latency bin's edges: medians are that precise."""
LATENCY_BINS: Final = 480
"""From a microsecond to four hours."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pace:
    """``counts`` (480,) of stable's latencies and ``canary``, the canary's requests, in the span that is not full;
    ``medians`` (up to 5,), seconds, of the last full ones."""

    counts: npt.NDArray[np.int64]
    canary: int
    medians: Floats


def open_pace() -> Pace:
    """Nothing known yet."""
    return Pace(np.zeros(LATENCY_BINS, np.int64), 0, np.zeros(0))


def fold_pace(pace: Pace, arm: npt.NDArray[np.int8], latency_s: Floats) -> tuple[Pace, Floats]:
    """Pace after more requests, in order, and for each the seconds from which it is slow (n,): NaN while that is not known.

    ``latency_s`` (n,) is NaN where there was no answer.
    """
    limits = np.full(len(arm), np.nan)
    known = np.where(np.isnan(latency_s), SHORTEST_S, np.maximum(latency_s, SHORTEST_S))
    bins = np.minimum((np.log(known / SHORTEST_S) / np.log(STEP)).astype(np.int64), LATENCY_BINS - 1)
    of_stable = (arm == STABLE) & ~np.isnan(latency_s)
    counts, canary, medians = pace.counts, pace.canary, pace.medians
    ends = np.flatnonzero(arm == CANARY)[SPAN - canary - 1 :: SPAN] + 1
    begin = 0
    for end, is_full in [*((int(end), True) for end in ends), (len(arm), False)]:
        if len(medians):
            limits[begin:end] = SLOW_FACTOR * np.median(medians)
        counts = counts + np.bincount(bins[begin:end][of_stable[begin:end]], minlength=LATENCY_BINS)
        if is_full:
            if counts.sum() >= LEAST_ANSWERS:
                medians = np.append(medians, _median_s(counts))[-KEPT_SPANS:]
            counts = np.zeros(LATENCY_BINS, np.int64)
        begin = end
    canary = int(canary + (arm == CANARY).sum()) % SPAN
    return Pace(counts, canary, medians), limits


def _median_s(counts: npt.NDArray[np.int64]) -> float:
    """The geometric middle of the bin that holds the median."""
    middle = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    return float(SHORTEST_S * STEP ** (middle + 0.5))
