"""What became of served predictions: a Delta table of ``rows.SERVED_LABEL`` a model, and how far its labelling has come.

Labels reach the table long after the predictions reached their log, by each row's own horizon. So progress is kept by
segment of that log: how many frames had been read, and up to when their rows' labels had been asked for. A row has its label
if its frame had been read and it had matured by then; whoever goes by that writes each label once. Progress is a file beside
the rows, written before them and named by number; the commit that adds rows makes its number the one that counts, so a kill
leaves both or neither.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl
import pyarrow as pa

from features import delta
from features.errors import EventLogError, explain
from features.rows import SERVED_LABEL

APPLICATION: Final = "plumbline.labelled"
"""Name of the transaction whose version is the number of the progress that counts."""
PROGRESS: Final = "_progress"
"""Folder of progress within the table's; Delta leaves names with an underscore alone."""


class Seen(NamedTuple):
    """How far a segment is labelled: rows of frames below ``frames`` that had matured by ``known_at_us``; the next row of
    those frames matures at ``due_us``. Times are UTC microseconds."""

    frames: int
    known_at_us: int
    due_us: int


Progress = Mapping[str, Seen]
"""By the name of a segment; one that is absent was never looked at."""


@contextmanager
def writing(folder: Path) -> Iterator[Progress]:
    """Hold a table's writer lock, and get its progress; the table is made where there is none.

    Raises:
        TemporaryError: another process writes it.
        EventLogError: the table or its progress is damaged.
    """
    with delta.writing(folder):
        table = delta.open_table(folder)
        if table is None:
            delta.create_table(folder, SERVED_LABEL, [], {})
        yield read_progress(folder)


def read_progress(folder: Path) -> Progress:
    """How far a table is; empty where nothing was ever labelled.

    Raises:
        EventLogError: the table or its progress is damaged.
    """
    table = delta.open_table(folder)
    number = None if table is None else table.transaction_version(APPLICATION)
    if number is None:
        return {}
    path = _progress_path(folder, number)
    try:
        return {name: Seen(*seen) for name, seen in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, TypeError) as error:
        raise EventLogError(
            explain("progress of labels cannot be read", which=str(path), expected="the file that the table names",
                    got=str(error).splitlines()[0], next_step="restore the folder from its copy, or remove it and label anew")
        ) from error  # fmt: skip


def append(folder: Path, rows: pa.Table, progress: Progress) -> None:
    """Add labels and make a progress the one that counts, in one atomic commit; the caller is ``writing``.

    Args:
        rows: of ``SERVED_LABEL``, maybe none.
        progress: of all segments that are still there.
    """
    table = delta.open_table(folder)
    if table is None:
        raise delta.corrupted(folder, FileNotFoundError("the table is gone"))
    before = table.transaction_version(APPLICATION)
    number = 0 if before is None else int(before) + 1
    path = _progress_path(folder, number)
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        file.write(json.dumps(dict(progress)).encode())
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    delta.append(table, rows, {APPLICATION: number})
    for old in path.parent.glob("*.json"):
        if int(old.stem) < number - 1:  # a reader may just be asking for the last one
            old.unlink()


def read_labels(folder: Path, *, since_us: int | None = None, columns: list[str] | None = None) -> pa.Table:
    """Labels by (matured_at, answered_at, request_id), in the columns named; empty where there are none.

    Args:
        since_us: of predictions answered from then on, UTC microseconds.

    Raises:
        EventLogError: the table is damaged.
    """
    schema = SERVED_LABEL if columns is None else pa.schema([SERVED_LABEL.field(name) for name in columns])
    table = delta.open_table(folder)
    if table is None:
        return schema.empty_table()
    frame = pl.scan_delta(table)
    if since_us is not None:
        frame = frame.filter(pl.col("answered_at") >= pl.lit(since_us).cast(pl.Datetime("us", "UTC")))
    ordered = frame.sort("matured_at", "answered_at", "request_id").select(schema.names)
    return delta.collect_arrow(ordered, folder).cast(schema)


def table_version(folder: Path) -> int:
    """Number of the newest commit by its file's name, -1 where there is none: cheap enough to ask every second."""
    log = folder / "_delta_log"
    return max((int(path.stem) for path in log.glob("*.json") if path.stem.isdecimal()), default=-1)


def erase(folder: Path, entity_ids: Collection[str]) -> int:
    """Remove every label of these entities, and the files that held them; returns how many there were.

    Raises:
        TemporaryError: another process writes the table.
        EventLogError: the table is damaged.
    """
    return delta.erase_entities(folder, entity_ids)


def _progress_path(folder: Path, number: int) -> Path:
    return folder / PROGRESS / f"{number:020d}.json"
