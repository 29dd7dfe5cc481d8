"""A discrete hazard over delay buckets: learns from rows whose horizon has not passed, answers for any horizon.

Bucket k of K holds the delays in (e_{k-1}, e_k], with e_0 = 0 and e_K the horizon. The network's logit k is that of the
hazard h_k: the chance of the outcome within bucket k, given that it did not come earlier. Then

    P(outcome within e_k) = 1 - (1 - h_1) ... (1 - h_k)

which cannot fall with k, whatever the logits are. The loss of a row adds up the cross entropies of the buckets that the row
entered without an outcome and that were observed to their ends. Which buckets those are depends on how long the row was
observed and on earlier buckets, never on what happened in the bucket itself, so each hazard is learned without bias from
censored rows, as a Kaplan-Meier curve is; a bucket that was observed in part only would teach its outcomes and hide its rest.
Late buckets are learned from older rows alone. Where the conversion rate moves, early buckets follow at once.

Source: Kvamme, Borgan, Continuous and discrete-time survival prediction with neural networks, Lifetime Data Analysis 27, 2021
(the logistic hazard); Chapelle, Modeling delayed feedback in display advertising, KDD 2014 (the problem).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

from models.frame import Flags, Floats, Knowledge, Matrix
from models.objectives import Lessons, add_dense, fit_calibration


@dataclass(frozen=True)
class Hazard:
    """The objective of a spec with ``learning.method`` ``hazard``.

    Attributes:
        edges_s: ascending upper edges of the buckets, seconds; the last is the horizon.
        positive: which answer column 0 gives the probability of, as in ``LabelSpec``.
    """

    edges_s: tuple[int, ...]
    positive: Literal["occurs", "absent"]

    @property
    def logits(self) -> int:
        """One for each bucket."""
        return len(self.edges_s)

    def teach(self, transformed: Matrix, now_s: Floats, known: Knowledge, rows: Flags) -> Lessons:
        """Rows that were observed to the end of the first bucket at least; (m, 2K): happened in bucket, was at risk in it.

        What happens to a closed row up to the horizon is known: nothing. Whether a row closes must hang on its features
        alone (a booking's lead time), as with any censoring.
        """
        observed_s = np.where(np.isfinite(known.closed_s), np.inf, known.observed_s)
        rows = rows & (observed_s >= self.edges_s[0])
        happened, at_risk = fill_buckets(known.outcome_s[rows], observed_s[rows], self.edges_s)
        return Lessons(transformed[rows], np.concatenate([happened, at_risk], axis=1).astype(np.float32))

    def losses(self, targets: Any, logits: Any) -> Any:
        """(m,) sums of the cross entropies of the buckets at risk."""
        happened, at_risk = targets[:, : self.logits], targets[:, self.logits :]
        entropies = keras.ops.softplus(logits) - happened * logits
        return keras.ops.sum(at_risk * entropies, axis=1)

    held_out_losses = losses

    def calibrate(self, logits: Floats, targets: Matrix) -> tuple[float, float]:
        """One scale and one shift for all hazards, from every bucket at risk.

        Not from matured rows alone: those are the oldest, and would pull the level back to what it was a horizon ago.
        """
        happened, at_risk = targets[:, : self.logits], targets[:, self.logits :] == 1
        return fit_calibration(logits[at_risk], happened[at_risk])

    def finish(self, logits: keras.Model, scale: float, shift: float) -> keras.Model:
        """(n, T) -> (n, 1 + K): the score, then the probability of the outcome within each edge."""
        buckets = self.logits
        calibrated = add_dense(
            logits, np.eye(buckets) * scale, np.full(buckets, shift), activation="softplus", name="bucket_hazard"
        )
        # log(1 - h) = -softplus(logit), so the sums of the softplus are the cumulative hazards.
        survival = add_dense(
            calibrated, -np.triu(np.ones((buckets, buckets))), np.zeros(buckets), activation="exponential", name="survival"
        )
        last = np.eye(buckets)[:, -1:]
        score = -last if self.positive == "occurs" else last
        bias = np.ones(1 + buckets)
        bias[0] = 1 if self.positive == "occurs" else 0
        return add_dense(survival, np.concatenate([score, -np.eye(buckets)], axis=1), bias, name="probability")


def fill_buckets(outcome_s: Floats, observed_s: Floats, edges_s: tuple[int, ...]) -> tuple[Flags, Flags]:
    """(n, K) whether the outcome happened in each bucket, and whether the row was at risk in it from its start to its end.

    Args:
        outcome_s: (n,) seconds from ``now`` to the outcome, infinite where none is known.
        observed_s: (n,) seconds from ``now`` up to which outcomes are surely known.

    Example:
        >>> happened, at_risk = fill_buckets(np.array([15.0]), np.array([25.0]), (10, 20, 30))
        >>> happened.tolist(), at_risk.tolist()
        ([[False, True, False]], [[True, True, False]])
    """
    upper = np.array(edges_s, dtype=np.float64)
    lower = np.concatenate([[0.0], upper[:-1]])
    outcome, observed = outcome_s[:, None], observed_s[:, None]
    at_risk = (observed >= upper) & (outcome > lower)
    return at_risk & (outcome <= upper), at_risk


def probability_within(within: Floats, edges_s: tuple[int, ...], horizon_s: int) -> Floats:
    """(n,) probability of the outcome within any horizon up to the last edge: the hazard rate is constant inside a bucket.

    Args:
        within: (n, K) probabilities within each edge, columns 1 .. K of the network.
        horizon_s: within (0, last edge].

    Example:
        >>> round(float(probability_within(np.array([[0.75, 0.9]]), (10, 20), 5)[0]), 6)
        0.5
    """
    survival = np.concatenate([np.ones((len(within), 1)), 1 - np.minimum(within, 1 - 1e-12)], axis=1)
    edges = np.array((0, *edges_s), dtype=np.float64)
    after = int(np.searchsorted(edges, horizon_s))
    part = (horizon_s - edges[after - 1]) / (edges[after] - edges[after - 1])
    probability: Floats = 1 - survival[:, after - 1] ** (1 - part) * survival[:, after] ** part
    return probability
