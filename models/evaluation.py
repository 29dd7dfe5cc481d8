"""The file ``evaluation.json``: how a network did beside its baselines on the test rows.

All figures as ``{"value", "low", "high"}`` with a 95 % bootstrap interval over entities:

    format, model, split, rows, entities, positives, resamples, seed
    candidates   name ("network", then the baselines) -> metric -> figure
    gains        baseline -> metric -> by how much the network is better; positive means better, paired resamples
    calibration  name -> list of {"rows", "mean_score", "share_positive"}, by ascending score
    slices       name -> {"rows", "positives", "candidates", "gains"}; figures are absent where a slice has one class
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from features.errors import explain
from models.errors import EvaluationError

FORMAT: Final = 1
NETWORK: Final = "network"

Evaluation = dict[str, Any]


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
