"""Measure a network beside its baselines on the test rows, with intervals, and write ``evaluation.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import keras
import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from models import bootstrap
from models.baselines import fit_baseline
from models.cutoffs import TEST, TRAIN, VALIDATION
from models.evaluation import FORMAT, NETWORK, Evaluation, write_evaluation
from models.frame import Floats, Frame, read_frame
from models.specs import HIGHER_IS_BETTER, ModelSpec
from models.train import EVALUATED_FILE, predict

RESAMPLES: Final = 1_000
METRIC_FUNCTIONS: Final = {
    "auc": bootstrap.auc, "log_loss": bootstrap.log_loss, "calibration_error": bootstrap.calibration_error,
}  # fmt: skip


def evaluate(spec: ModelSpec, features_path: Path, network_dir: Path, out_path: Path, *, seed: int) -> dict[str, float]:
    """Score the test rows with the network and every baseline, and write the evaluation.

    Args:
        spec: names the baselines and slices.
        features_path: what fitting the graph wrote.
        network_dir: what training wrote.
        out_path: the JSON file that ``models.evaluation`` describes; appears whole.
        seed: of the bootstrap.
    Returns:
        Headline figures, flat: ``<candidate>_<metric>`` for every candidate and metric.
    Raises:
        TrainingError: a split lacks rows of a class.
    """
    frame = read_frame(features_path)
    train, validation, test = frame.of(TRAIN), frame.of(VALIDATION), frame.of(TEST)
    network = keras.models.load_model(network_dir / EVALUATED_FILE)
    scores = {NETWORK: predict(network, test.transformed)}
    scores |= {name: fit_baseline(name, spec, train, validation).score(test) for name in spec.baselines}
    evaluation = measure(spec, test, scores, resamples=RESAMPLES, seed=seed)
    write_evaluation(evaluation, out_path)
    return {
        f"{candidate}_{metric}": figure["value"]
        for candidate, figures in evaluation["candidates"].items()
        for metric, figure in figures.items()
    }


def measure(spec: ModelSpec, test: Frame, scores: dict[str, Floats], *, resamples: int, seed: int) -> Evaluation:
    """The evaluation of candidates' scores on the same rows; ``scores`` holds ``network`` and any baselines, each (n,)."""
    entity = pc.index_in(test.entity_ids, value_set=test.entity_ids.unique()).to_numpy().astype(np.int64)
    weights = bootstrap.draw_weights(entity, resamples, seed=seed)
    return {
        "format": FORMAT,
        "model": spec.name,
        "split": TEST,
        "rows": len(test),
        "entities": int(entity.max()) + 1,
        "positives": int(test.label.sum()),
        "resamples": resamples,
        "seed": seed,
        **_compare(test.label, scores, weights),
        "calibration": {name: _calibration_table(test.label, score) for name, score in scores.items()},
        "slices": {entry.name: _slice(test, entry.feature, (entry.low, entry.high), scores, weights) for entry in spec.slices},
    }


def _compare(label: NDArray[np.int8], scores: dict[str, Floats], weights: bootstrap.Weights) -> Evaluation:
    figures = {
        name: {metric: function(label, score, weights) for metric, function in METRIC_FUNCTIONS.items()}
        for name, score in scores.items()
    }
    signs = {metric: 1 if HIGHER_IS_BETTER[metric] else -1 for metric in METRIC_FUNCTIONS}
    candidates = {name: {metric: bootstrap.interval_of(row[metric]) for metric in row} for name, row in figures.items()}
    gains = {
        name: {metric: bootstrap.interval_of(signs[metric] * (figures[NETWORK][metric] - row[metric])) for metric in row}
        for name, row in figures.items()
        if name != NETWORK
    }
    return {"candidates": candidates, "gains": gains}


def _slice(
    test: Frame, feature: str, bounds: tuple[float, float], scores: dict[str, Floats], weights: bootstrap.Weights
) -> Evaluation:
    value = test.feature(feature)
    rows = (value >= bounds[0]) & (value <= bounds[1])
    label = test.label[rows]
    counts = {"rows": int(rows.sum()), "positives": int(label.sum())}
    if not 0 < counts["positives"] < counts["rows"]:
        return counts
    return {**counts, **_compare(label, {name: score[rows] for name, score in scores.items()}, weights[:, rows])}


def _calibration_table(label: NDArray[np.int8], score: Floats) -> list[dict[str, float]]:
    bins = bootstrap.calibration_bins(score)
    return [
        {"rows": int((bins == number).sum()), "mean_score": float(score[bins == number].mean()),
         "share_positive": float(label[bins == number].mean())}
        for number in np.unique(bins)
    ]  # fmt: skip
