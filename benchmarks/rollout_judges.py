"""Judges that rollouts are commonly given, on the same requests: for comparison only.

All three test errors, latency and score, request by request, at every look; none knows of users or of looks.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from monitoring.rollout.observations import Observations

Floats = npt.NDArray[np.float64]

Z_TWO_SIDED_5: Final = 1.959964
Z_TWO_SIDED_2: Final = 2.326348
Z_ONE_SIDED_5: Final = 1.644854
LEAST_REQUESTS: Final = 20
FINE_BINS: Final = 400
JUDGES: Final = ("z-test", "3 strikes", "Mann-Whitney")


class CommonJudges:
    """Requests of one stage so far, and each judge's verdict after each look.

    z-test: errors and latency one-sided, score two-sided, each at 5 %, on the stage so far. 3 strikes: it failed at three
    looks in a row. Mann-Whitney: Kayenta's, on the ranks of latency and score of the stage so far at 98 % confidence, with a
    tolerance of 25 % of the mean; errors by the z-test at 98 %.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """A stage begins."""
        self.strikes = 0
        self._sums = np.zeros((2, 3, 3))
        self._bins = np.zeros((2, 2, FINE_BINS))

    def look(self, seen: Observations) -> dict[str, bool]:
        """Whether each judge rolls back at this look."""
        self._sums += _sums(seen)
        answered = ~seen.failed
        for column, values in enumerate((_latency_bin(seen.latency_s), _score_bin(seen.score))):
            for side in (0, 1):
                self._bins[column, side] += np.bincount(values[answered & (seen.arm == side)], minlength=FINE_BINS)
        is_worse = _is_worse(self._sums, Z_ONE_SIDED_5)
        self.strikes = self.strikes + 1 if is_worse else 0
        return {
            "z-test": is_worse,
            "3 strikes": self.strikes >= 3,
            "Mann-Whitney": self._mann_whitney(),
        }

    def _mann_whitney(self) -> bool:
        if self._sums[:, 0, 0].min() < LEAST_REQUESTS:
            return False
        means = self._sums[:, :, 1] / self._sums[:, :, 0]
        latency, score = (_rank_z(self._bins[column]) for column in (0, 1))
        slower = latency > Z_TWO_SIDED_2 and means[1, 1] > 1.25 * means[0, 1]
        other = abs(score) > Z_TWO_SIDED_2 and abs(means[1, 2] / means[0, 2] - 1) > 0.25
        return bool(slower or other or _z(self._sums)[0] > Z_TWO_SIDED_2)


def _sums(seen: Observations) -> Floats:
    """Count, sum and sum of squares (2 arms, 3 measures, 3) of errors, latencies and scores."""
    answered = ~seen.failed
    values = (seen.failed.astype(np.float64), np.where(answered, seen.latency_s, 0), np.where(answered, seen.score, 0))
    counted = (np.ones(len(seen), np.bool_), answered, answered)
    sums = np.zeros((2, 3, 3))
    for measure, (column, mask) in enumerate(zip(values, counted, strict=True)):
        for power in range(3):
            sums[:, measure, power] = np.bincount(seen.arm[mask], np.power(column[mask], power), minlength=2)
    return sums


def _z(sums: Floats) -> Floats:
    count = np.maximum(sums[:, :, 0], 1)
    means = sums[:, :, 1] / count
    variances = np.maximum(sums[:, :, 2] / count - means**2, 1e-12)
    return np.asarray((means[1] - means[0]) / np.sqrt((variances / count).sum(axis=0)))


def _is_worse(sums: Floats, one_sided: float) -> bool:
    if sums[:, 0, 0].min() < LEAST_REQUESTS:
        return False
    z = _z(sums)
    return bool(z[0] > one_sided or z[1] > one_sided or abs(z[2]) > Z_TWO_SIDED_5)


def _rank_z(bins: Floats) -> float:
    """Mann-Whitney's z of the canary's ranks, with ties, from counts (2, bins)."""
    stable, canary = bins.sum(axis=1)
    total = bins.sum(axis=0)
    ranks = np.cumsum(total) - (total - 1) / 2
    number = stable + canary
    if min(stable, canary) < LEAST_REQUESTS:
        return 0.0
    above = float(bins[1] @ ranks) - canary * (number + 1) / 2
    ties = float((total**3 - total).sum()) / (number * (number - 1))
    return float(above / np.sqrt(stable * canary / 12 * (number + 1 - ties)))


def _latency_bin(latency_s: Floats) -> npt.NDArray[np.int64]:
    return np.clip((np.log(latency_s) + 9) * FINE_BINS / 14, 0, FINE_BINS - 1).astype(np.int64)


def _score_bin(score: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    return np.clip(np.nan_to_num(score) * FINE_BINS, 0, FINE_BINS - 1).astype(np.int64)
