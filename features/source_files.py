"""Files that people bring: CSV, JSON lines or Parquet, read whole into one frame and named by their content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from features.errors import PermanentError, explain

ROW: Final = "=row"
"""Name of the added column that numbers the file's rows from 0; no mapping can name it by accident."""

SUFFIXES: Final = (".csv", ".csv.gz", ".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".parquet")
PARQUET_MAGIC: Final = b"PAR1"


class SourceFileError(PermanentError):
    """A file to import is missing, is of no known kind, or cannot be read as what it claims to be."""


@dataclass(frozen=True)
class SourceFile:
    """A file's rows and the SHA-256 of its bytes, in hex. CSV columns are all texts; an empty field is null."""

    path: Path
    sha256: str
    frame: pl.DataFrame


def read_source(path: Path) -> SourceFile:
    """Read a file by its suffix.

    Raises:
        SourceFileError: one line saying why it cannot be read.
    """
    if not path.is_file():
        raise _refuse(path, "a file", "no such file" if not path.exists() else "not a file")
    suffix = next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)
    if suffix is None:
        raise _refuse(path, f"a name that ends in {', '.join(SUFFIXES)}", path.name)
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        frame = _read_frame(path, suffix)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _refuse(path, f"readable {suffix}", str(error).splitlines()[0]) from error
    if ROW in frame.columns:
        raise _refuse(path, f"no column named {ROW!r}", "one")
    return SourceFile(path, sha256, frame.with_row_index(ROW).with_columns(pl.col(ROW).cast(pl.Int64)))


def _read_frame(path: Path, suffix: str) -> pl.DataFrame:
    if suffix.startswith(".csv"):
        return pl.read_csv(path, infer_schema=False)  # an id such as 00123 stays as it stands
    if suffix == ".parquet":
        _check_parquet(path)
        return pl.read_parquet(path, hive_partitioning=False)
    return pl.read_ndjson(path, infer_schema_length=None)


def _check_parquet(path: Path) -> None:
    """A cut file would crash the reader's threads before it gave an error."""
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(-4, 2) if path.stat().st_size > 8 else None
        if (head, file.read(4)) != (PARQUET_MAGIC, PARQUET_MAGIC):
            raise OSError("the file is cut short or is no Parquet")


def _refuse(path: Path, expected: str, got: str) -> SourceFileError:
    return SourceFileError(
        explain(
            "file cannot be imported", which=str(path), expected=expected, got=got, next_step="correct the file or its name"
        )
    )
