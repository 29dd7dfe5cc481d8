"""How much a network leans on each signal: what its figures lose when the signal's columns are shuffled among the rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq

from features.errors import explain
from models import bootstrap
from models.bootstrap import Labels
from models.errors import EvaluationError
from models.evaluation import Evaluation
from models.frame import Floats, Matrix

RESAMPLES: Final = 200
REPEATS: Final = 3
MOST_ROWS: Final = 10_000
GROUPS: Final = "transformed_groups"


def measure_importance(
    groups: tuple[str, ...], transformed: Matrix, label: Labels, score: Callable[[Matrix], Floats], *, seed: int
) -> Evaluation:
    """Permutation importance of each group of columns, the most important first.

    All columns of a group move together, so that a signal's windows cannot stand in for each other. A group whose intervals
    hold zero may be one that the network does not need; groups that tell the same can each look dispensable.

    Source: Breiman, Random forests, 2001, section 10; Fisher, Rudin, Dominici, All models are wrong but many are useful, 2019.

    Args:
        groups: (T,) name of the group of each column.
        transformed: (n, T); at most 10,000 rows of them are used, drawn by the seed.
        label: (n,).
        score: (m, T) -> (m,) probabilities.
    Returns:
        ``rows``, ``repeats`` and ``groups``: for each its name and number of columns, and how much AUC falls (``auc``) and
        log loss rises (``log_loss``) on the mean of three shuffles, as figures with paired intervals over rows.
    """
    rng = np.random.default_rng(seed)
    if len(label) > MOST_ROWS:
        kept = np.sort(rng.choice(len(label), MOST_ROWS, replace=False))
        transformed, label = transformed[kept], label[kept]
    weights = bootstrap.draw_weights(np.arange(len(label)), RESAMPLES, seed=seed)
    whole = score(transformed)
    auc, log_loss = bootstrap.auc(label, whole, weights), bootstrap.log_loss(label, whole, weights)
    found: list[Evaluation] = []
    for name in dict.fromkeys(groups):
        columns = np.flatnonzero(np.array(groups) == name)
        shuffled = [score(_shuffle(transformed, columns, rng)) for _ in range(REPEATS)]
        fall = auc - np.mean([bootstrap.auc(label, entry, weights) for entry in shuffled], axis=0)
        rise = np.mean([bootstrap.log_loss(label, entry, weights) for entry in shuffled], axis=0) - log_loss
        figures = {"auc": bootstrap.interval_of(fall), "log_loss": bootstrap.interval_of(rise)}
        found.append({"group": name, "columns": len(columns), **figures})
    found.sort(key=lambda entry: -entry["log_loss"]["value"])
    return {"rows": len(label), "repeats": REPEATS, "groups": found}


def read_groups(features_path: Path) -> tuple[str, ...]:
    """(T,) names of the signal or field that each transformed column of a features file comes from.

    Raises:
        EvaluationError: the file does not say.
    """
    metadata = pq.read_schema(features_path).metadata or {}
    if GROUPS.encode() not in metadata:
        raise EvaluationError(
            explain(
                "features file does not say what its columns come from",
                which=str(features_path),
                expected=f"{GROUPS} in its metadata",
                got=", ".join(sorted(name.decode() for name in metadata)) or "no metadata",
                next_step="fit the graph again",
            )
        )
    return tuple(json.loads(metadata[GROUPS.encode()]))


def _shuffle(transformed: Matrix, columns: np.ndarray, rng: np.random.Generator) -> Matrix:
    shuffled = transformed.copy()
    shuffled[:, columns] = transformed[rng.permutation(len(transformed))[:, None], columns]
    return shuffled
