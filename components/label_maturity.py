"""How far the labels of each served version have matured, and how true its scores have turned out."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.declarations import declarations_of
from components.served_labels import FAR_US, NEVER_US, known_until, wait_us
from features.predictions import list_segments, read_segment
from features.served_labels import Seen, read_labels, read_progress
from features.workspace import Workspace
from models import bootstrap
from models.spec_checks import require_probability
from models.specs import load_spec

RESAMPLES: Final = 200
LEAST_USERS: Final = 20
"""Users below whom a figure has no interval."""
COLUMNS: Final = ["entity_id", "model_version", "revision", "score", "label"]
Key = tuple[int, str]
"""Version and revision."""


@dataclass(frozen=True)
class Maturity:
    """One version as one revision.

    Attributes:
        open: logged predictions whose label has not matured by ``known_at_us``.
        due: matured, but not asked for yet: the next run labels them, or says why it cannot.
        labelled, users, positives: in the table of labels; rows, different users, rows with label 1.
        mean_score: of the labelled; beside it ``positives / labelled`` says how well calibrated they are as a whole.
        auc, log_loss: of the labelled, in nats: ``value``, with ``low`` and ``high`` of a 95 % interval that draws users
            (``models.bootstrap``); None where there is no label or, for the AUC, only one kind.
    """

    model: str
    model_version: int
    revision: str
    known_at_us: int
    open: int
    due: int
    labelled: int
    users: int
    positives: int
    mean_score: float | None
    auc: dict[str, float] | None
    log_loss: dict[str, float] | None

    def describe(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def summarize_labels(workspace: Workspace, model: str, *, now_us: int, seed: int = 0) -> list[Maturity]:
    """Label maturity by version and revision, the newest version first; versions that only the table still knows too.

    Raises:
        PlumblineError: the model is unknown, or its score is no probability of its label, or a log or the table is damaged.
    """
    require_probability(load_spec(model), "judging served predictions")
    catalog, view = declarations_of(model)
    known_at_us = known_until(workspace, catalog, view.entity, now_us)
    waiting, due = count_waiting(workspace, model, known_at_us)
    labels = read_labels(workspace.served_labels(model), columns=COLUMNS)
    names = zip(labels["model_version"].to_pylist(), labels["revision"].to_pylist(), strict=True)
    keys: set[Key] = {*waiting, *due, *names}
    found = []
    for version, revision in sorted(keys, key=lambda key: (-key[0], key[1])):
        mine = pc.and_(pc.equal(labels["model_version"], version), pc.equal(labels["revision"], revision))
        own, key = labels.filter(mine), (version, revision)
        found.append(
            Maturity(model, version, revision, max(known_at_us, 0), waiting[key], due[key], **_measure(own, seed=seed))
        )
    return found


def count_waiting(workspace: Workspace, model: str, known_at_us: int) -> tuple[Counter[Key], Counter[Key]]:
    """Predictions that have not matured, and those that have but were not asked for, by version and revision."""
    wait, progress = wait_us(load_spec(model).label), read_progress(workspace.served_labels(model))
    waiting: Counter[Key] = Counter()
    due: Counter[Key] = Counter()
    for path in list_segments(workspace.predictions(model)):
        seen = progress.get(path.name, Seen(0, NEVER_US, FAR_US))
        for number, rows in read_segment(path, ["model_version", "revision", "now"]):
            matured_us = rows["now"].cast(pa.int64()).to_numpy() + wait
            asked = (matured_us <= seen.known_at_us) & (number < seen.frames)
            _count(waiting, rows, (matured_us > known_at_us) & ~asked)
            _count(due, rows, (matured_us <= known_at_us) & ~asked)
    return waiting, due


def _count(counter: Counter[Key], rows: pa.Table, chosen: NDArray[np.bool_]) -> None:
    keys = rows.filter(pa.array(chosen)).group_by(["model_version", "revision"]).aggregate([([], "count_all")])
    for row in keys.to_pylist():
        counter[row["model_version"], row["revision"]] += row["count_all"]


def _measure(rows: pa.Table, *, seed: int) -> dict[str, Any]:
    """The fields of ``Maturity`` that labels give."""
    label = rows["label"].to_numpy().astype(np.int8)
    score = rows["score"].to_numpy().astype(np.float64)
    unit = rows["entity_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    users = int(unit.max()) + 1 if len(unit) else 0
    counts = {"labelled": len(label), "users": users, "positives": int(label.sum())}
    if not len(label):
        return {**counts, "mean_score": None, "auc": None, "log_loss": None}
    weights = bootstrap.draw_weights(unit, RESAMPLES if users >= LEAST_USERS else 0, seed=seed)
    both = 0 < counts["positives"] < len(label)
    return {
        **counts,
        "mean_score": float(score.mean()),
        "auc": _figure(bootstrap.auc(label, score, weights)) if both else None,
        "log_loss": _figure(bootstrap.log_loss(label, score, weights)),
    }


def _figure(resampled: NDArray[np.float64]) -> dict[str, float]:
    """A figure with its interval, or alone where it has too few users for one."""
    if len(resampled) == 1:
        return {"value": float(resampled[0])}
    return {name: value for name, value in bootstrap.interval_of(resampled).items() if name != "error"}
