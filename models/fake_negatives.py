"""Fake-negative weighting: every row is taught as a negative at once, and again as a positive when its outcome arrives.

A trainer that follows the stream cannot wait for horizons to pass. It sees each row twice if it converts, so positives make up
p / (1 + p) of the lessons at a point where the true probability is p. Weights put that right: 1 + p for positives and
(1 - p)(1 + p) for negatives, with p the network's own probability, through which no gradient flows.

The lessons are what a stream would have brought from the end of the first horizon on: negatives drawn since, and positives
that *arrived* since, also of rows drawn before. So as many positives come in as are still out, as long as the rate stands
still; where it moves, the positives are those of about one mean delay ago. That is the bias of this way.

Stopping and calibration use the likelihood of the stream itself, in which the probability of a positive is p / (1 + p): it is
proper, and largest at the true p, where the weighted loss with its moving weights is no measure at all.

Source: Ktena et al., Addressing delayed feedback for continuous training with neural networks in CTR prediction, RecSys 2019
(fake negative weighted loss).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from scipy.optimize import minimize

from models.frame import Flags, Floats, Knowledge, Matrix
from models.objectives import Lessons, add_dense


@dataclass(frozen=True)
class FakeNegative:
    """The objective of a spec with ``learning.method`` ``fake_negative``.

    Attributes:
        wait_s: horizon and label delay; the stream is followed from the first row's ``now`` plus this on.
        positive: which answer the network gives the probability of, as in ``LabelSpec``.
    """

    wait_s: int
    positive: Literal["occurs", "absent"]
    logits: int = 1

    def teach(self, transformed: Matrix, now_s: Floats, known: Knowledge, rows: Flags) -> Lessons:
        """A negative for each row drawn since the stream is followed, a positive for each outcome that arrived since."""
        starts_s = now_s.min() + self.wait_s
        negative = np.flatnonzero(rows & (now_s > starts_s))
        positive = np.flatnonzero(rows & np.isfinite(known.outcome_s) & (now_s + known.known_s > starts_s))
        taught = np.concatenate([negative, positive])
        arrived = np.repeat([0.0, 1.0], [len(negative), len(positive)])
        return Lessons(transformed[taught], arrived[:, None].astype(np.float32))

    def losses(self, targets: Any, logits: Any) -> Any:
        """(m,) weighted cross entropies."""
        ops = keras.ops
        chance = ops.stop_gradient(ops.sigmoid(logits))
        weight = (1 + chance) * (targets + (1 - targets) * (1 - chance))
        return ops.squeeze(weight * (ops.softplus(logits) - targets * logits), axis=1)

    def held_out_losses(self, targets: Any, logits: Any) -> Any:
        """(m,) negative log likelihoods of the stream: of arrivals p / (1 + p), of others 1 / (1 + p)."""
        ops = keras.ops
        log_chance = -ops.softplus(-logits)
        return ops.squeeze(ops.log1p(ops.exp(log_chance)) - targets * log_chance, axis=1)

    def calibrate(self, logits: Floats, targets: Matrix) -> tuple[float, float]:
        """Scale and shift of the logit under which the stream is most likely."""

        def loss(scale_and_shift: Floats) -> float:
            log_chance = -np.logaddexp(0, -(scale_and_shift[0] * logits[:, 0] + scale_and_shift[1]))
            return float(np.mean(np.log1p(np.exp(log_chance)) - targets[:, 0] * log_chance))

        scale, shift = minimize(loss, np.array([1.0, 0.0]), method="BFGS").x
        return float(scale), float(shift)

    def finish(self, logits: keras.Model, scale: float, shift: float) -> keras.Model:
        """(n, T) -> (n, 1), a probability."""
        sign = 1 if self.positive == "occurs" else -1
        return add_dense(logits, [[sign * scale]], [sign * shift], activation="sigmoid", name="probability")
