"""The file ``evaluation.json``: how a network did beside its baselines and the champion on the test rows.

All figures are ``{"value", "low", "high", "error"}``: a 95 % bootstrap interval over entities, and the standard error.

    format, model, split, rows, entities, positives, resamples, seed
    candidates   name ("network", then the baselines, then "champion" if there is one) -> metric -> figure
    gains        other candidate -> metric -> by how much the network is better; positive means better, paired resamples
    calibration  name -> list of {"rows", "mean_score", "share_positive", "low", "high"}, by ascending score
    curves       "roc" -> name -> {"fpr", "tpr"}; "lift" -> name -> {"share", "lift"}; at most 200 points each
    slices       name -> {"kind", "rows", "positives", "candidates", "gains", "gaps"}; ``kind`` is declared, activity or cold;
                 ``gaps`` are mean score - share of positives by name; figures are absent where a slice has one label
    champion     facts of the version in production, None where there is none
    maturity     ``models.maturity.measure_maturity``
    importance   ``models.importance.measure_importance``
    horizons     ``models.horizons.measure_horizons``; empty for a network that answers for one horizon

An evaluation of a served model's answers (``plumb models backtest``) has no champion, maturity, importance and horizons.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.errors import explain
from models.errors import EvaluationError

FORMAT: Final = 2
NETWORK: Final = "network"
CHAMPION: Final = "champion"
DECLARED: Final = "declared"
ACTIVITY: Final = "activity"
COLD: Final = "cold"
SLOTS_KIND: Final = "slots"
"""``kind`` of an evaluation of hours of the week; others have none."""
COLD_NAME: Final = "cold (state unknown)"

Evaluation = dict[str, Any]


@dataclass(frozen=True)
class Champion:
    """The version in production.

    Attributes:
        about: facts that a report shows: ``version``, and ``note``, which says what was asked or why nothing could be.
        scores: (n,) its probabilities of the test rows, in their order in the features file; None where it cannot be compared.
    """

    about: Mapping[str, Any]
    scores: NDArray[np.float64] | None


def read_evaluation(path: Path) -> Evaluation:
    """Read ``evaluation.json``.

    Raises:
        EvaluationError: no such file, no JSON, or of another format.
    """
    try:
        evaluation: Evaluation = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise EvaluationError(
            explain("evaluation cannot be read", which=str(path), expected="a JSON file of the evaluate step", got=str(error),
                    next_step="run the evaluation again")
        ) from error  # fmt: skip
    if evaluation.get("format") != FORMAT:
        raise EvaluationError(
            explain(
                "evaluation is of another format",
                which=str(path),
                expected=f"format {FORMAT}",
                got=f"format {evaluation.get('format')}",
                next_step="run the evaluation again",
            )
        )
    return evaluation


def write_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Write the evaluation as readable JSON, whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(evaluation, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)
