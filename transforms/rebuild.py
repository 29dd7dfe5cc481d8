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
from features.event_log.complete import CompletePartition
from features.fingerprints import hash_states
from features.partitions import partition_of
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

    def states(self, log: CompletePartition, entity_ids: pa.Array, seen_to: Ints, wanted: Sequence[int]) -> RebuiltStates:
        """States of n rows of one log partition.

        Args:
            log: all of the partition that can still be read.
            entity_ids: (n,) strings.
            seen_to: (n,) the offset that each row's shard had been read to, none of them dropped; ``NOTHING_SEEN`` for an
                empty state.
            wanted: numbers of the rows whose bytes are returned too.
        """
        distinct_ids = entity_ids.unique()
        codes = pc.index_in(entity_ids, value_set=distinct_ids).to_numpy().astype(np.int64)
        partition = int(partition_of(distinct_ids.slice(0, 1), self._catalog.log_partitions)[0])
        last = _last_offsets(log, distinct_ids, codes, seen_to, log.dropped_to(partition))
        width = int(last.max(initial=0)) + 2
        # Sorted by entity, so that chunks share few of them.
        distinct, of_row = np.unique(codes * width + last + 1, return_inverse=True)
        entity, offset = distinct // width, distinct % width - 1
        hashes = np.repeat(hash_states([b""]), len(distinct))
        kept: dict[int, bytes] = {}
        asked = set(of_row[list(wanted)].tolist())
        present = np.flatnonzero(offset >= 0)
        for start in range(0, len(present), STATES_PER_CHUNK):
            chunk = present[start : start + STATES_PER_CHUNK]
            ids = distinct_ids.take(pa.array(entity[chunk]))
            mine = log.events.filter(pc.is_in(log.events["entity_id"], value_set=ids))
            states = states_up_to(mine, self._catalog, self._view, ids, offset[chunk], log.base).to_pylist()
            hashes[chunk] = hash_states(states)
            kept.update((number, state) for number, state in zip(chunk.tolist(), states, strict=True) if number in asked)
        return RebuiltStates(hashes[of_row], {row: kept.get(int(of_row[row]), b"") for row in wanted})

    def states_for_training(self, log: CompletePartition, entity_ids: pa.Array, now_us: Ints) -> pa.LargeBinaryArray:
        """States as the training kernel has them at each row's ``now``, none of which is before what the log has kept."""
        mine = log.events.filter(pc.is_in(log.events["entity_id"], value_set=entity_ids))
        return states_as_known(mine, self._catalog, self._view, entity_ids, now_us, log.base)

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


def _last_offsets(log: CompletePartition, distinct: pa.Array, codes: Ints, seen_to: Ints, dropped_to: int) -> Ints:
    """(n,) offset of each entity's last event at or before ``seen_to``, or that of the log's base; -1 where nothing was seen.

    Rows that saw the same events get the same offset.
    """
    floor = np.where(seen_to >= 0, dropped_to, NOTHING_SEEN)
    if not log.events.num_rows:
        return floor
    of_event = pc.fill_null(pc.index_in(log.events["entity_id"], value_set=distinct), -1).to_numpy().astype(np.int64)
    offsets = log.events["log_offset"].to_numpy()
    width = int(max(offsets.max(), seen_to.max(initial=0))) + 2
    place = np.sort(of_event * width + offsets)
    found = np.searchsorted(place, codes * width + seen_to, side="right") - 1
    at = place[np.maximum(found, 0)]
    seen = (found >= 0) & (at // width == codes) & (seen_to >= 0)
    last: Ints = np.where(seen, at % width, floor)
    return last
