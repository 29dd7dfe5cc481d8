"""Finished rows of a model of slots: counts by hour of the week as inputs, and the hours in which outcomes then fell."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.errors import explain
from features.slots import SLOTS
from features.zones import CLOCK_FEATURES
from models.cutoffs import COLD, TRAIN, VALIDATION
from models.errors import TrainingError
from models.frame import Flags, Floats, Matrix
from models.slot_layer import SlotColumns
from models.slot_spec import SlotSpec

COLUMNS: Final = ("entity_id", "matured", "split", "transformed", "finished", "outcome_slots", "earlier_outcome_slots")


@dataclass(frozen=True)
class SlotRows:
    """Matured rows.

    Attributes:
        entity_ids: (n,) strings.
        split: (n,) names of splits.
        transformed: (n, T) what the model sees.
        finished: (n, F) unscaled features, missing ones 0.
        finished_names: F names.
        outcomes: (n, 168) counts of outcomes by slot; of rows to train on as known when the test begins.
        columns: where the inputs lie.
    """

    entity_ids: pa.Array
    split: NDArray[np.str_]
    transformed: Matrix
    finished: Matrix
    finished_names: tuple[str, ...]
    outcomes: Matrix
    columns: SlotColumns

    def __len__(self) -> int:
        return len(self.split)

    def where(self, rows: Flags) -> SlotRows:
        """The rows that are flagged."""
        parts = (self.split[rows], self.transformed[rows], self.finished[rows])
        return SlotRows(self.entity_ids.filter(pa.array(rows)), *parts, self.finished_names, self.outcomes[rows], self.columns)

    def of(self, *splits: str) -> SlotRows:
        """The rows of these splits.

        Raises:
            TrainingError: none of them has an outcome.
        """
        rows = self.where(np.isin(self.split, splits))
        if not rows.outcomes.sum():
            raise TrainingError(
                explain("rows cannot teach or test hours of the week", which=f"split {', '.join(splits)} with {len(rows)} rows",
                        expected="rows with outcomes", got="none", next_step="import more history or widen the horizon")
            )  # fmt: skip
        return rows

    def feature(self, name: str) -> Floats:
        """One finished feature, (n,).

        Raises:
            TrainingError: the view does not finish a feature of that name.
        """
        if name not in self.finished_names:
            raise _lacks("finished feature", name)
        return self.finished[:, self.finished_names.index(name)].astype(np.float64)

    @property
    def acts(self) -> Matrix:
        """(n, 168) what each user had done by slot."""
        return self.transformed[:, self.columns.acts]

    @property
    def sends(self) -> Matrix:
        """(n, 168) what each user had been sent by slot; all 0 where nothing is."""
        if not self.columns.sends:
            return np.zeros((len(self), SLOTS), dtype=np.float32)
        return self.transformed[:, self.columns.sends]


def read_slot_rows(path: Path, slots: SlotSpec, *, as_served: bool = False) -> SlotRows:
    """Read the matured rows of a features file.

    Args:
        path: Parquet with ``COLUMNS``, and ``transformed_names`` and ``finished_names`` in its metadata.
        slots: which columns count what.
        as_served: with all that was known at the end, also of rows to train on.
    Raises:
        TrainingError: a column is absent.
    """
    schema = pq.read_schema(path)
    lacking = [name for name in COLUMNS if name not in schema.names]
    if lacking:
        raise _lacks("column", ", ".join(lacking))
    table = pq.read_table(path, columns=list(COLUMNS))
    table = table.filter(table["matured"])  # by ascending ``now``, copies of unknown users last
    split = np.array(table["split"].to_pylist(), dtype=np.str_)
    outcomes = count_slots(table["outcome_slots"])
    if not as_served:
        trained = np.isin(split, (TRAIN, VALIDATION))
        outcomes[trained] = count_slots(table["earlier_outcome_slots"])[trained]
    metadata = schema.metadata or {}
    names = tuple(json.loads(metadata[b"transformed_names"]))
    return SlotRows(
        entity_ids=table["entity_id"].combine_chunks(),
        split=split,
        transformed=_matrix(table["transformed"]),
        finished=_matrix(table["finished"]),
        finished_names=tuple(json.loads(metadata[b"finished_names"])),
        outcomes=outcomes,
        columns=find_columns(names, slots),
    )


def rows_to_learn(rows: SlotRows, *, as_served: bool) -> SlotRows:
    """Rows that a network may learn from: those before the test, or as it is served all."""
    chosen = rows.split != COLD if as_served else np.isin(rows.split, (TRAIN, VALIDATION))
    return rows.where(chosen)


def find_columns(names: tuple[str, ...], slots: SlotSpec) -> SlotColumns:
    """The columns of a view's transformed rows that a model of slots reads.

    Raises:
        TrainingError: the view does not count by hour of the week as the spec says.
    """
    place = {name: number for number, name in enumerate(names)}
    if any(name not in place for name in CLOCK_FEATURES):
        raise _lacks("reading of the local clock (`time_zone` of the view)", CLOCK_FEATURES[0])
    segments = [name for name in names if slots.segment and re.fullmatch(rf"{slots.segment}_(\d+|other)", name)]
    if slots.segment and not segments:
        raise _lacks("segment", slots.segment)
    return SlotColumns(
        acts=_counted(names, slots.acts),
        sends=_counted(names, slots.sends) if slots.sends else (),
        segments=tuple(place[name] for name in segments),
        clock=tuple(place[name] for name in CLOCK_FEATURES),
    )


def count_slots(column: Any) -> Matrix:
    """(n, 168) counts of lists of slots; a null list counts as empty."""
    lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    counts = np.zeros((len(lists), SLOTS), dtype=np.float32)
    lengths = np.nan_to_num(np.array(pa.compute.list_value_length(lists).to_pylist(), dtype=np.float64)).astype(np.int64)
    values = lists.drop_null().flatten().to_numpy() if len(lists) else np.zeros(0, np.int16)
    np.add.at(counts, (np.repeat(np.arange(len(lists)), lengths), values.astype(np.int64)), 1)
    return counts


def _counted(names: tuple[str, ...], signal: str) -> tuple[int, ...]:
    counts = re.compile(rf"{re.escape(signal)}_count_[a-z0-9]+_h\d{{3}}")
    found = [number for number, name in enumerate(names) if counts.fullmatch(name)]
    if len(found) != SLOTS:
        raise _lacks("signal that the view counts by hour of the week over one window", signal)
    return tuple(found)


def _lacks(what: str, name: str) -> TrainingError:
    return TrainingError(
        explain(f"features lack a {what}", which=repr(name), expected="one that the view finishes", got="none",
                next_step="correct the model's spec or its view, and fit the graph again")
    )  # fmt: skip


def _matrix(column: pa.ChunkedArray) -> Matrix:
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    matrix: Matrix = flat.reshape(-1, column.type.list_size).astype(np.float32, copy=False)
    return matrix
