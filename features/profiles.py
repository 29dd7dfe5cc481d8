"""Profiles: values that hold from a time on, as-of joined by when they hold and by when they became known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
import pyarrow as pa
from deltalake import DeltaTable

from features import delta
from features.declarations import Catalog
from features.erasure import keep_later
from features.errors import EventLogError, explain
from features.events import find_markers
from features.rows import ARROW_TYPES, profile_schema
from features.workspace import Workspace

PLACE = ("entity_id", "valid_from", "created_time")


def append_profiles(
    workspace: Workspace, catalog: Catalog, profile_name: str, table: pa.Table, *, source: str | Mapping[str, int]
) -> int:
    """Append rows of ``profile_schema`` in one atomic commit; a source that is recorded already adds nothing.

    Returns:
        Number of rows appended.

    Raises:
        EventLogError: a null where none may be, a column that is not declared, or a corrupted table.
        TemporaryError: another writer holds the table.
    """
    sources = {source: 0} if isinstance(source, str) else source
    path = workspace.profile(profile_name)
    rows = check_profiles(catalog, profile_name, table)
    with delta.writing(path):
        stored = open_profile(workspace, catalog, profile_name)
        if delta.have_applied(stored, sources, path):
            return 0
        commit_profiles(workspace, catalog, profile_name, rows, sources)
    return int(rows.num_rows)


def check_profiles(catalog: Catalog, profile_name: str, table: pa.Table) -> pa.Table:
    """The table cast to ``profile_schema``; fields may be absent."""
    schema = profile_schema(catalog, profile_name)
    extra = set(table.column_names) - set(schema.names)
    nulls = [name for name in PLACE if name not in table.column_names or table[name].null_count]
    if extra or nulls:
        raise EventLogError(
            explain("profile rows cannot be appended", which=f"profile {profile_name!r}",
                    expected=f"columns {', '.join(schema.names)}, no null in {', '.join(PLACE)}",
                    got=f"undeclared {sorted(extra)}, missing {nulls}", next_step="correct the rows")
        )  # fmt: skip
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def commit_profiles(
    workspace: Workspace, catalog: Catalog, profile_name: str, rows: pa.Table, sources: Mapping[str, int]
) -> None:
    """Write checked rows; the caller holds the table's writer lock."""
    stored = open_profile(workspace, catalog, profile_name)
    if stored is None:
        stored = delta.create_table(workspace.profile(profile_name), profile_schema(catalog, profile_name), [], {})
    delta.append(stored, rows, sources)


def open_profile(workspace: Workspace, catalog: Catalog, profile_name: str) -> DeltaTable | None:
    """The profile's table, or None if nothing was ever appended."""
    path = workspace.profile(profile_name)
    stored = delta.open_table(path)
    if stored is not None:
        delta.check_columns(stored, profile_schema(catalog, profile_name), path)
    return stored


def profiles_as_of(
    workspace: Workspace, catalog: Catalog, profile_name: str, entity_ids: pa.Array, now_us: np.ndarray
) -> pa.Table:
    """Each request's profile values: those of the newest valid_from <= now among rows with created_time <= now.

    Two rows of one entity with the same valid_from: the later created_time counts; then the greater values, so that
    the answer does not depend on the order of files.

    Args:
        entity_ids: (n,) strings.
        now_us: (n,) int64 UTC microseconds.

    Returns:
        (n,) rows of the profile's fields alone; the declared default where nothing is known or a value is null.
    """
    rows = _read_rows(workspace, catalog, profile_name)
    ids = pl.Series("entity_id", entity_ids, dtype=pl.String)
    coded = (
        pl.concat([rows["entity_id"], ids]).rank("dense").cast(pl.Int64).to_numpy()
        if rows.height + len(ids)
        else np.zeros(0, np.int64)
    )
    found = _positions_as_of(coded[: rows.height], rows, coded[rows.height :], np.asarray(now_us, np.int64))
    return _fields_at(rows, found, catalog, profile_name)


def profiles_current(workspace: Workspace, catalog: Catalog, profile_name: str, *, as_of_us: int) -> pa.Table:
    """Every entity known by ``as_of_us``: entity_id and the profile's fields, by entity_id."""
    rows = _read_rows(workspace, catalog, profile_name)
    known = (pl.col("valid_from").dt.epoch("us") <= as_of_us) & (pl.col("created_time").dt.epoch("us") <= as_of_us)
    # Rows are by entity, valid_from and created_time, so the last one known is the newest.
    newest = rows.filter(known).unique("entity_id", keep="last", maintain_order=True)
    fields = _fields_at(newest, np.arange(newest.height), catalog, profile_name)
    return fields.add_column(0, "entity_id", newest["entity_id"].to_arrow().cast(pa.string()))


def _read_rows(workspace: Workspace, catalog: Catalog, profile_name: str) -> pl.DataFrame:
    """Living rows by (entity_id, valid_from, created_time, fields): a row's position is its rank among its entity's."""
    schema = profile_schema(catalog, profile_name)
    stored = open_profile(workspace, catalog, profile_name)
    if stored is None:
        return pl.DataFrame(schema.empty_table())
    present = {field.name for field in pa.schema(stored.schema())}
    fields = [pl.col(name) if name in present else pl.lit(None).alias(name) for name in schema.names]
    rows = delta.collect(pl.scan_delta(stored).select(fields).sort(schema.names), workspace.profile(profile_name))
    return keep_later(rows, find_markers(workspace, catalog, catalog.profile(profile_name).entity), "valid_from")


def _positions_as_of(row_codes: np.ndarray, rows: pl.DataFrame, codes: np.ndarray, now_us: np.ndarray) -> np.ndarray:
    """Position in ``rows`` of each request's answer, -1 where nothing is known. O((rows + requests) log rows).

    A row is known from max(valid_from, created_time) on. Going through an entity's rows by that time, the answer is the
    greatest position so far; so it depends on one sort and a running maximum, however late a correction came.
    """
    if rows.height == 0:
        return np.full(len(codes), -1)
    known_us = np.maximum(*(rows[name].dt.epoch("us").to_numpy() for name in ("valid_from", "created_time")))
    times = np.unique(known_us)
    # A dense number of the time keeps (entity, time) in one int64; position breaks ties.
    keys = row_codes * (len(times) + 1) + np.searchsorted(times, known_us) + 1
    order = np.lexsort((np.arange(rows.height), keys))
    # Positions ascend from entity to entity, so one running maximum over all rows never crosses into the next.
    answers = np.maximum.accumulate(order)
    wanted = codes * (len(times) + 1) + np.searchsorted(times, now_us, side="right")
    slots = np.searchsorted(keys[order], wanted, side="right") - 1
    found = np.where(slots >= 0, answers[slots], -1)
    result: np.ndarray = np.where((found >= 0) & (row_codes[found] == codes), found, -1)
    return result


def _fields_at(rows: pl.DataFrame, positions: np.ndarray, catalog: Catalog, profile_name: str) -> pa.Table:
    taken = pa.array(positions, pa.int64(), mask=positions < 0)
    columns, fields = [], []
    for entry in catalog.profile(profile_name).fields:
        kind = ARROW_TYPES[entry.dtype]
        values = rows[entry.name].to_arrow().cast(kind).take(taken)
        columns.append(values.fill_null(pa.scalar(entry.default, kind)))
        fields.append(pa.field(entry.name, kind))
    return pa.table(columns, schema=pa.schema(fields))
