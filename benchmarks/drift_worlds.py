"""Simulated worlds whose drift is known: what a model is asked, hour by hour, with or without seasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from monitoring.drift.judge import Window
from monitoring.drift.sample import Sample

HOUR_US: Final = 3_600_000_000
MONDAY_US: Final = 1_736_121_600_000_000
"""2025-01-06T00:00:00Z."""
DAY_H: Final = 24
WEEK_H: Final = 168
FEATURES: Final = 20
PLANS: Final = ("basic", "pro", "trial")


@dataclass(frozen=True)
class World:
    """Users as a model sees them: 20 numbers, one category, a score.

    ``season``: how far, in deviations, half of the numbers swing over the week's hours (traffic by night and at weekends is of
    other users). From hour ``drift_h`` on the first number is moved by ``shift`` deviations at once, and by ``ramp`` more each
    day.
    """

    season: float = 0.0
    drift_h: int | None = None
    shift: float = 0.0
    ramp: float = 0.0
    pro_share: float = 1 / 3

    def draw(self, rng: np.random.Generator, at_us: np.ndarray) -> Sample:
        """What is seen of one user at each of these times."""
        numbers = rng.standard_normal((len(at_us), FEATURES)).astype(np.float32)
        hour = (at_us - MONDAY_US) / HOUR_US
        day, week = np.sin(2 * np.pi * hour / DAY_H), (hour // DAY_H % 7 >= 5).astype(float)
        numbers[:, : FEATURES // 2] += (self.season * (day + week))[:, None]
        pro = np.full(len(at_us), 1 / 3)
        if self.drift_h is not None:
            days = np.maximum(hour - self.drift_h, 0) / DAY_H
            drifted = hour >= self.drift_h
            numbers[:, -1] += np.where(drifted, self.shift + self.ramp * days, 0)
            pro = np.where(drifted, self.pro_share, pro)
        chance = rng.random(len(at_us))
        plan = np.where(chance < pro, PLANS[1], np.where(chance < pro + (1 - pro) / 2, PLANS[0], PLANS[2]))
        score = 1 / (1 + np.exp(-(numbers[:, 0] + numbers[:, -1]) / 2))
        names = tuple(f"number_{number}" for number in range(FEATURES))
        return Sample(numbers, names, at_us, {"plan": pa.array(plan.tolist(), pa.string())}, score.astype(np.float32))

    def draw_training(self, rng: np.random.Generator, rows: int) -> Sample:
        """Rows of the four weeks before, at any hour."""
        return self.draw(rng, MONDAY_US - rng.integers(1, 4 * WEEK_H * HOUR_US, rows))

    def draw_hour(self, rng: np.random.Generator, hour: int, users: int) -> Window:
        """One hour's window, hours counted from the first Monday."""
        start_us = MONDAY_US + hour * HOUR_US
        sample = self.draw(rng, start_us + np.sort(rng.integers(0, HOUR_US, users)))
        return Window("simulated/stable", start_us, start_us + HOUR_US, sample, users)
