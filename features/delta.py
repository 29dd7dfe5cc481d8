"""Delta tables as this product uses them: opened with one-line errors, appended to once per source, one writer at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError

from features.errors import EventLogError, TemporaryError, explain

LOCK_NAME: Final = ".writer.lock"
READ_ERRORS: Final = (DeltaError, OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException)


def open_table(path: Path) -> DeltaTable | None:
    """The table at ``path``, or None where nothing has been written yet.

    Raises:
        EventLogError: the folder holds data without a readable ``_delta_log``, or a data file is missing or cut short.
    """
    if not path.is_dir() or all(entry.name == LOCK_NAME for entry in path.iterdir()):
        return None
    try:
        table = DeltaTable(path)
        _check_files(table, path)
    except READ_ERRORS as error:
        raise corrupted(path, error) from error
    return table


def _check_files(table: DeltaTable, path: Path) -> None:
    """Compare every live file's size with the log's: a cut file would otherwise crash the Parquet reader's threads."""
    files = pa.table(table.get_add_actions(flatten=True)).select(["path", "size_bytes"]).to_pydict()
    for name, size_bytes in zip(files["path"], files["size_bytes"], strict=True):
        found_bytes = os.stat(path / name).st_size
        if found_bytes != size_bytes:
            raise OSError(f"{name} has {found_bytes} of {size_bytes} bytes")


def corrupted(path: Path, error: BaseException) -> EventLogError:
    """The one-line error for a table that cannot be read."""
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return EventLogError(
        explain("Delta table cannot be read", which=str(path), expected="a complete _delta_log and every file it names",
                got=first_line, next_step="restore the folder from a copy, or remove it and import again")
    )  # fmt: skip


def create_table(path: Path, schema: pa.Schema, partition_by: list[str], configuration: Mapping[str, str]) -> DeltaTable:
    """A new empty table; ``configuration`` may hold keys of our own."""
    return DeltaTable.create(path, schema=schema, partition_by=partition_by, configuration=dict(configuration),
                             raise_if_key_not_exists=False)  # fmt: skip


def collect(frame: pl.LazyFrame, path: Path) -> pl.DataFrame:
    """Run a query over the table at ``path``; unreadable files give the one-line error."""
    try:
        return frame.collect()
    except READ_ERRORS as error:
        raise corrupted(path, error) from error


def collect_arrow(frame: pl.LazyFrame, path: Path) -> pa.Table:
    """``collect`` as an Arrow table; texts are large strings."""
    return collect(frame, path).to_arrow(compat_level=pl.CompatLevel.oldest())


def has_applied(table: DeltaTable | None, source: str, version: int, path: Path) -> bool:
    """Whether ``source`` was already appended, in the same commit that recorded it.

    Raises:
        EventLogError: it was appended under another version (for an import: by another mapping).
    """
    applied = table.transaction_version(source) if table else None
    if applied is not None and applied != version:
        raise EventLogError(
            explain("source was already imported differently", which=f"{source} in {path}", expected=f"mapping {applied:x}",
                    got=f"mapping {version:x}", next_step="import it with the first mapping, or into another workspace")
        )  # fmt: skip
    return applied is not None


def have_applied(table: DeltaTable | None, sources: Mapping[str, int], path: Path) -> bool:
    """Whether all of ``sources`` (name -> version) were already appended; raises as ``has_applied`` does."""
    return sum(has_applied(table, name, version, path) for name, version in sources.items()) == len(sources)


def append(table: DeltaTable, rows: pa.Table, sources: Mapping[str, int]) -> None:
    """Append ``rows`` and record ``sources`` (name -> version) in one atomic commit; new columns are added as nullable."""
    transactions = [Transaction(name, version) for name, version in sources.items()]
    commit = CommitProperties(app_transactions=transactions)
    write_deltalake(table, rows, mode="append", schema_mode="merge", commit_properties=commit)


def replace_rows(table: DeltaTable, rows: pa.Table, predicate: str | None, sources: Mapping[str, int] | None = None) -> None:
    """Put ``rows`` in the place of those that the predicate names, of all where it is None, in one atomic commit."""
    transactions = [Transaction(name, version) for name, version in (sources or {}).items()]
    commit = CommitProperties(app_transactions=transactions)
    schema = pa.schema(table.schema())
    ordered = pa.table([rows[field.name].cast(field.type) for field in schema], schema=schema)
    write_deltalake(table, ordered, mode="overwrite", predicate=predicate, commit_properties=commit)


def delete_rows(table: DeltaTable, predicate: str, sources: Mapping[str, int]) -> None:
    """Delete the rows that a predicate names and record ``sources`` in one atomic commit."""
    transactions = [Transaction(name, version) for name, version in sources.items()]
    table.delete(predicate, commit_properties=CommitProperties(app_transactions=transactions))


def quoted(text: str) -> str:
    """Text as a literal of a predicate."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


def remove_old_files(table: DeltaTable) -> int:
    """Delete the files that no longer belong to the table, whatever their age; returns how many.

    No older version can be read from now on, and a reader that is just reading one fails. The caller holds the writer lock.
    """
    return len(table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False))


def erase_entities(
    folder: Path, entity_ids: Collection[str], keep: Callable[[DeltaTable], Mapping[str, str]] = lambda _: {}
) -> int:
    """Remove every row whose ``entity_id`` is one of these, and the files that held them; returns how many there were.

    Args:
        folder: of the table; there may be none.
        keep: gives, of the table as it stands, what the commit shall say of itself.
    Raises:
        TemporaryError: another process writes the table.
        EventLogError: the table is damaged.
    """
    with writing(folder):
        table = open_table(folder)
        if table is None:
            return 0
        named = pl.scan_delta(table).filter(pl.col("entity_id").is_in(list(entity_ids))).select(pl.len())
        gone = int(collect(named, folder).item())
        if gone:
            commit = CommitProperties(custom_metadata=dict(keep(table)))
            table.delete(f"entity_id IN ({', '.join(map(quoted, entity_ids))})", commit_properties=commit)
        # Also where nothing was found: an earlier call may have ended before the old files were gone.
        remove_old_files(table)
    return gone


def check_columns(table: DeltaTable, schema: pa.Schema, path: Path) -> None:
    """Refuse a stored column whose type differs from the declared one; columns not stored yet are fine.

    Raises:
        EventLogError: naming the first column that differs.
    """
    stored = {field.name: pa.field(field) for field in pa.schema(table.schema())}
    for field in schema:
        if field.name in stored and not _same_type(stored[field.name].type, field.type):
            raise EventLogError(
                explain("column changed its type", which=f"{field.name!r} of {path}", expected=str(stored[field.name].type),
                        got=str(field.type), next_step="declare the changed attribute under a new name")
            )  # fmt: skip


def _same_type(stored: pa.DataType, declared: pa.DataType) -> bool:
    strings = (pa.string(), pa.large_string(), pa.string_view())
    return stored == declared or (stored in strings and declared in strings)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold the folder's writer lock; it is released when the process ends, however it ends.

    Raises:
        TemporaryError: another writer holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_NAME).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TemporaryError(
                explain("table is being written", which=str(folder), expected="one writer at a time", got="a second writer",
                        next_step="wait for the other command to end and try again")
            ) from error  # fmt: skip
        yield
