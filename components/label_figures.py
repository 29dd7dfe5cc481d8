"""Figures of served labels that matured within windows, and of the same version at its training, for the labels monitor."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.label_maturity import LEAST_USERS, RESAMPLES
from features.layout import DAY_S, US_PER_S
from features.served_labels import read_labels
from features.workspace import Workspace
from models import bootstrap
from models.errors import VersionError
from models.evaluation import NETWORK, read_evaluation
from models.versions import EVALUATION_FILE, load
from monitoring.labels import Figure, Matured, Trained
from monitoring.monitor_settings import MonitorSettings

MOST_WINDOWS: Final = 8
"""How many windows are taken together at most where labels are few."""
COLUMNS: Final = ["entity_id", "model_version", "score", "label", "matured_at"]


def measure_served_labels(
    workspace: Workspace, model: str, *, known_at_us: int, horizon_s: int, settings: MonitorSettings, seed: int = 0
) -> list[Matured]:  # fmt: skip
    """Figures of each version whose labels matured of late, as of the end of the last whole window.

    Windows lie on a grid of ``labels_window_s``, so that whoever asks gets the same ones; of a version with few labels the last
    ones are taken together.

    Args:
        known_at_us: up to when labels are known, UTC microseconds.
        horizon_s: from a prediction until its label matures.
    """
    window_us = round(settings.labels_window_s) * US_PER_S
    end_us = known_at_us // window_us * window_us
    since_us = end_us - MOST_WINDOWS * window_us
    # A prediction is answered about when it is asked; a day covers replays that name another time.
    labels = read_labels(
        workspace.served_labels(model), since_us=since_us - (horizon_s + DAY_S) * US_PER_S, columns=COLUMNS
    )  # fmt: skip
    matured_us = labels["matured_at"].cast(pa.int64()).to_numpy()
    found = []
    for version in sorted(pc.unique(labels["model_version"]).to_pylist()):
        mine = labels["model_version"].to_numpy() == version
        for windows in range(1, MOST_WINDOWS + 1):
            start_us = end_us - windows * window_us
            own = labels.filter(pa.array(mine & (matured_us >= start_us) & (matured_us < end_us)))
            positives = int(pc.sum(own["label"]).as_py() or 0)
            if own.num_rows >= settings.least_labels and positives >= settings.least_positives:
                break
        if own.num_rows:
            found.append(Matured(model, version, start_us, end_us, **_measure(own, seed)))
    return found


def read_trained(workspace: Workspace, model: str, version: int) -> Trained:
    """What the version's evaluation promised; nothing where it is not registered any more.

    Raises:
        EvaluationError: its evaluation is damaged.
    """
    try:
        path = load(workspace, model, version, require_blessed=False).path / EVALUATION_FILE
    except VersionError:
        return Trained(None, None)
    if not path.exists():
        return Trained(None, None)
    figures = read_evaluation(path)["candidates"][NETWORK]
    return Trained(*(_read(figures.get(name)) for name in ("auc", "log_loss")))


def _measure(rows: pa.Table, seed: int) -> dict[str, Any]:
    label = rows["label"].to_numpy().astype(np.int8)
    score = rows["score"].to_numpy().astype(np.float64)
    unit = rows["entity_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    users, positives = int(unit.max()) + 1, int(label.sum())
    counts = {"labels": len(label), "users": users, "positives": positives, "mean_score": float(score.mean())}
    if users < LEAST_USERS:
        return {**counts, "auc": None, "log_loss": None, "gap": None}
    weights = bootstrap.draw_weights(unit, RESAMPLES, seed=seed)
    both = 0 < positives < len(label)
    return {
        **counts,
        "auc": _figure(bootstrap.auc(label, score, weights)) if both else None,
        "log_loss": _figure(bootstrap.log_loss(label, score, weights)),
        "gap": _figure(bootstrap.calibration_gap(label, score, weights)),
    }


def _figure(resampled: NDArray[np.float64]) -> Figure:
    interval = bootstrap.interval_of(resampled)
    return Figure(interval["value"], interval["error"])


def _read(figure: dict[str, float] | None) -> Figure | None:
    return None if figure is None else Figure(figure["value"], figure["error"])
