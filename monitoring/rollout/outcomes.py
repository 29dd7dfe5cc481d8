"""Matured labels: is the canary's probability as true as stable's?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from monitoring.rollout.observations import CANARY, Observations
from monitoring.rollout.panels import Panel, admit, open_panel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

OFFSETS: Final = np.array([-2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0])
"""Bets that the canary's true log odds are its score's plus this."""
SLOPES: Final = np.array([0.0, 0.25, 0.5, 0.75, 1.5])
"""Bets that they are the score's, drawn by this factor towards the mean: 0 is a score that says nothing."""
SUMS: Final = ("users", "loss", "loss_squared", "bias", "bias_squared")
ODDS: Final = np.arange(-8, 8.125, 0.25)
"""Log odds of a score's bin, (65,): any function of the bin is a fair bet, and a quarter costs next to nothing."""
PERCENTS: Final = 101


@dataclass(frozen=True)
class Outcomes:
    """Each user's first matured label, of all stages.

    ``counts`` (101, 2, 130) counts users by the canary's percent when they were scored, by revision, and by the bin of the
    score's log odds, those without the event before those with it; ``sums`` (2, 5) are of ``SUMS`` by revision. ``loss`` is log
    loss in nats, ``bias`` label less score.
    """

    panel: Panel
    counts: Ints
    sums: Floats

    def by_percent(self) -> Iterator[tuple[int, Ints]]:
        """The counts (2, 130) of each percent that some label was scored at."""
        for percent in np.flatnonzero(self.counts.any(axis=(1, 2))):
            yield int(percent), self.counts[percent]


def open_outcomes() -> Outcomes:
    """No label yet."""
    return Outcomes(open_panel(), np.zeros((PERCENTS, 2, 2 * len(ODDS)), np.int64), np.zeros((2, len(SUMS))))


def fold_labels(outcomes: Outcomes, seen: Observations) -> Outcomes:
    """Outcomes with one tick's matured labels."""
    panel, positions = admit(outcomes.panel, seen.label_entity)
    score = np.clip(seen.label_score[positions].astype(np.float64), 1e-6, 1 - 1e-6)
    positive, arm = seen.label[positions], seen.label_arm[positions]
    level = np.clip(np.rint((np.log(score) - np.log1p(-score) - ODDS[0]) / (ODDS[1] - ODDS[0])), 0, len(ODDS) - 1).astype(int)
    counts = outcomes.counts.copy()
    np.add.at(counts, (np.rint(seen.label_percent[positions]).astype(int), arm, level + positive * len(ODDS)), 1)
    loss, bias = -np.where(positive, np.log(score), np.log1p(-score)), positive - score
    columns = np.stack([np.ones(len(score)), loss, loss**2, bias, bias**2], axis=1)
    side = (arm == CANARY).astype(np.float64)
    return Outcomes(panel, counts, outcomes.sums + np.stack([(1 - side) @ columns, side @ columns]))


def label_ratios(centre: float) -> Floats:
    """The bets (2) of ``sequential``, (13, 130): w = P(label | score drawn or moved) / P(label | score).

    A score that is as true as stable's gives none of them an edge. ``centre`` is the mean score, towards which ``SLOPES`` draw.
    """
    middle = np.log(centre) - np.log1p(-centre)
    moved = np.concatenate([ODDS + OFFSETS[:, None], middle + SLOPES[:, None] * (ODDS - middle)])
    without, with_it = -np.logaddexp(0, moved) + np.logaddexp(0, ODDS), -np.logaddexp(0, -moved) + np.logaddexp(0, -ODDS)
    return np.asarray(np.exp(np.concatenate([without, with_it], axis=1)))
