"""What a network is fitted to: the shape of its targets, its loss, its calibration and the outputs that are served.

Each way to learn from delayed labels is one ``Objective``; ``models.train`` fits any of them by the same loop. The saved
network consists of stock Keras layers only, so that a reader needs nothing of this room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from features.errors import explain
from features.two_towers import CALIBRATION
from models.errors import TrainingError
from models.frame import Flags, Floats, Knowledge, Matrix


@dataclass(frozen=True)
class Lessons:
    """Rows as an objective wants them: (m, T) inputs and (m, ...) float32 targets; m may differ from the rows given."""

    inputs: Matrix
    targets: Matrix

    def __len__(self) -> int:
        return len(self.inputs)


class Objective(Protocol):
    """One way to learn from delayed labels."""

    @property
    def logits(self) -> int:
        """How many logits the network has before its calibration."""

    def teach(self, transformed: Matrix, now_s: Floats, known: Knowledge, rows: Flags) -> Lessons:
        """Lessons of the flagged rows, from what was known of their outcomes."""

    def losses(self, targets: Any, logits: Any) -> Any:
        """(m,) what training makes small, as tensors."""

    def held_out_losses(self, targets: Any, logits: Any) -> Any:
        """(m,) negative log likelihoods by which training stops; a proper score, as tensors."""

    def calibrate(self, logits: Floats, targets: Matrix) -> tuple[float, float]:
        """Scale and shift of the logits that make the held-out losses least."""

    def finish(self, logits: keras.Model, scale: float, shift: float) -> keras.Model:
        """The network as it is saved: column 0 is the probability of label 1."""


@dataclass(frozen=True)
class Matured:
    """Rows whose horizon has passed, and whether they are labelled 1.

    Nothing is assumed of how outcomes are delayed, and nothing is learned from the last horizon before the cutoff.

    Attributes:
        horizon_s: of the label.
        positive: which answer is label 1, as in ``LabelSpec``.
    """

    horizon_s: int
    positive: Literal["occurs", "absent"]
    logits: int = 1

    def teach(self, transformed: Matrix, now_s: Floats, known: Knowledge, rows: Flags) -> Lessons:
        """(m, 1) labels of the rows that were observed to the horizon."""
        rows = rows & (known.observed_s >= self.horizon_s)
        label = np.isfinite(known.outcome_s[rows]) == (self.positive == "occurs")
        return Lessons(transformed[rows], label[:, None].astype(np.float32))

    def losses(self, targets: Any, logits: Any) -> Any:
        """(m,) cross entropies."""
        return keras.losses.binary_crossentropy(targets, logits, from_logits=True)

    held_out_losses = losses

    def calibrate(self, logits: Floats, targets: Matrix) -> tuple[float, float]:
        """By Platt's method."""
        return fit_calibration(logits[:, 0], targets[:, 0])

    def finish(self, logits: keras.Model, scale: float, shift: float) -> keras.Model:
        """(n, T) -> (n, 1), a probability."""
        return add_dense(logits, [[scale]], [shift], activation="sigmoid", name=CALIBRATION)


def fit_calibration(logits: Floats, labels: NDArray[Any]) -> tuple[float, float]:
    """Scale and shift of the logit that fit the labels best.

    Source: Platt, Probabilistic outputs for support vector machines, 1999.
    """
    if len(np.unique(labels)) < 2:
        raise TrainingError(
            explain("rows cannot calibrate a classifier", which=f"{len(labels)} held-out labels",
                    expected="rows with and without an outcome", got=f"all {labels[:1].tolist()}",
                    next_step="import more history")
        )  # fmt: skip
    fitted = LogisticRegression(C=1e6, max_iter=1_000).fit(logits[:, None], labels)
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])


def add_dense(model: keras.Model, kernel: Any, bias: Any, *, activation: str | None = None, name: str) -> keras.Model:
    """A model with one more dense layer of fixed weights, kernel (inputs, units) and bias (units,)."""
    weights = [np.array(kernel, dtype=np.float32), np.array(bias, dtype=np.float32)]
    layer = keras.layers.Dense(weights[0].shape[1], activation=activation, trainable=False, name=name)
    grown = keras.Model(model.input, layer(model.output))
    layer.set_weights(weights)
    return grown
