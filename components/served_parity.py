"""Does a running server answer what the batch path computes? The same users at the same instants, value by value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from components.declarations import declarations_of
from components.joined_rows import join_as_known
from features.declarations import Catalog, View
from features.events import read_events
from features.point_in_time import states_as_known
from features.profiles import profiles_as_of
from features.rows import ARROW_TYPES, TIME
from features.workspace import Workspace
from transforms.export import SAVED_MODEL, load_finisher
from transforms.plan import plan_graph

SCORE_TOLERANCE: Final = 1e-6
"""Matrix products differ in their last bits by batch size; everything before the network must be equal bit for bit."""

SERVED_NAMES: Final = {"integers": "integers", "finished": "features", "transformed": "transformed"}
"""Outputs of the graph, and what a V1 reply calls them."""


@dataclass(frozen=True)
class Parity:
    """How many values were compared, and how many of them differed, by output."""

    rows: int
    values: int
    mismatches: dict[str, int]

    @property
    def total(self) -> int:
        """Values that differed."""
        return sum(self.mismatches.values())


def compare_with_batch(
    workspace: Workspace, model: str, model_path: Path, as_of_us: int, served: Sequence[Mapping[str, Any]]
) -> Parity:
    """Rebuild served rows from the event log as of the store's time, finish them with the model's graph, and compare.

    Args:
        model: name of its spec.
        model_path: folder of the served version.
        as_of_us: what the online store was filled with, UTC microseconds.
        served: one mapping a row: ``instance`` as it was sent, with ``entity_id``, ``now`` and request fields, and
            ``prediction`` as it came back, with the features.
    """
    catalog, view = declarations_of(model)
    rows = rebuild_rows(workspace, catalog, view, as_of_us, [entry["instance"] for entry in served])
    batch = load_finisher(model_path / SAVED_MODEL, plan_graph(catalog, view))(rows)
    predictions = [entry["prediction"] for entry in served]
    mismatches, values = {}, 0
    for output, name in SERVED_NAMES.items():
        answered = np.array([list(entry[name].values()) for entry in predictions], dtype=batch[output].dtype)
        mismatches[output] = int((answered != batch[output]).sum())
        values += answered.size
    scores = np.array([entry["score"] for entry in predictions], dtype=np.float64)
    mismatches["score"] = int((np.abs(scores - batch["score"]) > SCORE_TOLERANCE).sum())
    return Parity(len(served), values + len(served), mismatches)


def rebuild_rows(
    workspace: Workspace, catalog: Catalog, view: View, as_of_us: int, instances: Sequence[Mapping[str, Any]]
) -> pa.Table:
    """Inputs of the graph from the log and the profiles, as known at ``as_of_us``, to be finished at each row's ``now``."""
    entity_ids = pa.array([entry["entity_id"] for entry in instances], pa.string())
    known_us = np.full(len(instances), as_of_us, dtype=np.int64)
    columns = {
        "state": states_as_known(read_events(workspace, catalog, view.entity), catalog, view, entity_ids, known_us),
        "now": pa.array([entry["now"] for entry in instances], pa.int64()).cast(TIME),
    }
    for profile in view.profiles:
        values = profiles_as_of(workspace, catalog, profile, entity_ids, known_us)
        columns |= {name: values[name] for name in values.column_names}
    for entry in view.request:
        sent = [instance.get(entry.name, entry.default) for instance in instances]
        columns[entry.name] = pa.array(sent, ARROW_TYPES[entry.dtype])
    for join in view.joins:
        keys = pa.array([instance.get(join.key, "") for instance in instances], pa.string())
        now_us = columns["now"].cast(pa.int64()).to_numpy()
        columns |= join_as_known(workspace, catalog, join, keys, seen_us=known_us, now_us=now_us)
    return pa.table(columns)
