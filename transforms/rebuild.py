"""Served rows made again by the batch path: state from the log up to the offset that a row names, profiles as of when the
store's values stood, features and score by the version's own SavedModel at the row's ``now``.

Rows that saw the same events share one state, so the work is one replay of the distinct states, in chunks of bounded size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from numpy.typing import NDArray

from features.declarations import Catalog, View
from features.fingerprints import hash_states
from features.point_in_time import states_as_known, states_up_to
from features.profiles import profiles_as_of
from features.rows import TIME
from features.workspace import Workspace
from transforms.export import Arrays, WindowGraph, graph_inputs, load_finisher
from transforms.plan import plan_graph

Ints = NDArray[np.int64]

STATES_PER_CHUNK: Final = 20_000
"""Distinct states replayed at one time: 60 MB of bytes at 3 KB each."""
FINISHED_PER_CHUNK: Final = 4_096
NOTHING_SEEN: Final = -1
WINDOWS: Final = "windows"
"""Integers of the window graph as the code at hand builds it, beside those of the version's own graph."""


@dataclass(frozen=True)
class RebuiltStates:
    """States of n rows.

    Attributes:
        hashes: (n,) as ``features.fingerprints.hash_states`` has them.
        bytes_of: the bytes of those rows that were asked for, by row number.
    """

    hashes: Ints
    bytes_of: Mapping[int, bytes]


class RowBuilder:
    """Rebuilds rows of one view version, finished by one model version."""

    def __init__(self, workspace: Workspace, catalog: Catalog, view: View, saved_model: Path) -> None:
        """Load the graph.

        Raises:
            OSError: there is no SavedModel.
        """
        self._workspace, self._catalog, self._view = workspace, catalog, view
        self.plan = plan_graph(catalog, view)
        self._finisher = load_finisher(saved_model, self.plan)
        self._windows = WindowGraph(self.plan)

    def states(self, events: pa.Table, entity_ids: pa.Array, seen_to: Ints, wanted: Sequence[int]) -> RebuiltStates:
        """States of n rows of one log partition.

        Args:
            events: the partition's living events, each once.
            entity_ids: (n,) strings.
            seen_to: (n,) the offset that each row's shard had been read to; ``NOTHING_SEEN`` for an empty state.
            wanted: numbers of the rows whose bytes are returned too.
        """
        last = _last_events(events, entity_ids, seen_to)
        distinct, of_row = np.unique(last, return_inverse=True)
        hashes = np.repeat(hash_states([b""]), len(distinct))
        kept: dict[int, bytes] = {}
        asked = set(of_row[list(wanted)].tolist())
        first = int(np.searchsorted(distinct, 0))
        order = _by_entity(events, distinct[first:]) + first
        for start in range(0, len(order), STATES_PER_CHUNK):
            chunk = order[start : start + STATES_PER_CHUNK]
            named = events.select(["entity_id", "log_offset"]).take(pa.array(distinct[chunk]))
            ids = named["entity_id"].combine_chunks()
            mine = events.filter(pc.is_in(events["entity_id"], value_set=ids))
            states = states_up_to(mine, self._catalog, self._view, ids, named["log_offset"].to_numpy()).to_pylist()
            hashes[chunk] = hash_states(states)
            kept.update((number, state) for number, state in zip(chunk.tolist(), states, strict=True) if number in asked)
        return RebuiltStates(hashes[of_row], {row: kept.get(int(of_row[row]), b"") for row in wanted})

    def states_for_training(self, events: pa.Table, entity_ids: pa.Array, now_us: Ints) -> pa.LargeBinaryArray:
        """States as the training kernel has them at each row's ``now``."""
        mine = events.filter(pc.is_in(events["entity_id"], value_set=entity_ids))
        return states_as_known(mine, self._catalog, self._view, entity_ids, now_us)

    def profiles(self, entity_ids: pa.Array, as_of_us: Ints) -> dict[str, pa.Array]:
        """(n,) values of each of the view's profile fields, in its order, as of a time for each row; defaults filled in."""
        columns: dict[str, pa.Array] = {}
        for profile in self._view.profiles:
            found = profiles_as_of(self._workspace, self._catalog, profile, entity_ids, as_of_us)
            columns |= {name: found[name].combine_chunks() for name in found.column_names}
        return columns

    def finish(self, states: Sequence[bytes] | pa.Array, now_us: Ints, fields: Mapping[str, Any]) -> Arrays:
        """Outputs of the version's graph and model for n rows, and ``WINDOWS``.

        Args:
            fields: (n,) values of profile and request fields by name.
        """
        rows = pa.table({
            "state": pa.array(states, pa.large_binary()), "now": pa.array(now_us).cast(TIME),
            **{name: pa.array(values) for name, values in fields.items()},
        })  # fmt: skip
        parts = [
            self._finish_some(rows.slice(start, FINISHED_PER_CHUNK)) for start in range(0, rows.num_rows, FINISHED_PER_CHUNK)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _finish_some(self, rows: pa.Table) -> Arrays:
        inputs = {name: tf.constant(values) for name, values in graph_inputs(rows, self.plan).items()}
        return self._finisher(rows) | {WINDOWS: self._windows.serve(inputs)["integers"].numpy()}


def _last_events(events: pa.Table, entity_ids: pa.Array, seen_to: Ints) -> Ints:
    """Row in ``events`` of each entity's last event at or before an offset; -1 where there is none."""
    if not events.num_rows:
        return np.full(len(entity_ids), -1)
    distinct = entity_ids.unique()
    codes = pc.index_in(entity_ids, value_set=distinct).to_numpy().astype(np.int64)
    of_event = pc.fill_null(pc.index_in(events["entity_id"], value_set=distinct), -1).to_numpy().astype(np.int64)
    offsets = events["log_offset"].to_numpy()
    width = int(max(offsets.max(), seen_to.max(initial=0))) + 2
    place = of_event * width + offsets
    order = np.argsort(place, kind="stable")
    found = np.searchsorted(place[order], codes * width + seen_to, side="right") - 1
    at = order[np.maximum(found, 0)]
    last: Ints = np.where((found >= 0) & (of_event[at] == codes) & (seen_to >= 0), at, -1)
    return last


def _by_entity(events: pa.Table, rows: Ints) -> Ints:
    """The order in which rows of one entity stand together, so that chunks share few entities."""
    ids = events["entity_id"].take(pa.array(rows)).combine_chunks().dictionary_encode()
    order: Ints = np.argsort(ids.indices.to_numpy(), kind="stable")
    return order
