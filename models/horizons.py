"""How a hazard network does at shorter horizons than the one that it is judged at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from features.layout import US_PER_S
from models import bootstrap
from models.bootstrap import Weights, interval_of
from models.comparison import METRIC_FUNCTIONS
from models.cutoffs import TEST
from models.evaluation import Evaluation
from models.frame import Floats
from models.hazard import probability_within
from models.specs import ModelSpec


def measure_horizons(spec: ModelSpec, features_path: Path, within: Floats, weights: Weights) -> list[Evaluation]:
    """Figures of the test rows at every earlier horizon of the label, then at its own.

    Args:
        features_path: what fitting the graph wrote.
        within: (n, K) probabilities of the outcome within each of ``spec.learning.delay_buckets_s``, for the matured test rows
            in the file's order.
        weights: (b, n) of the bootstrap.
    Returns:
        For each horizon ``horizon_s``, ``rows``, ``outcomes``, ``mean_score``, and where both answers occur ``metrics`` (metric
        -> figure) and ``gap`` (mean score - share, a figure). All are about the outcome, also where its absence is scored.
    """
    waited_us = _read_waits_us(features_path)
    found = []
    for horizon_s in (*spec.label.earlier_horizons_s, spec.label.horizon_s):
        label = (waited_us <= horizon_s * US_PER_S).astype(np.int8)
        score = probability_within(within, spec.learning.delay_buckets_s, horizon_s)
        entry: Evaluation = {
            "horizon_s": horizon_s,
            "rows": len(label),
            "outcomes": int(label.sum()),
            "mean_score": float(score.mean()),
        }
        if 0 < entry["outcomes"] < len(label):
            entry["metrics"] = {name: interval_of(metric(label, score, weights)) for name, metric in METRIC_FUNCTIONS.items()}
            entry["gap"] = interval_of(bootstrap.calibration_gap(label, score, weights))
        found.append(entry)
    return found


def _read_waits_us(features_path: Path) -> np.ndarray:
    """(n,) microseconds from each matured test row to its outcome, infinite where there was none."""
    rows = pl.DataFrame(pq.read_table(features_path, columns=["now", "split", "matured", "outcome_time"]))
    rows = rows.filter((pl.col("split") == TEST) & pl.col("matured"))
    waited = (rows["outcome_time"].dt.epoch("us") - rows["now"].dt.epoch("us")).cast(pl.Float64)
    return waited.fill_null(np.inf).to_numpy()
