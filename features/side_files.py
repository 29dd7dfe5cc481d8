"""Side files: small tables beside an imported file whose columns its rows need, joined by one key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from features.errors import MappingError, explain
from features.expressions import read_text
from features.mapping import Join, Value
from features.source_files import ROW, SourceFile, read_source

UNJOINED: Final = "=unjoined"
"""Name of the added column that says why a row has no side row; null where it has one."""

SIDE_KEY: Final = "=side_key"
SIDE_ROW: Final = "=side_row"


@dataclass(frozen=True)
class JoinedFile:
    """A file's rows, in their order, with the columns of its side files.

    Attributes:
        path, sha256: of the file itself.
        frame: its columns, those added, and ``UNJOINED``.
        added: names of the columns that side files added.
        sides: SHA-256 of each side file.
    """

    path: Path
    sha256: str
    frame: pl.DataFrame
    added: frozenset[str] = frozenset()
    sides: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """Names of the columns that a mapping may use."""
        return [name for name in self.frame.columns if name not in (ROW, UNJOINED)]


def join_sides(source: SourceFile, joins: tuple[Join, ...]) -> JoinedFile:
    """Add the columns of side files, which lie in the folder of the file.

    Raises:
        SourceFileError: a side file cannot be read.
        MappingError: the file or the side file lacks the key, a key repeats or is missing in the side file, or both have
            a column of one name besides the key.
    """
    joined = JoinedFile(source.path, source.sha256, source.frame.with_columns(pl.lit(None, pl.String).alias(UNJOINED)))
    for join in joins:
        joined = _join(joined, join, read_source(source.path.parent / join.file))
    return joined


def _join(left: JoinedFile, join: Join, side: SourceFile) -> JoinedFile:
    added = [name for name in side.frame.columns if name not in (ROW, join.on)]
    for path, columns in ((left.path, left.columns), (side.path, side.frame.columns)):
        if join.on not in columns:
            raise _refuse(f"column {join.on!r} in both files", f"none in {path}", join)
    shared = [name for name in added if name in left.columns]
    if shared:
        raise _refuse("no other column of the same name in both files", ", ".join(shared), join)
    keys = side.frame.select(_key(join.on, side.frame.schema)).to_series()
    if keys.null_count() or keys.n_unique() != len(keys):
        repeated = keys.filter(keys.is_duplicated() | keys.is_null())
        raise _refuse(f"one row for each {join.on} in {join.file}", f"{repeated[0]!r} missing or repeated", join)
    rows = side.frame.select(pl.Series(SIDE_KEY, keys), *added, pl.lit(True).alias(SIDE_ROW))
    frame = left.frame.with_columns(_key(join.on, left.frame.schema).alias(SIDE_KEY))
    frame = frame.join(rows, on=SIDE_KEY, how="left", maintain_order="left")
    absent = pl.when(pl.col(SIDE_ROW).is_null()).then(
        pl.when(pl.col(SIDE_KEY).is_null())
        .then(pl.lit(f"{join.on} is missing"))
        .otherwise(pl.format(f"{join.on} {{}} is not in {join.file}", pl.col(SIDE_KEY)))
    )
    frame = frame.with_columns(pl.coalesce(UNJOINED, absent).alias(UNJOINED)).drop(SIDE_KEY, SIDE_ROW)
    return JoinedFile(left.path, left.sha256, frame, left.added | set(added), (*left.sides, side.sha256))


def _key(column: str, schema: pl.Schema) -> pl.Expr:
    return read_text(Value((column,)), schema, column).value


def _refuse(expected: str, got: str, join: Join) -> MappingError:
    return MappingError(explain("side file cannot be joined", which=f"{join.file} on {join.on}", expected=expected, got=got,
                                next_step="correct the side file or the mapping"))  # fmt: skip
