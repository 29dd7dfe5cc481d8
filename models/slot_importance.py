"""How much a model of hours leans on each signal: what an action's NLL rises by when the signal is shuffled among the users."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from models import bootstrap
from models.bootstrap import interval_of
from models.evaluation import Evaluation
from models.frame import Floats
from models.slot_learning import nll_by_row, predict_observed
from models.slot_rows import SlotRows

RESAMPLES: Final = 200
REPEATS: Final = 3
MOST_ROWS: Final = 4_000


def measure_slot_importance(network: Any, rows: SlotRows, groups: tuple[str, ...], *, seed: int) -> Evaluation:
    """Permutation importance of each group of columns that the distribution rests on, the most important first.

    As ``models.importance.measure_importance``; of at most 4,000 rows with actions, drawn by the seed.

    Args:
        groups: (T,) name of the group of each column. The clock's are left out: it tells when slots begin, not which.
    Returns:
        ``rows``, ``repeats`` and ``groups``: for each its name and number of columns, and the rise of the NLL (``nll``) on the
        mean of three shuffles, as a figure with a paired interval over rows.
    """
    rng = np.random.default_rng(seed)
    acted = np.flatnonzero(rows.outcomes.sum(axis=1) > 0)
    kept = np.sort(rng.choice(acted, min(MOST_ROWS, len(acted)), replace=False))
    transformed, outcomes = rows.transformed[kept], rows.outcomes[kept]
    weights = bootstrap.draw_weights(np.arange(len(kept)), RESAMPLES, seed=seed)
    drawn = weights @ outcomes.sum(axis=1, dtype=np.float64)
    whole = nll_by_row(predict_observed(network, transformed), outcomes)
    read = [*rows.columns.acts, *rows.columns.sends, *rows.columns.segments]
    found: list[Evaluation] = []
    for name in dict.fromkeys(groups[column] for column in read):
        columns = np.flatnonzero(np.array(groups) == name)
        risen: Floats = np.zeros(len(kept))
        for _ in range(REPEATS):
            shuffled = transformed.copy()
            shuffled[:, columns] = transformed[rng.permutation(len(kept))[:, None], columns]
            risen += (nll_by_row(predict_observed(network, shuffled), outcomes) - whole) / REPEATS
        found.append({"group": name, "columns": len(columns), "nll": interval_of(weights @ risen / drawn)})
    found.sort(key=lambda entry: -entry["nll"]["value"])
    return {"rows": len(kept), "repeats": REPEATS, "groups": found}
