"""What a model must beat: each baseline is fitted on the training rows and scores any rows of the same frame.

Baselines learn from rows whose labels had matured, as known when the test's rows begin, whatever the model learns from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import pyarrow.parquet as pq
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from features.catalogs import load_catalog
from features.errors import explain
from models.boosting import fit_booster
from models.cutoffs import EMBARGO, TEST, TRAIN, VALIDATION, hold_out_rows
from models.errors import SpecError
from models.frame import Floats, Frame, read_delayed_rows, read_frame
from models.specs import ModelSpec


class Baseline(Protocol):
    """A fitted baseline."""

    def score(self, rows: Frame) -> Floats:
        """(n,) probabilities of label 1."""


class Prior:
    """The share of positives among the training rows, for everyone."""

    def __init__(self, spec: ModelSpec, rows: Frame, validation: Frame) -> None:
        self._share = float(rows.label.mean())

    def score(self, rows: Frame) -> Floats:
        """(n,) times the same number."""
        return np.full(len(rows), self._share)


class Recency:
    """The rule of thumb: how often rows with this recency were positive, made monotone; missing is a group of its own."""

    def __init__(self, spec: ModelSpec, rows: Frame, validation: Frame) -> None:
        self._feature = spec.recency
        recency = rows.feature(spec.recency)
        known = recency != 0
        self._missing = float(rows.label[~known].mean()) if (~known).any() else float(rows.label.mean())
        self._known = bool(known.any())
        if not self._known:
            return
        rising = bool(np.mean((recency[known] - recency[known].mean()) * (rows.label[known] - 0.5)) >= 0)
        self._curve = IsotonicRegression(y_min=1e-4, y_max=1 - 1e-4, increasing=rising, out_of_bounds="clip")
        self._curve.fit(recency[known], rows.label[known])

    def score(self, rows: Frame) -> Floats:
        """(n,) shares of positives at each row's recency."""
        recency = rows.feature(self._feature)
        if not self._known:
            return np.full(len(rows), self._missing)
        score: Floats = np.where(recency != 0, self._curve.predict(recency), self._missing)
        return score


class Popularity:
    """What a campaign is, whoever is asked: the share of positives among training rows whose request fields have the same
    words, the share of all rows counting as ``STRENGTH`` rows. Words that were not seen in training get that share alone.
    """

    STRENGTH: Final = 20.0

    def __init__(self, spec: ModelSpec, rows: Frame, validation: Frame) -> None:
        words = {entry.name for entry in load_catalog(spec.catalog).view(spec.view).request if entry.dtype == "string"}
        self._columns = [number for number, group in enumerate(rows.transformed_groups) if group in words]
        self._share = float(rows.label.mean())
        seen, of_row = np.unique(rows.transformed[:, self._columns], axis=0, return_inverse=True)
        positives, counts = (np.bincount(of_row.reshape(-1), weights=weights) for weights in (rows.label, None))
        shares = (positives + self.STRENGTH * self._share) / (counts + self.STRENGTH)
        self._shares = {key.tobytes(): float(share) for key, share in zip(seen, shares, strict=True)}

    def score(self, rows: Frame) -> Floats:
        """(n,) shares of positives."""
        keys = np.ascontiguousarray(rows.transformed[:, self._columns])
        return np.array([self._shares.get(key.tobytes(), self._share) for key in keys])


class Logistic:
    """Logistic regression with an L2 penalty on the features that the network sees, standardised; its strength is the one
    that fits the held-out entities best.
    """

    STRENGTHS: Final = (0.001, 0.01, 0.1, 1.0, 10.0)

    def __init__(self, spec: ModelSpec, rows: Frame, validation: Frame) -> None:
        fitted = [self._fit(strength, rows) for strength in self.STRENGTHS]
        held_out = validation.transformed.astype(np.float64)
        losses = [log_loss(validation.label, entry.predict_proba(held_out)[:, 1]) for entry in fitted]
        self._model = fitted[int(np.argmin(losses))]

    @staticmethod
    def _fit(strength: float, rows: Frame) -> Pipeline:
        # Newton's method: few steps whatever the columns' correlations, where L-BFGS may stop short of the optimum.
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, solver="newton-cholesky", max_iter=100))
        return model.fit(rows.transformed.astype(np.float64), rows.label)

    def score(self, rows: Frame) -> Floats:
        """(n,) probabilities."""
        score: Floats = self._model.predict_proba(rows.transformed.astype(np.float64))[:, 1]
        return score


class LightGBM:
    """Gradient boosting on the features that the network sees."""

    SEED: Final = 7

    def __init__(self, spec: ModelSpec, rows: Frame, validation: Frame) -> None:
        taught, held_out = ((part.transformed, part.label) for part in (rows, validation))
        self._trees = fit_booster(taught, held_out, seed=self.SEED)

    def score(self, rows: Frame) -> Floats:
        """(n,) probabilities."""
        score: Floats = np.asarray(self._trees.predict(rows.transformed), dtype=np.float64)
        return score


BASELINES: Final[dict[str, Callable[[ModelSpec, Frame, Frame], Baseline]]] = {
    "prior": Prior,
    "recency": Recency,
    "popularity": Popularity,
    "logistic": Logistic,
    "lightgbm": LightGBM,
}
"""Fits a baseline by its name from a spec, training rows and validation rows."""


def read_known_rows(spec: ModelSpec, features_path: Path, *, as_served: bool = False) -> tuple[Frame, Frame]:
    """Rows to fit baselines on and those held out, by the same split as the network's: matured and labelled as known when
    the test's rows begin, or ``as_served`` with all that was known at the end, as the served network has learned it.

    Raises:
        TrainingError: there are none, or all of their labels are alike.
    """
    matured = pq.read_table(features_path, columns=["matured"])["matured"].to_numpy()
    delayed = read_delayed_rows(features_path)
    known = delayed.known if as_served else delayed.known_earlier
    splits = (TRAIN, VALIDATION, EMBARGO, TEST) if as_served else (TRAIN, VALIDATION, EMBARGO)
    label = np.isfinite(known.outcome_s) == (spec.label.positive == "occurs")
    frame = replace(read_frame(features_path), label=label[matured].astype(np.int8))
    answered = known.observed_s[matured] >= spec.label.horizon_s
    among = answered & np.isin(frame.split, splits)
    held = hold_out_rows(spec, frame.entity_ids, delayed.now_us[matured], among)
    learned, held_out = (frame.where(answered & part).of(*splits) for part in (~held, held))
    return learned, held_out


def fit_baseline(name: str, spec: ModelSpec, rows: Frame, validation: Frame) -> Baseline:
    """Fit one baseline.

    Raises:
        SpecError: there is no baseline of that name.
    """
    if name not in BASELINES:
        raise SpecError(
            explain(
                "unknown baseline",
                which=f"{name!r} of model {spec.name!r}",
                expected=f"one of {', '.join(BASELINES)}",
                got=repr(name),
                next_step="correct the spec",
            )
        )
    return BASELINES[name](spec, rows, validation)
