"""Compare what a server returned with what the batch path gives for the same entities and time.

Rows are rebuilt from the event log and finished by the model's own SavedModel, without the store, the server or its wire.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.declarations import declarations_of
from features.events import read_events
from features.point_in_time import states_as_known
from features.profiles import profiles_as_of
from features.rows import TIME
from features.workspace import Workspace

SCORE_TOLERANCE = 1e-6
"""Matrix products differ in their last bits by batch size; features must not differ at all."""


@dataclass(frozen=True)
class Parity:
    """Values compared and values that differ: integers and transformed floats to the bit, scores by the tolerance."""

    values: int
    mismatches: int


def compare_served(
    workspace: Workspace, model: str, saved_model: Path, predictions: Sequence[Mapping[str, Any]], *, now_us: int
) -> Parity:
    """Count the differences between served predictions and the batch path.

    Args:
        saved_model: of the version that was served.
        predictions: V1 predictions with their features, all asked for at ``now_us``.
        now_us: UTC microseconds; the store had been filled as of this time.
    """
    from transforms.export import load_finisher
    from transforms.plan import plan_graph

    catalog, view = declarations_of(model)
    plan = plan_graph(catalog, view)
    ids = pa.array([prediction["entity_id"] for prediction in predictions], pa.string())
    moments = np.full(len(ids), now_us)
    events = read_events(workspace, catalog, view.entity, known_by_us=now_us, lag_s=view.lag_s)
    states = states_as_known(events, catalog, view, ids, moments)
    rows = pa.table({"entity_id": ids, "now": pa.array(moments, TIME), "state": states})
    for profile in view.profiles:
        for name, column in zip(*_columns(profiles_as_of(workspace, catalog, profile, ids, moments)), strict=True):
            rows = rows.append_column(name, column)
    batch = load_finisher(saved_model, plan)(rows)
    served = {
        "integers": _matrix(predictions, "integers", plan.integer_names, np.dtype(np.int64)),
        "transformed": _matrix(predictions, "transformed", plan.transformed_names, np.dtype(np.float32)),
    }
    differing = sum(int((served[name] != batch[name]).sum()) for name in served)
    scores = np.array([prediction["score"] for prediction in predictions])
    differing += int((np.abs(scores - batch["score"]) > SCORE_TOLERANCE).sum())
    return Parity(sum(block.size for block in served.values()) + len(scores), differing)


def _columns(table: pa.Table) -> tuple[list[str], list[pa.ChunkedArray]]:
    return table.column_names, table.columns


def _matrix(predictions: Sequence[Mapping[str, Any]], block: str, names: list[str], dtype: np.dtype[Any]) -> np.ndarray:
    return np.array([[prediction[block][name] for name in names] for prediction in predictions], dtype=dtype)
