"""Curves of a score over labelled rows, thinned to as many points as a picture can show."""

from __future__ import annotations

from typing import Final

import numpy as np

from models import bootstrap
from models.bootstrap import Labels
from models.evaluation import Evaluation
from models.frame import Floats

MOST_POINTS: Final = 200
WILSON_Z: Final = 1.959964
"""Of a 95 % interval."""


def roc_curve(label: Labels, score: Floats) -> dict[str, list[float]]:
    """``fpr`` and ``tpr``: shares of negatives and of positives at or above each threshold, from (0, 0) to (1, 1).

    At most 200 points, spread evenly along the curve's own length, since most of it may lie in one corner.

    Example:
        >>> roc_curve(np.array([0, 1], np.int8), np.array([0.2, 0.9]))
        {'fpr': [0.0, 0.0, 1.0], 'tpr': [0.0, 1.0, 1.0]}
    """
    _, found, positives = _cumulate(label, score)
    tpr = positives / max(positives[-1], 1)
    fpr = (found - positives) / max(found[-1] - positives[-1], 1)
    kept = _spread(fpr + tpr)
    return {"fpr": _rounded(fpr[kept]), "tpr": _rounded(tpr[kept])}


def lift_curve(label: Labels, score: Floats) -> dict[str, list[float]]:
    """``share`` of rows taken in descending order of the score, and the ``lift`` of the share of positives among them over
    that among all rows. It starts at one row in a hundred: before that a lift rests on too few rows to be read.
    """
    _, found, positives = _cumulate(label, score)
    share = found[1:] / found[-1]
    lift = positives[1:] / found[1:] / max(positives[-1] / found[-1], 1e-12)
    start = int(np.searchsorted(share, min(0.01, float(share[-1]))))
    share, lift = share[start:], lift[start:]
    kept = _spread(share)
    return {"share": _rounded(share[kept]), "lift": _rounded(lift[kept])}


def calibration_table(label: Labels, score: Floats) -> list[Evaluation]:
    """One entry a bin of ``bootstrap.calibration_bins``: ``rows``, ``mean_score``, ``share_positive`` and the 95 % Wilson
    interval of that share, ``low`` and ``high``.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    """
    bins = bootstrap.calibration_bins(score)
    rows = np.bincount(bins)
    used = rows > 0
    rows, scores, positives = (np.bincount(bins, values)[used] for values in (None, score, label))
    share = positives / rows
    centre = (positives + WILSON_Z**2 / 2) / (rows + WILSON_Z**2)
    half = WILSON_Z * np.sqrt(share * (1 - share) * rows + WILSON_Z**2 / 4) / (rows + WILSON_Z**2)
    columns = (rows, scores / rows, share, np.maximum(centre - half, 0), np.minimum(centre + half, 1))
    return [
        {
            "rows": int(count),
            "mean_score": float(mean),
            "share_positive": float(positive),
            "low": float(low),
            "high": float(high),
        }
        for count, mean, positive, low, high in zip(*columns, strict=True)
    ]


def _cumulate(label: Labels, score: Floats) -> tuple[Floats, Floats, Floats]:
    """Thresholds in descending order, rows and positives at or above each; equal scores are one threshold, 0 comes first."""
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.concatenate((np.diff(score[order]) != 0, [True])))
    found = np.concatenate(([0.0], last + 1.0))
    positives = np.concatenate(([0.0], np.cumsum(label[order], dtype=np.float64)[last]))
    return np.concatenate(([np.inf], score[order][last])), found, positives


def _spread(along: Floats) -> np.ndarray:
    """At most ``MOST_POINTS`` indices at even steps of an ascending coordinate; the first and the last are kept."""
    if len(along) <= MOST_POINTS:
        return np.arange(len(along))
    steps = np.linspace(along[0], along[-1], MOST_POINTS)
    return np.unique(np.concatenate(([0], np.searchsorted(along, steps[1:-1]), [len(along) - 1])))


def _rounded(values: Floats) -> list[float]:
    """Four decimals are more than a picture shows, and keep the file small."""
    return [round(float(value), 4) for value in values]
