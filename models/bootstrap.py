"""Metrics under many resamples at once.

A resample is a weight for each row: how often its entity was drawn. Every metric is computed for all resamples together, and
all candidates share the same resamples, so that the difference of two candidates has an interval of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.frame import Floats

CALIBRATION_BINS: Final = 10
RESAMPLES_PER_BLOCK: Final = 50
TINY: Final = 1e-7
INTERVAL: Final = 0.95

Weights = NDArray[np.uint8]
Labels = NDArray[np.int8]


def draw_weights(entity: NDArray[np.int64], resamples: int, *, seed: int) -> Weights:
    """(1 + resamples, n) weights; the first row is all ones, so that the first figure of a metric is its plain value.

    Args:
        entity: (n,) codes 0 .. e-1 of the rows' entities; entities are drawn, with all of their rows. How often one is drawn
            is a binomial count with mean 1, which a byte holds.
    """
    entities = int(entity.max()) + 1 if len(entity) else 0
    rng = np.random.default_rng(seed)
    weights = np.empty((1 + resamples, len(entity)), dtype=np.uint8)
    weights[0] = 1
    for number in range(1, 1 + resamples):
        weights[number] = np.bincount(rng.integers(0, entities, entities), minlength=entities).astype(np.uint8)[entity]
    return weights


def auc(label: Labels, score: Floats, weights: Weights) -> Floats:
    """(b,) areas under the ROC curve; ties count half. NaN where a resample lacks a class.

    The rows are sorted once. A resample then takes one running sum over its negatives, which every positive looks up.
    """
    positives, negatives = (rows[np.argsort(score[rows], kind="stable")] for rows in _classes(label))
    below, not_above = (np.searchsorted(score[negatives], score[positives], side) for side in ("left", "right"))
    areas = np.empty(len(weights))
    running = np.zeros(len(negatives) + 1)
    for number, weight in enumerate(weights):
        np.cumsum(weight[negatives], out=running[1:], dtype=np.float64)
        drawn = weight[positives].astype(np.float64)
        pairs = drawn.sum() * running[-1]
        areas[number] = drawn @ (running[below] + running[not_above]) / (2 * pairs) if pairs else np.nan
    return areas


def log_loss(label: Labels, score: Floats, weights: Weights) -> Floats:
    """(b,) mean negative log likelihoods, natural logarithm; scores are clipped to [1e-7, 1 - 1e-7]."""
    clipped = np.clip(score, TINY, 1 - TINY)
    losses = -np.where(label == 1, np.log(clipped), np.log1p(-clipped))
    return np.concatenate([_divide(block @ losses, block.sum(axis=1)) for block in _blocks(weights)])


def calibration_error(label: Labels, score: Floats, weights: Weights) -> Floats:
    """(b,) expected calibration errors: mean |share of positives - mean score| over bins of equal size by score."""
    gaps = np.eye(CALIBRATION_BINS)[calibration_bins(score)] * (label - score)[:, None]
    return np.concatenate([_divide(np.abs(block @ gaps).sum(axis=1), block.sum(axis=1)) for block in _blocks(weights)])


def calibration_gap(label: Labels, score: Floats, weights: Weights) -> Floats:
    """(b,) mean score - share of positives: whether a group as a whole is scored too high (above 0) or too low."""
    gaps = score - label
    return np.concatenate([_divide(block @ gaps, block.sum(axis=1)) for block in _blocks(weights)])


def calibration_bins(score: Floats) -> NDArray[np.int64]:
    """(n,) bin of each row, cut at the deciles of the scores; equal scores share a bin."""
    edges = np.quantile(score, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1])
    return np.searchsorted(edges, score, side="left").astype(np.int64)


def interval_of(figures: Floats) -> dict[str, float]:
    """``value`` of the plain figure, ``low`` and ``high`` of the percentile interval of its resamples, and their standard
    deviation ``error``, from which a reader can make an interval of another level.
    """
    tail = (1 - INTERVAL) / 2
    low, high = np.nanquantile(figures[1:], (tail, 1 - tail))
    return {"value": float(figures[0]), "low": float(low), "high": float(high), "error": float(np.nanstd(figures[1:]))}


def _classes(label: Labels) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.flatnonzero(label == 1), np.flatnonzero(label != 1)


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    """NaN where a resample is empty, which intervals then leave out."""
    ratio: Floats = np.divide(numerator, denominator, out=np.full(len(denominator), np.nan), where=denominator > 0)
    return ratio


def _blocks(weights: Weights) -> Iterator[Floats]:
    """The weights as floats, some resamples at a time: all at once would take eight times the memory."""
    for start in range(0, len(weights), RESAMPLES_PER_BLOCK):
        yield weights[start : start + RESAMPLES_PER_BLOCK].astype(np.float64)
