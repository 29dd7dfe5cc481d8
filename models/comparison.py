"""Candidates side by side on the same rows: every metric of each, and by how much the network is better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from models import bootstrap
from models.bootstrap import Labels, Weights, interval_of
from models.evaluation import ACTIVITY, DECLARED, NETWORK, Evaluation
from models.frame import Flags, Floats, Frame
from models.metrics import HIGHER_IS_BETTER
from models.specs import ModelSpec

METRIC_FUNCTIONS: Final = {
    "auc": bootstrap.auc, "log_loss": bootstrap.log_loss, "calibration_error": bootstrap.calibration_error,
}  # fmt: skip

Scores = Mapping[str, Floats]

ACTIVITY_BOUNDS: Final = {"activity 0": (0.0, 0.0), "activity 1-4": (1.0, 4.0), "activity 5+": (5.0, np.inf)}


def compare(label: Labels, scores: Scores, weights: Weights) -> Evaluation:
    """``candidates`` and ``gains`` of an evaluation.

    Args:
        label: (n,) 0 or 1.
        scores: by candidate, (n,) each; ``network`` among them.
        weights: (b, n) of ``bootstrap.draw_weights``.
    """
    figures = {
        name: {metric: function(label, score, weights) for metric, function in METRIC_FUNCTIONS.items()}
        for name, score in scores.items()
    }
    signs = {metric: 1 if HIGHER_IS_BETTER[metric] else -1 for metric in METRIC_FUNCTIONS}
    candidates = {name: {metric: interval_of(row[metric]) for metric in row} for name, row in figures.items()}
    gains = {
        name: {metric: interval_of(signs[metric] * (figures[NETWORK][metric] - row[metric])) for metric in row}
        for name, row in figures.items()
        if name != NETWORK
    }
    return {"candidates": candidates, "gains": gains}


def compare_slices(spec: ModelSpec, test: Frame, scores: Scores, weights: Weights) -> Evaluation:
    """Every slice of the spec, then the automatic ones by activity, by name."""
    declared = {entry.name: (DECLARED, entry.feature, entry.low, entry.high) for entry in spec.slices}
    activity = {name: (ACTIVITY, spec.activity, low, high) for name, (low, high) in ACTIVITY_BOUNDS.items()}
    found = {}
    for name, (kind, feature, low, high) in {**declared, **activity}.items():
        value = test.feature(feature)
        rows: Flags = (value >= low) & (value <= high)
        parts = {candidate: score[rows] for candidate, score in scores.items()}
        found[name] = {"kind": kind, **compare_part(test.label[rows], parts, weights[:, rows])}
    return found


def compare_part(label: Labels, scores: Scores, weights: Weights) -> Evaluation:
    """``rows``, ``positives`` and, of a part with both labels, ``candidates``, ``gains`` and ``gaps``."""
    counts = {"rows": len(label), "positives": int(label.sum())}
    if not 0 < counts["positives"] < counts["rows"]:
        return counts
    gaps = {name: interval_of(bootstrap.calibration_gap(label, score, weights)) for name, score in scores.items()}
    return {**counts, **compare(label, scores, weights), "gaps": gaps}
