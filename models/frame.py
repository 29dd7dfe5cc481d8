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
from models.errors import TrainingError

Floats = NDArray[np.float64]
Matrix = NDArray[np.float32]
Flags = NDArray[np.bool_]

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
    """

    entity_ids: pa.Array
    label: NDArray[np.int8]
    split: NDArray[np.str_]
    transformed: Matrix
    finished: Matrix
    finished_names: tuple[str, ...]

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


def read_frame(path: Path) -> Frame:
    """Read the matured rows of a features file.

    Args:
        path: Parquet with ``COLUMNS``; schema metadata ``finished_names`` (JSON).
    Raises:
        TrainingError: a column or the names are absent.
    """
    stored = pq.read_schema(path)
    metadata = stored.metadata or {}
    lacking = [name for name in COLUMNS if name not in stored.names]
    lacking += [name for name in ("finished_names",) if name.encode() not in metadata]
    if lacking:
        raise TrainingError(
            explain(
                "features file lacks columns",
                which=str(path),
                expected=", ".join((*COLUMNS, "finished_names in its metadata")),
                got=f"no {', '.join(lacking)}",
                next_step="fit the graph again",
            )
        )
    table = pq.read_table(path, columns=list(COLUMNS))
    table = table.filter(table["matured"])
    return Frame(
        entity_ids=table["entity_id"].combine_chunks(),
        label=table["label"].to_numpy().astype(np.int8),
        split=np.array(table["split"].to_pylist(), dtype=np.str_),
        transformed=_matrix(table["transformed"]),
        finished=_matrix(table["finished"]),
        finished_names=tuple(json.loads(metadata[b"finished_names"])),
    )


def _matrix(column: pa.ChunkedArray) -> Matrix:
    width = column.type.list_size
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    matrix: Matrix = flat.reshape(-1, width).astype(np.float32, copy=False)
    return matrix
