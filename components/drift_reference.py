"""The sample that drift is measured from, drawn from a version's training rows and finished by the version itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.declarations import declarations_of
from features.declarations import Field
from features.reference import REFERENCE_FILE, ReferenceFacts, write_reference
from features.zones import CLOCK_FEATURES
from models.cutoffs import COLD
from models.evaluation import Evaluation
from transforms.export import MODEL_RECORD, SAVED_MODEL, load_finisher
from transforms.plan import plan_graph

MOST_ROWS: Final = 20_000
LEAST_ROWS: Final = 5_000
NEWEST_PART: Final = 10
CLOCK: Final = ("local_hour", *CLOCK_FEATURES)
"""Features that tell the time of the request and nothing of the user."""


def write_drift_reference(model: str, rows_path: Path, exported: Path, evaluation: Evaluation, *, seed: int) -> None:
    """Write ``reference.parquet`` beside an exported model.

    Rows are drawn by the seed from the newest tenth of the training rows, copies for unknown users apart: counts over a
    lifetime grow as a log does, so older ones would differ from what is served at once. The exported model finishes and scores
    them, so that they are to the bit what it would serve. It has learned from most of them.

    Args:
        rows_path: Parquet of ``rows.training_schema``.
        exported: folder with ``saved_model/`` and ``model.json``.
        evaluation: of the model; its importance by signal is divided among the signal's features.
    """
    catalog, view = declarations_of(model)
    rows = pq.read_table(rows_path)
    rows = rows.filter(pc.and_(pc.not_equal(rows["split"], COLD), pc.greater(pc.binary_length(rows["state"]), 0)))
    labels = rows["label"].filter(rows["matured"])
    rows = _thin(_take_newest(rows), seed)
    plan = plan_graph(catalog, view)
    outputs = load_finisher(exported / SAVED_MODEL, plan)(rows)
    features = name_features(outputs, rows, json.loads((exported / MODEL_RECORD).read_text(encoding="utf-8")))
    unobserved = [entry.name for entry in view.request if _is_default(rows, entry)]
    kept = {name: values for name, values in features.items() if name not in unobserved}
    groups = dict(zip(plan.finished_names, plan.finished_groups, strict=True))
    facts = ReferenceFacts(
        divide_importance(evaluation, {name: groups.get(name, name) for name in kept}),
        tuple(unobserved),
        len(labels),
        int(pc.sum(labels).as_py() or 0),
    )
    label = pc.if_else(rows["matured"], rows["label"], None)
    fixed = {"now": rows["now"], "score": pa.array(outputs["score"]), "label": label}
    write_reference(exported / REFERENCE_FILE, {name: _whole(values) for name, values in fixed.items()}, kept, facts)


def name_features(outputs: Mapping[str, NDArray[Any]], rows: pa.Table, record: Mapping[str, Any]) -> dict[str, pa.Array]:
    """Finished features by name, null where the graph says missing, and the fields that are strings.

    Histograms that the model takes as they are count single events in hundreds of columns, and are left out: what they come to
    is the score.
    """
    transformed = {name: number for number, name in enumerate(record["transformed_names"])}
    features: dict[str, pa.Array] = {}
    for number, name in enumerate(record["finished_names"]):
        mask = transformed.get(f"{name}_missing")
        missing = None if mask is None else outputs["transformed"][:, mask] > 0
        if name not in CLOCK and name not in record.get("counted_names", ()):
            features[name] = pa.array(outputs["finished"][:, number], pa.float32(), mask=missing)
    for entry in (*record["profile_fields"], *record["request_fields"]):
        if entry["dtype"] == "string":
            features[entry["name"]] = _whole(rows[entry["name"]].fill_null(entry["default"]))
    return features


def divide_importance(evaluation: Evaluation, groups: Mapping[str, str]) -> dict[str, float]:
    """By feature, an equal part of what its group's shuffling costs in log loss; a group that helps by it counts 0."""
    sizes: dict[str, int] = {}
    for group in groups.values():
        sizes[group] = sizes.get(group, 0) + 1
    measured = (evaluation.get("importance") or {}).get("groups", ())
    cost = {entry["group"]: max(float(entry["log_loss"]["value"]), 0.0) for entry in measured}
    return {name: cost.get(group, 0.0) / sizes[group] for name, group in groups.items()}


def _is_default(rows: pa.Table, entry: Field) -> bool:
    return bool(pc.all(pc.equal(rows[entry.name].fill_null(entry.default), entry.default)).as_py())


def _take_newest(rows: pa.Table) -> pa.Table:
    """The newest tenth, or as many as are enough to be told apart by the hour of the day."""
    wanted = max(rows.num_rows // NEWEST_PART, LEAST_ROWS)
    return rows.take(pc.sort_indices(rows["now"])[-wanted:])


def _thin(rows: pa.Table, seed: int) -> pa.Table:
    if rows.num_rows <= MOST_ROWS:
        return rows
    return rows.take(np.sort(np.random.default_rng(seed).choice(rows.num_rows, MOST_ROWS, replace=False)))


def _whole(values: Any) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
