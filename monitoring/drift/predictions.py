"""Whole prediction rows as samples: what a model saw and said, by feature name, one row an entity."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import explain
from monitoring.drift.sample import Floats, Sample
from monitoring.errors import DriftError

COLUMNS = ["answered_at", "model_version", "revision", "entity_id", "now", "score", "cold", "degraded", "fields", "finished",
           "transformed"]  # fmt: skip
"""What is read of ``rows.PREDICTION``."""
MODEL_RECORD = "model.json"


@dataclass(frozen=True)
class FeatureNames:
    """What the columns of a version's prediction rows are called.

    Attributes:
        finished: names of ``finished``.
        mask: for each of them its column in ``transformed`` that says missing, or -1.
        strings: fields that are strings, with their defaults.
    """

    finished: tuple[str, ...]
    mask: tuple[int, ...]
    strings: Mapping[str, str]


def read_names(version: Path) -> FeatureNames:
    """Names of a version's features, from its folder.

    Raises:
        DriftError: its ``model.json`` cannot be read.
    """
    path = version / MODEL_RECORD
    try:
        record: Any = json.loads(path.read_text(encoding="utf-8"))
        transformed = {name: number for number, name in enumerate(record["transformed_names"])}
        fields = (*record["profile_fields"], *record["request_fields"])
        return FeatureNames(
            tuple(record["finished_names"]),
            tuple(transformed.get(f"{name}_missing", -1) for name in record["finished_names"]),
            {entry["name"]: entry["default"] for entry in fields if entry["dtype"] == "string"},
        )
    except (OSError, ValueError, KeyError) as error:
        raise DriftError(
            explain("model version does not say what its features are called", which=str(path), expected="names in model.json",
                    got=" ".join(str(error).split()), next_step="register the model again")
        ) from error  # fmt: skip


def sample_whole_rows(rows: pa.Table, names: FeatureNames) -> Sample:
    """Features of the rows that were logged whole, of one version, each entity once.

    Args:
        rows: ``COLUMNS`` of ``rows.PREDICTION``.
    """
    rows = once_an_entity(rows.filter(pc.is_valid(rows["finished"])))
    finished = _matrix(rows["finished"], len(names.finished))
    transformed = rows["transformed"]
    masked = [number for number, column in enumerate(names.mask) if column >= 0]
    if masked and rows.num_rows:
        width = len(transformed[0].as_py())
        missing = _matrix(transformed, width)[:, [names.mask[number] for number in masked]] > 0
        finished[:, masked] = np.where(missing, np.nan, finished[:, masked])
    fields = [json.loads(text) for text in rows["fields"].to_pylist()]
    return Sample(
        numbers=finished,
        names=names.finished,
        categories={name: pa.array([row.get(name) for row in fields], pa.string()) for name in names.strings},
        **_fixed(rows),
    )


def sample_scores(rows: pa.Table) -> Sample:
    """Scores of all rows, logged whole or not, each entity once."""
    rows = once_an_entity(rows)
    return Sample(numbers=np.zeros((rows.num_rows, 0), np.float32), names=(), **_fixed(rows))


def once_an_entity(rows: pa.Table) -> pa.Table:
    """The first row of each entity: rows of one are alike, and tests take rows for independent."""
    if not rows.num_rows:
        return rows
    codes = rows["entity_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    _, first = np.unique(codes, return_index=True)
    return rows.take(np.sort(first))


def _fixed(rows: pa.Table) -> dict[str, Any]:
    score: Floats = rows["score"].to_numpy().astype(np.float32)
    return {
        "at_us": rows["now"].cast(pa.int64()).to_numpy(),
        "score": score,
        "flags": {
            "cold": rows["cold"].to_numpy().astype(np.bool_),
            "degraded": pc.is_valid(rows["degraded"]).to_numpy().astype(np.bool_),
        },
    }


def _matrix(values: pa.ChunkedArray, width: int) -> Floats:
    flat: Floats = np.array(pc.list_flatten(values).to_numpy(), np.float32)
    return flat.reshape(-1, width)
