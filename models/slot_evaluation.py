"""Measure a model of hours of the week beside its baselines and the champion, and write ``evaluation.json``.

The file is that of ``models.evaluation`` with metrics ``nll``, ``top1`` and ``top3``, of where actions were seen; ``kind`` is
``slots``, ``actions`` how many there were, ``positives`` rows that had any, and ``evidence`` the effective sample sizes of the
test's users. There is no score to rank or to calibrate by, so curves, calibration and gaps are absent; ``importance`` tells the
rise of ``nll``, and ``week`` the hours (168,) of somebody of whom nothing is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.slots import FACTS, SLOTS
from models import bootstrap
from models.bootstrap import Weights, interval_of
from models.comparison import ACTIVITY_BOUNDS
from models.cutoffs import COLD, TEST
from models.evaluation import (
    ACTIVITY,
    CHAMPION,
    COLD_NAME,
    DECLARED,
    FORMAT,
    NETWORK,
    SLOTS_KIND,
    Champion,
    Evaluation,
    write_evaluation,
)
from models.frame import Floats, Matrix
from models.importance import read_groups
from models.maturity import measure_maturity
from models.metrics import HIGHER_IS_BETTER, SLOT_METRICS
from models.slot_baselines import fit_slot_baseline
from models.slot_importance import measure_slot_importance
from models.slot_learning import LAYER, predict_observed
from models.slot_rows import SlotRows, read_slot_rows, rows_to_learn
from models.specs import ModelSpec

RESAMPLES: Final = 1_000
TOP: Final = {"top1": 1, "top3": 3}
TINY: Final = 1e-12
MOST_UNKNOWN: Final = 2_000

Sums = Mapping[str, Floats]
"""By metric, (n,) sums over each row's actions."""


def evaluate_slots(
    spec: ModelSpec, features_path: Path, network_path: Path, out_path: Path, *, seed: int, champion: Champion | None = None
) -> dict[str, float]:
    """Compare distributions of the test rows, and write the evaluation; as ``models.evaluate.evaluate`` for scores.

    Args:
        network_path: the network to judge.
        champion: with (n, 168) distributions as its scores.
    Raises:
        TrainingError: no row to learn from or to test on has an outcome.
    """
    assert spec.slots is not None
    rows = read_slot_rows(features_path, spec.slots)
    learned, test, cold = rows_to_learn(rows, as_served=False), rows.of(TEST), rows.where(rows.split == COLD)
    network = keras.models.load_model(network_path)
    baselines = {name: fit_slot_baseline(name, spec, learned) for name in spec.baselines}

    def distribute(part: SlotRows) -> dict[str, Sums]:
        found = {NETWORK: predict_observed(network, part.transformed)}
        found |= {name: baseline.distribute(part) for name, baseline in baselines.items()}
        return {name: sum_by_row(distribution, part.outcomes) for name, distribution in found.items()}

    sums = distribute(test)
    if champion is not None and champion.scores is not None:
        sums[CHAMPION] = sum_by_row(champion.scores, test.outcomes)
    weights = bootstrap.draw_weights(_code_entities(test), RESAMPLES, seed=seed)
    evaluation: Evaluation = {
        "format": FORMAT, "kind": SLOTS_KIND, "model": spec.name, "split": TEST, "rows": len(test),
        "entities": int(_code_entities(test).max()) + 1, "positives": int((test.outcomes.sum(axis=1) > 0).sum()),
        "actions": int(test.outcomes.sum()), "resamples": RESAMPLES, "seed": seed,
        **compare_sums(sums, test.outcomes, weights),
        "slices": _compare_slices(spec, test, sums, weights),
        "champion": None if champion is None else dict(champion.about),
        "maturity": measure_maturity(features_path, spec.label.horizon_s),
        "evidence": measure_evidence(network, test),
        "importance": measure_slot_importance(network, test, read_groups(features_path), seed=seed),
        "week": expect_anybody(network, test),
    }  # fmt: skip
    cold_weights = bootstrap.draw_weights(_code_entities(cold), RESAMPLES, seed=seed) if len(cold) else weights[:, :0]
    evaluation["slices"][COLD_NAME] = {"kind": COLD, **_compare_part(distribute(cold), cold.outcomes, cold_weights)}
    write_evaluation(evaluation, out_path)
    return {
        f"{candidate}_{metric}": figure["value"]
        for candidate, figures in evaluation["candidates"].items()
        for metric, figure in figures.items()
    }


def sum_by_row(distribution: Floats, outcomes: Matrix) -> dict[str, Floats]:
    """By metric, (n,) sums over each row's actions of a distribution (n, 168) over where they were.

    Slots that tie share what is left of the top among them, as if their order were drawn.

    Example:
        >>> flat = np.full((1, 168), 1 / 168)
        >>> action = np.eye(168, dtype=np.float32)[[5]]
        >>> {name: round(float(value[0]), 4) for name, value in sum_by_row(flat, action).items()}
        {'nll': 5.124, 'top1': 0.006, 'top3': 0.0179}
    """
    sums = {"nll": -(outcomes * np.log(np.maximum(distribution, TINY))).sum(axis=1)}
    row, slot = np.nonzero(outcomes)
    own = distribution[row, slot][:, None]
    above, level = (distribution[row] > own).sum(axis=1), (distribution[row] == own).sum(axis=1)
    for name, size in TOP.items():
        share = np.clip((size - above) / level, 0, 1) * outcomes[row, slot]
        sums[name] = np.bincount(row, share, minlength=len(outcomes))
    return sums


def compare_sums(sums: Mapping[str, Sums], outcomes: Matrix, weights: Weights) -> Evaluation:
    """``candidates`` and ``gains`` of an evaluation: means over actions, resampled by entity."""
    actions = outcomes.sum(axis=1, dtype=np.float64)
    figures = {name: {metric: _mean(part[metric], actions, weights) for metric in SLOT_METRICS} for name, part in sums.items()}
    signs = {metric: 1 if HIGHER_IS_BETTER[metric] else -1 for metric in SLOT_METRICS}
    own = figures[NETWORK]
    gains = {
        name: {metric: interval_of(signs[metric] * (own[metric] - part[metric])) for metric in SLOT_METRICS}
        for name, part in figures.items()
        if name != NETWORK
    }
    candidates = {name: {metric: interval_of(part[metric]) for metric in SLOT_METRICS} for name, part in figures.items()}
    return {"candidates": candidates, "gains": gains}


def measure_evidence(network: Any, rows: SlotRows) -> Evaluation:
    """Of the rows' users: how many had acted, quantiles of their actions and of the effective sample sizes behind them."""
    outputs = network.predict(rows.transformed, batch_size=4_096, verbose=0)
    acted = rows.acts.sum(axis=1) > 0
    effective = outputs[acted, 1 + SLOTS + FACTS.index("effective_sample_size")]
    quantiles = (0.1, 0.5, 0.9)
    layer = network.get_layer(LAYER)
    return {
        "users_that_acted": int(acted.sum()),
        "quantiles": list(quantiles),
        "actions": np.quantile(rows.acts.sum(axis=1)[acted], quantiles).tolist() if acted.any() else [],
        "effective_sample_size": np.quantile(effective, quantiles).tolist() if acted.any() else [],
        "strengths": layer.strengths.numpy().tolist(),
        "shape": layer.rhythm.shape.numpy().tolist(),
        "shifts": layer.rhythm.shifts.numpy().tolist(),
    }


def expect_anybody(network: Any, rows: SlotRows) -> list[float]:
    """(168,) the mean distribution of the rows' users, had they done nothing and been sent nothing."""
    unknown = rows.transformed[:MOST_UNKNOWN].copy()
    unknown[:, [*rows.columns.acts, *rows.columns.sends]] = 0
    week: list[float] = network.predict(unknown, batch_size=4_096, verbose=0)[:, 1 : 1 + SLOTS].mean(axis=0).tolist()
    return week


def _compare_slices(spec: ModelSpec, test: SlotRows, sums: Mapping[str, Sums], weights: Weights) -> Evaluation:
    declared = {entry.name: (DECLARED, entry.feature, entry.low, entry.high) for entry in spec.slices}
    activity = {name: (ACTIVITY, spec.activity, low, high) for name, (low, high) in ACTIVITY_BOUNDS.items()}
    found = {}
    for name, (kind, feature, low, high) in {**declared, **activity}.items():
        value = test.feature(feature)
        rows = (value >= low) & (value <= high)
        parts = {candidate: {metric: part[metric][rows] for metric in SLOT_METRICS} for candidate, part in sums.items()}
        found[name] = {"kind": kind, **_compare_part(parts, test.outcomes[rows], weights[:, rows])}
    return found


def _compare_part(sums: Mapping[str, Sums], outcomes: Matrix, weights: Weights) -> Evaluation:
    positives = int((outcomes.sum(axis=1) > 0).sum())
    counts = {"rows": len(outcomes), "positives": positives, "actions": int(outcomes.sum())}
    return {**counts, **compare_sums(sums, outcomes, weights)} if positives else counts


def _mean(sums: Floats, actions: Floats, weights: Weights) -> Floats:
    """(b,) means over actions; NaN where a resample has none."""
    drawn = weights @ actions
    mean: Floats = np.divide(weights @ sums, drawn, out=np.full(len(weights), np.nan), where=drawn > 0)
    return mean


def _code_entities(rows: SlotRows) -> NDArray[np.int64]:
    codes: NDArray[np.int64] = pc.index_in(rows.entity_ids, value_set=rows.entity_ids.unique()).to_numpy().astype(np.int64)
    return codes
