"""Finished rows in memory: what the fitted graph made of training rows, as arrays."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.errors import explain
from features.layout import US_PER_S
from models.errors import TrainingError

Floats = NDArray[np.float64]
Matrix = NDArray[np.float32]
Flags = NDArray[np.bool_]

OUTCOME_COLUMNS: Final = ("observed_until", "outcome_time", "outcome_known_time", "closed_time")
COLUMNS: Final = ("entity_id", "label", "matured", "split", "finished", "transformed")


@dataclass(frozen=True)
class Frame:
    """Matured rows.

    Attributes:
        entity_ids: (n,) strings.
        label: (n,) 0 or 1.
        split: (n,) names of splits.
        transformed: (n, T) what a network sees.
        finished: (n, F) unscaled features, missing ones 0.
        finished_names: F names.
        transformed_groups: for each of the T columns the signal or field that it comes from; empty where nobody asks.
    """

    entity_ids: pa.Array
    label: NDArray[np.int8]
    split: NDArray[np.str_]
    transformed: Matrix
    finished: Matrix
    finished_names: tuple[str, ...]
    transformed_groups: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.label)

    def where(self, rows: Flags) -> Frame:
        """The rows that are flagged."""
        return Frame(
            self.entity_ids.filter(pa.array(rows)),
            self.label[rows],
            self.split[rows],
            self.transformed[rows],
            self.finished[rows],
            self.finished_names,
            self.transformed_groups,
        )

    def of(self, *splits: str) -> Frame:
        """The rows of these splits.

        Raises:
            TrainingError: there are none, or all of their labels are alike.
        """
        rows = self.where(np.isin(self.split, splits))
        classes = np.unique(rows.label).tolist()
        if classes != [0, 1]:
            raise TrainingError(
                explain(
                    "rows cannot teach or test a classifier",
                    which=f"split {', '.join(splits)} with {len(rows)} rows",
                    expected="labels 0 and 1",
                    got=f"labels {classes}",
                    next_step="import more history or widen the horizon",
                )
            )
        return rows

    def feature(self, name: str) -> Floats:
        """One finished feature, (n,).

        Raises:
            TrainingError: the view does not finish a feature of that name.
        """
        if name not in self.finished_names:
            raise TrainingError(
                explain(
                    "feature is not finished by the view",
                    which=repr(name),
                    expected=f"one of {', '.join(self.finished_names)}",
                    got=repr(name),
                    next_step="correct the model's spec or add the feature to the view",
                )
            )
        return self.finished[:, self.finished_names.index(name)].astype(np.float64)


@dataclass(frozen=True)
class Knowledge:
    """What was known of rows' outcomes at one instant, in seconds after each row's ``now``.

    Attributes:
        observed_s: (n,) up to when outcomes were surely known; infinite in rows that were not drawn by then.
        outcome_s: (n,) when the first outcome within the horizon happened; infinite where none was known.
        known_s: (n,) when that was known; infinite likewise.
        closed_s: (n,) from when no outcome can follow; infinite where none is known to be ruled out.
    """

    observed_s: Floats
    outcome_s: Floats
    known_s: Floats
    closed_s: Floats


@dataclass(frozen=True)
class DelayedRows:
    """All rows, matured or not, for methods that learn from delayed labels.

    Attributes:
        entity_ids, split, transformed: as of a ``Frame``.
        now_us: (n,) UTC microseconds.
        known: by ``known_at``.
        known_earlier: when the test's rows begin.
    """

    entity_ids: pa.Array
    split: NDArray[np.str_]
    transformed: Matrix
    now_us: NDArray[np.int64]
    known: Knowledge
    known_earlier: Knowledge

    @property
    def now_s(self) -> Floats:
        """(n,) seconds since 1970."""
        seconds: Floats = self.now_us / US_PER_S
        return seconds


def read_delayed_rows(path: Path) -> DelayedRows:
    """Read all rows of a features file with what was known of their outcomes.

    Args:
        path: Parquet with entity_id, now, split, transformed and the outcome columns of ``LABEL_FIELDS`` and
            ``EARLIER_LABEL_FIELDS``.
    Raises:
        TrainingError: a column is absent.
    """
    earlier = tuple(f"earlier_{name}" for name in OUTCOME_COLUMNS)
    columns = ("entity_id", "now", "split", "transformed", *OUTCOME_COLUMNS, *earlier)
    _require_columns(path, columns)
    table = pq.read_table(path, columns=list(columns))
    return DelayedRows(
        entity_ids=table["entity_id"].combine_chunks(),
        split=np.array(table["split"].to_pylist(), dtype=np.str_),
        transformed=_matrix(table["transformed"]),
        now_us=table["now"].cast(pa.int64()).to_numpy(),
        known=_knowledge(table, OUTCOME_COLUMNS),
        known_earlier=_knowledge(table, earlier),
    )


def read_frame(path: Path) -> Frame:
    """Read the matured rows of a features file.

    Args:
        path: Parquet with ``COLUMNS``; schema metadata ``finished_names`` (JSON).
    Raises:
        TrainingError: a column or the names are absent.
    """
    metadata = _require_columns(path, COLUMNS, "finished_names")
    table = pq.read_table(path, columns=list(COLUMNS))
    table = table.filter(table["matured"])
    return Frame(
        entity_ids=table["entity_id"].combine_chunks(),
        label=table["label"].to_numpy().astype(np.int8),
        split=np.array(table["split"].to_pylist(), dtype=np.str_),
        transformed=_matrix(table["transformed"]),
        finished=_matrix(table["finished"]),
        finished_names=tuple(json.loads(metadata[b"finished_names"])),
        transformed_groups=tuple(json.loads(metadata.get(b"transformed_groups", b"[]"))),
    )


def _require_columns(path: Path, columns: tuple[str, ...], *names: str) -> dict[bytes, bytes]:
    """The metadata of a features file that has these columns and these names in its metadata."""
    stored = pq.read_schema(path)
    metadata = stored.metadata or {}
    lacking = [name for name in columns if name not in stored.names]
    lacking += [name for name in names if name.encode() not in metadata]
    if lacking:
        raise TrainingError(
            explain(
                "features file lacks columns",
                which=str(path),
                expected=", ".join((*columns, *(f"{name} in its metadata" for name in names))),
                got=f"no {', '.join(lacking)}",
                next_step="fit the graph again",
            )
        )
    return dict(metadata)


def _knowledge(table: pa.Table, columns: tuple[str, ...]) -> Knowledge:
    return Knowledge(*(_seconds_after_now(table, name) for name in columns))


def _seconds_after_now(table: pa.Table, name: str) -> Floats:
    """Differences of integers, so that a whole horizon is not missed by a rounding error; infinite where there is none."""
    now_us, time_us = (table[column].cast(pa.int64()) for column in ("now", name))
    waited_s: Floats = (time_us.fill_null(0).to_numpy() - now_us.to_numpy()) / US_PER_S
    return np.where(time_us.is_null().to_numpy(), np.inf, waited_s)


def _matrix(column: pa.ChunkedArray) -> Matrix:
    width = column.type.list_size
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    matrix: Matrix = flat.reshape(-1, width).astype(np.float32, copy=False)
    return matrix
