"""Physical removal of what markers erase: rows leave the tables, and the files that held them leave the disk.

Readers do not depend on it, ``features.erasure`` hides the rows from them at once. Each table changes in atomic commits;
its replaced files are removed straight after, so that no older version can be read any more. Everything here may be
repeated: what is gone is not found again.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from datetime import date
from pathlib import Path
from typing import Final

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from features import delta
from features.declarations import Catalog
from features.erasure import ERASED, Markers, keep_later, keep_living
from features.events import find_markers, open_log
from features.profiles import open_profile
from features.workspace import Workspace

DAYS_A_COMMIT: Final = 31
"""Most (region, ingest_day) folders of a log that are rewritten at one time, in memory."""

ROW_GROUP_ROWS: Final = 50_000
PARQUET_MAGIC: Final = b"PAR1"


def purge_events(workspace: Workspace, catalog: Catalog, entity: str) -> int:
    """Rewrite the days of the log that hold erased events, without them; returns how many there were.

    Raises:
        TemporaryError: another process writes the log.
    """
    path = workspace.events(entity)
    with delta.writing(path):
        markers = find_markers(workspace, catalog, entity)
        log = open_log(workspace, catalog, entity)
        if log is None or not markers:
            return 0
        marked = pl.scan_delta(log).filter(pl.col("entity_id").is_in(markers.entity_ids) & (pl.col("event_type") != ERASED))
        place = ["log_partition", "log_offset"]
        gone = marked.join(keep_living(marked, markers), on=place, how="anti").select("region", "ingest_day")
        erased = delta.collect(gone, path)
        folders = sorted(erased.unique().iter_rows())
        for first in range(0, len(folders), DAYS_A_COMMIT):
            _rewrite_days(log, folders[first : first + DAYS_A_COMMIT], markers)
        delta.remove_old_files(log)
    return erased.height


def _rewrite_days(log: DeltaTable, folders: Collection[tuple[str, date]], markers: Markers) -> None:
    frame = pl.scan_delta(DeltaTable(log.table_uri))
    named = [(pl.col("region") == region) & (pl.col("ingest_day") == day) for region, day in folders]
    rows = frame.filter(pl.any_horizontal(named))
    kept = pl.concat([keep_living(rows, markers), rows.filter(pl.col("event_type") == ERASED)])
    ordered = kept.sort("log_partition", "log_offset").collect().to_arrow(compat_level=pl.CompatLevel.oldest())
    predicate = " OR ".join(f"(region = {delta.quoted(region)} AND ingest_day = '{day}')" for region, day in folders)
    delta.replace_rows(log, ordered, predicate)


def purge_profiles(workspace: Workspace, catalog: Catalog, profile: str) -> int:
    """Rewrite a profile's table without the rows of before its entities' erasure; returns how many there were."""
    path = workspace.profile(profile)
    markers = find_markers(workspace, catalog, catalog.profile(profile).entity)
    if not markers:
        return 0
    with delta.writing(path):
        table = open_profile(workspace, catalog, profile)
        if table is None:
            return 0
        rows = delta.collect(pl.scan_delta(table), path)
        return _replace_all(table, rows, keep_later(rows, markers, "valid_from"))


def purge_dead_letters(workspace: Workspace, entity: str, entity_ids: Collection[str]) -> int:
    """Rewrite the dead letters without rows of these entities; returns how many there were.

    A dead letter is a row that could not be understood, so every one with a value that equals an id goes.
    """
    path = workspace.dead_letters
    with delta.writing(path):
        table = delta.open_table(path)
        if table is None:
            return 0
        rows, wanted = delta.collect(pl.scan_delta(table), path), frozenset(entity_ids)
        names = [names_any(content, wanted) for content in rows["content"]]
        return _replace_all(table, rows, rows.filter(~(pl.Series(names, dtype=pl.Boolean) & (pl.col("entity") == entity))))


def purge_runs(workspace: Workspace, entity_ids: Collection[str]) -> int:
    """Rewrite what past runs have kept of these entities, training rows and their features; returns how many rows there were.

    Ids are compared alone: an entity of another type that shares the id loses its rows in old runs too.
    """
    wanted, gone = pa.array(list(entity_ids), pa.string()), 0
    folder = workspace.runs()
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file() and not path.is_symlink() and _is_parquet(path) and "entity_id" in pq.read_schema(path).names:
            named = pc.is_in(pq.read_table(path, columns=["entity_id"])["entity_id"], value_set=wanted)
            if count := pc.sum(named).as_py():
                partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
                pq.write_table(pq.read_table(path).filter(pc.invert(named)), partial, row_group_size=ROW_GROUP_ROWS)
                partial.replace(path)
                gone += count
    return gone


def _is_parquet(path: Path) -> bool:
    """By its first bytes: artifacts of a pipeline have no suffix."""
    with path.open("rb") as file:
        return file.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC


def names_any(content: str, wanted: frozenset[str]) -> bool:
    """Whether a dead letter's content, a JSON object, has a value that equals one of these ids."""
    values = orjson.loads(content)
    return isinstance(values, dict) and not wanted.isdisjoint(map(str, values.values()))


def _replace_all(table: DeltaTable, rows: pl.DataFrame, kept: pl.DataFrame) -> int:
    if kept.height < rows.height:
        delta.replace_rows(table, kept.to_arrow(compat_level=pl.CompatLevel.oldest()), None)
    delta.remove_old_files(table)
    return rows.height - kept.height
