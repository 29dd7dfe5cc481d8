"""Label drift: labels of what a revision served, as they matured, beside the rate of the version's training rows.

Windows are whole days of maturing on a grid of days, so that whoever asks judges the same one; of few labels some days are
taken together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.layout import DAY_S, US_PER_S
from features.reference import REFERENCE_FILE
from features.served_labels import read_labels
from features.workspace import Workspace
from monitoring.drift.judge import Window, judge_labels
from monitoring.drift.predictions import once_an_entity
from monitoring.drift.reference import read_training_reference
from monitoring.drift.sample import Sample
from monitoring.drift.settings import DriftSettings
from monitoring.verdicts import Verdict

MONITOR: Final = "drift.matured.labels"
MOST_DAYS: Final = 7
DAY_US: Final = DAY_S * US_PER_S
COLUMNS: Final = ["entity_id", "now", "model_version", "revision", "label", "matured_at"]


def judge_matured_labels(
    workspace: Workspace, service: str, model: str, settings: DriftSettings, *, known_at_us: int, horizon_us: int
) -> Iterator[Verdict]:  # fmt: skip
    """A verdict a revision whose labels matured within the last whole days, on the newest version that it answered with.

    Args:
        known_at_us: up to when labels are known, UTC microseconds.
        horizon_us: from a prediction until its label matures.

    Raises:
        StoreError: a version has no reference.
    """
    end_us = known_at_us // DAY_US * DAY_US
    since_us = end_us - MOST_DAYS * DAY_US
    labels = read_labels(
        workspace.served_labels(model), since_us=since_us - horizon_us - DAY_US, columns=[*COLUMNS, "answered_at"]
    )  # fmt: skip
    matured_us = labels["matured_at"].cast(pa.int64()).to_numpy()
    labels = labels.filter(pa.array((matured_us >= since_us) & (matured_us < end_us)))
    for revision in sorted(pc.unique(labels["revision"]).to_pylist()):
        own = labels.filter(pc.equal(labels["revision"], revision))
        version = pc.max(own["model_version"]).as_py()
        own = own.filter(pc.equal(own["model_version"], version))
        path = workspace.model(model, version) / REFERENCE_FILE
        reference = read_training_reference(path)
        window = _window(own, f"{service}/{revision}", end_us, settings)
        verdict = judge_labels(window, reference, settings)
        if verdict is not None:
            yield replace(verdict, monitor=MONITOR, evidence={**verdict.evidence, "version": version})


def _window(labels: pa.Table, subject: str, end_us: int, settings: DriftSettings) -> Window:
    """The last day, or as many as it takes to have enough labels of different entities."""
    matured_us = labels["matured_at"].cast(pa.int64()).to_numpy()
    for days in range(1, MOST_DAYS + 1):
        start_us = end_us - days * DAY_US
        rows = once_an_entity(labels.filter(pa.array(matured_us >= start_us)))
        if rows.num_rows >= settings.least_rows:
            break
    sample = Sample(
        numbers=np.zeros((rows.num_rows, 0), np.float32),
        names=(),
        at_us=rows["now"].cast(pa.int64()).to_numpy(),
        label=rows["label"].to_numpy().astype(np.float32),
    )
    return Window(subject, start_us, end_us, sample, rows.num_rows)
