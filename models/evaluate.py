"""Measure a network beside its baselines and the champion on the test rows, with intervals, and write ``evaluation.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from models import bootstrap
from models.baselines import Baseline, fit_baseline, read_known_rows
from models.comparison import Scores, compare, compare_part, compare_slices
from models.curves import calibration_table, lift_curve, roc_curve
from models.cutoffs import COLD, TEST
from models.evaluation import CHAMPION, COLD_NAME, FORMAT, NETWORK, Champion, Evaluation, write_evaluation
from models.frame import Floats, Frame, read_frame
from models.horizons import measure_horizons
from models.importance import measure_importance, read_groups
from models.maturity import measure_maturity
from models.slot_evaluation import evaluate_slots
from models.specs import ModelSpec
from models.train import EVALUATED_FILE, predict_all

RESAMPLES: Final = 1_000


def evaluate(
    spec: ModelSpec, features_path: Path, network_dir: Path, out_path: Path, *, seed: int, champion: Champion | None = None
) -> dict[str, float]:
    """Score the test rows with the network, every baseline and the champion, and write the evaluation.

    Args:
        spec: names the baselines and slices.
        features_path: what fitting the graph wrote.
        network_dir: what training wrote.
        out_path: the JSON file that ``models.evaluation`` describes; appears whole.
        seed: of the bootstrap and of the shuffles behind the importance.
        champion: the version in production with its scores of the test rows; None where there is none.
    Returns:
        Headline figures, flat: ``<candidate>_<metric>`` for every candidate and metric.
    Raises:
        TrainingError: a split lacks rows of a class.
    """
    if spec.slots is not None:
        return evaluate_slots(spec, features_path, network_dir / EVALUATED_FILE, out_path, seed=seed, champion=champion)
    frame = read_frame(features_path)
    test, cold = frame.of(TEST), frame.where(frame.split == COLD)
    learned, held_out = read_known_rows(spec, features_path)
    network = keras.models.load_model(network_dir / EVALUATED_FILE)
    baselines = {name: fit_baseline(name, spec, learned, held_out) for name in spec.baselines}
    outputs = predict_all(network, test.transformed)
    scores = {NETWORK: outputs[:, 0]} | _score(baselines, test)
    if champion is not None and champion.scores is not None:
        scores[CHAMPION] = champion.scores
    evaluation = measure(spec, test, scores, resamples=RESAMPLES, seed=seed)
    evaluation["slices"][COLD_NAME] = _measure_cold(cold, network, baselines, seed=seed)
    evaluation["champion"] = None if champion is None else dict(champion.about)
    evaluation["maturity"] = measure_maturity(features_path, spec.label.horizon_s)
    evaluation["importance"] = measure_importance(
        read_groups(features_path), test.transformed, test.label, lambda rows: predict_all(network, rows)[:, 0], seed=seed
    )
    weights = bootstrap.draw_weights(_code_entities(test), RESAMPLES, seed=seed)
    hazard = outputs.shape[1] > 1
    evaluation["horizons"] = measure_horizons(spec, features_path, outputs[:, 1:], weights) if hazard else []
    write_evaluation(evaluation, out_path)
    return {
        f"{candidate}_{metric}": figure["value"]
        for candidate, figures in evaluation["candidates"].items()
        for metric, figure in figures.items()
    }


def measure(spec: ModelSpec, test: Frame, scores: Scores, *, resamples: int, seed: int) -> Evaluation:
    """The evaluation of candidates' scores on the same rows; ``scores`` holds ``network`` and any baselines, each (n,)."""
    entity = _code_entities(test)
    weights = bootstrap.draw_weights(entity, resamples, seed=seed)
    curves = {"roc": roc_curve, "lift": lift_curve}
    return {
        "format": FORMAT,
        "model": spec.name,
        "split": TEST,
        "rows": len(test),
        "entities": int(entity.max()) + 1,
        "positives": int(test.label.sum()),
        "resamples": resamples,
        "seed": seed,
        **compare(test.label, scores, weights),
        "calibration": {name: calibration_table(test.label, score) for name, score in scores.items()},
        "curves": {kind: {name: draw(test.label, score) for name, score in scores.items()} for kind, draw in curves.items()},
        "slices": compare_slices(spec, test, scores, weights),
    }


def _measure_cold(cold: Frame, network: Any, baselines: Mapping[str, Baseline], *, seed: int) -> Evaluation:
    if not len(cold):
        return {"kind": COLD, "rows": 0, "positives": 0}
    weights = bootstrap.draw_weights(_code_entities(cold), RESAMPLES, seed=seed)
    scores = {NETWORK: predict_all(network, cold.transformed)[:, 0]} | _score(baselines, cold)
    return {"kind": COLD, **compare_part(cold.label, scores, weights)}


def _score(baselines: Mapping[str, Baseline], rows: Frame) -> dict[str, Floats]:
    return {name: baseline.score(rows) for name, baseline in baselines.items()}


def _code_entities(rows: Frame) -> NDArray[np.int64]:
    codes: NDArray[np.int64] = pc.index_in(rows.entity_ids, value_set=rows.entity_ids.unique()).to_numpy().astype(np.int64)
    return codes
