"""Metrics under many resamples at once.

A resample is a weight for each row: how often its entity was drawn. Every metric is computed for all resamples together, and
all candidates share the same resamples, so that the difference of two candidates has an interval of its own.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.frame import Floats

CALIBRATION_BINS: Final = 10
RESAMPLES_PER_BLOCK: Final = 50
TINY: Final = 1e-7
INTERVAL: Final = 0.95

Weights = NDArray[np.float64]


def draw_weights(entity: NDArray[np.int64], resamples: int, *, seed: int) -> Weights:
    """(1 + resamples, n) weights; the first row is all ones, so that the first figure of a metric is its plain value.

    Args:
        entity: (n,) codes 0 .. e-1 of the rows' entities; entities are drawn, with all of their rows.
    """
    entities = int(entity.max()) + 1
    rng = np.random.default_rng(seed)
    weights = np.empty((1 + resamples, len(entity)))
    weights[0] = 1.0
    for number in range(1, 1 + resamples):
        weights[number] = np.bincount(rng.integers(0, entities, entities), minlength=entities)[entity]
    return weights


def auc(label: NDArray[np.int8], score: Floats, weights: Weights) -> Floats:
    """(b,) areas under the ROC curve; ties count half. NaN where a resample lacks a class."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.concatenate(([True], np.diff(score[order]) != 0)))
    positive = label[order] == 1
    areas = []
    for block in _blocks(weights):
        sorted_weights = block[:, order]
        up = np.add.reduceat(np.where(positive, sorted_weights, 0.0), starts, axis=1)
        down = np.add.reduceat(np.where(positive, 0.0, sorted_weights), starts, axis=1)
        below = np.cumsum(down, axis=1) - down
        pairs = up.sum(axis=1) * down.sum(axis=1)
        wins = (up * (below + 0.5 * down)).sum(axis=1)
        areas.append(_divide(wins, pairs))
    return np.concatenate(areas)


def log_loss(label: NDArray[np.int8], score: Floats, weights: Weights) -> Floats:
    """(b,) mean negative log likelihoods, natural logarithm; scores are clipped to [1e-7, 1 - 1e-7]."""
    clipped = np.clip(score, TINY, 1 - TINY)
    losses = -np.where(label == 1, np.log(clipped), np.log1p(-clipped))
    return _divide(weights @ losses, weights.sum(axis=1))


def calibration_error(label: NDArray[np.int8], score: Floats, weights: Weights) -> Floats:
    """(b,) expected calibration errors: mean |share of positives - mean score| over bins of equal size by score."""
    member = np.eye(CALIBRATION_BINS)[calibration_bins(score)]
    gaps = np.abs(weights @ (member * (label - score)[:, None]))
    return _divide(gaps.sum(axis=1), weights.sum(axis=1))


def calibration_bins(score: Floats) -> NDArray[np.int64]:
    """(n,) bin of each row, cut at the deciles of the scores; equal scores share a bin."""
    edges = np.quantile(score, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1])
    return np.searchsorted(edges, score, side="left").astype(np.int64)


def interval_of(figures: Floats) -> dict[str, float]:
    """``value`` of the plain figure, ``low`` and ``high`` of the percentile interval of its resamples."""
    tail = (1 - INTERVAL) / 2
    low, high = np.nanquantile(figures[1:], (tail, 1 - tail))
    return {"value": float(figures[0]), "low": float(low), "high": float(high)}


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    """NaN where a resample is empty, which intervals then leave out."""
    ratio: Floats = np.divide(numerator, denominator, out=np.full(len(denominator), np.nan), where=denominator > 0)
    return ratio


def _blocks(weights: Weights) -> list[Weights]:
    return [weights[start : start + RESAMPLES_PER_BLOCK] for start in range(0, len(weights), RESAMPLES_PER_BLOCK)]
