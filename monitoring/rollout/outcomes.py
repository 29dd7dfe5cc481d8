"""Matured labels: is the canary's probability as true as stable's?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from monitoring.rollout.observations import CANARY, Observations
from monitoring.rollout.panels import Panel, admit, open_panel

Floats = npt.NDArray[np.float64]

OFFSETS: Final = np.array([-2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0])
"""Bets that the canary's true log odds are its score's plus this."""
SLOPES: Final = np.array([0.0, 0.25, 0.5, 0.75, 1.5])
"""Bets that they are the score's, drawn by this factor towards the mean: 0 is a score that says nothing."""
SUMS: Final = ("users", "loss", "loss_squared", "bias", "bias_squared")


@dataclass(frozen=True)
class Outcomes:
    """Each user's first matured label: log wealth of each bet (13,), and sums by revision (2, 5) of ``SUMS``.

    ``loss`` is log loss in nats, ``bias`` label less score.
    """

    panel: Panel
    wealth: Floats
    sums: Floats


def open_outcomes() -> Outcomes:
    """No label yet."""
    return Outcomes(open_panel(), np.zeros(len(OFFSETS) + len(SLOPES)), np.zeros((2, len(SUMS))))


def fold_labels(outcomes: Outcomes, seen: Observations, centre: float) -> Outcomes:
    """Outcomes with one tick's matured labels; ``centre`` is the mean score, towards which ``SLOPES`` draw.

    The bet (2) of ``sequential`` with w = P(label | score drawn or moved) / P(label | score), at the price of the time when
    the score was given: a score that is as true as stable's gives no bet an edge.
    """
    panel, positions = admit(outcomes.panel, seen.label_entity)
    score = np.clip(seen.label_score[positions].astype(np.float64), 1e-6, 1 - 1e-6)
    positive = seen.label[positions]
    odds, middle = np.log(score) - np.log1p(-score), np.log(centre) - np.log1p(-centre)
    moved = np.concatenate([odds[:, None] + OFFSETS, middle + SLOPES * (odds - middle)[:, None]], axis=1)
    sign = np.where(positive, 1.0, -1.0)[:, None]
    log_ratio = -np.logaddexp(0, -sign * moved) + np.logaddexp(0, -sign * odds[:, None])
    price = seen.label_percent[positions].astype(np.float64)[:, None] / 100
    on_canary = (seen.label_arm[positions] == CANARY)[:, None]
    gained = np.where(on_canary, log_ratio, 0.0) - np.log(price * np.exp(log_ratio) + 1 - price)
    loss, bias = -np.where(positive, np.log(score), np.log1p(-score)), positive - score
    columns = np.stack([np.ones(len(score)), loss, loss**2, bias, bias**2], axis=1)
    side = on_canary[:, 0].astype(np.float64)
    sums = outcomes.sums + np.stack([(1 - side) @ columns, side @ columns])
    return Outcomes(panel, outcomes.wealth + gained.sum(axis=0), sums)
