"""Gradient boosting as the project fits it: the baseline and the trees that a spec may serve are the same recipe."""

from __future__ import annotations

from typing import Any, Final

import lightgbm
from numpy.typing import NDArray

from models.frame import Matrix

PARAMETERS: Final = {
    "objective": "binary", "learning_rate": 0.05, "num_leaves": 15, "min_data_in_leaf": 50, "feature_fraction": 0.5,
    "bagging_fraction": 0.7, "bagging_freq": 1, "num_threads": 1, "deterministic": True, "force_row_wise": True, "verbose": -1,
}  # fmt: skip
"""One thread, so that a run can be repeated bit for bit."""
ROUNDS: Final = 400
PATIENCE: Final = 30

Labelled = tuple[Matrix, NDArray[Any]]


def fit_booster(rows: Labelled, held_out: Labelled, *, seed: int) -> lightgbm.Booster:
    """Boost on (n, T) inputs and (n,) labels 0 or 1, and stop when the held-out log loss no longer falls."""
    training = lightgbm.Dataset(*rows)
    validation = lightgbm.Dataset(*held_out, reference=training)
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    return lightgbm.train({**PARAMETERS, "seed": seed}, training, ROUNDS, valid_sets=[validation], callbacks=[stop])
