"""The control database: how any room opens a session on it, how writers take turns, how old tables come up to date.

SQLite in the workspace or a PostgreSQL server, with the same guarantee: sessions that write take one lock when they begin
and run one after the other, so that numbers are given out one by one and a check holds until the write that rests on it.
Each room declares the tables it owns as a ``Schema``; rooms share the database, not each other's tables.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from features.errors import ControlDatabaseError, PermanentError, StoreUnavailable, explain
from features.workspace import Workspace

LOCK_TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 10.0

ADVISORY_LOCK: Final = 0x504C554D
"""PostgreSQL's key of the lock that writing sessions take."""


@dataclass(frozen=True)
class Schema:
    """The tables that one room owns.

    Attributes:
        metadata: its tables, without the one that tells their layout.
        layout_table: name of that table; it holds one row, ``version``.
        version: the layout that this release knows; an older one is brought up to date, a newer one is refused.
        migrate: brings stored tables from an older layout to this one, in the transaction that records the new version; it
            gets 0 where nothing is stored. Tables that are missing have been made before it is called.
        error: what is raised where the database cannot be used at all.
        unrecorded: the layout of stored tables that were made before layouts were recorded; 0 where there are none.
    """

    metadata: MetaData
    layout_table: str
    version: int
    migrate: Callable[[Connection, int], None]
    error: type[PermanentError] = ControlDatabaseError
    unrecorded: Callable[[set[str]], int] = lambda tables: 0

    @property
    def layout(self) -> Table:
        """The table that tells the stored layout."""
        known = self.metadata.tables.get(self.layout_table)
        return (
            known
            if known is not None
            else Table(self.layout_table, self.metadata, Column("version", Integer, primary_key=True, autoincrement=False))
        )


@contextmanager
def open_session(
    workspace: Workspace, schema: Schema, *, write: bool = False, timeout_s: float = LOCK_TIMEOUT_S
) -> Iterator[Session]:
    """A session of the workspace's control database in one transaction; it is committed by the caller or not at all.

    Args:
        schema: the caller's tables, made or migrated where that is needed.
        write: take the lock of writers first.
        timeout_s: how long a lock or a connection may take.
    Raises:
        StoreUnavailable: the server does not answer, or another process held the lock for too long.
        PermanentError: ``schema.error``, where the database cannot be read or its tables are of a newer release.
    """
    url = control_url(workspace)
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite":
        workspace.control_database.parent.mkdir(parents=True, exist_ok=True)
    try:
        engine = _open_engine(url, timeout_s)
        try:
            with engine.connect() as connection:
                stored = _stored_version(connection, schema)
            if stored != schema.version:
                _bring_up_to_date(engine, schema, shown)
            with Session(engine.execution_options(writes=write)) as session:
                yield session
        finally:
            engine.dispose()
    except OperationalError as error:
        raise StoreUnavailable(
            explain("control database did not answer", which=shown, expected=f"a lock within {timeout_s:g} s",
                    got=str(error.orig), next_step="try again once it is up, or the other process is done")
        ) from error  # fmt: skip
    except DatabaseError as error:
        raise schema.error(
            explain("control database cannot be used", which=shown, expected="a database of Plumbline",
                    got=str(error.orig), next_step="restore it or move it away")
        ) from error  # fmt: skip


def control_url(workspace: Workspace) -> URL:
    """Where the control database is: the workspace's own URL, or the SQLite file in its folder."""
    if not workspace.control_url:
        return URL.create("sqlite", database=str(workspace.control_database))
    url = make_url(workspace.control_url)
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def is_absent(workspace: Workspace) -> bool:
    """No control database was ever made; reading one must not make it."""
    return not workspace.control_url and not workspace.control_database.exists()


def _open_engine(url: URL, timeout_s: float) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": timeout_s})
        event.listen(engine, "connect", _leave_transactions_alone)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    # libpq takes whole seconds and no fewer than two.
    connect_s = max(2, round(min(CONNECT_TIMEOUT_S, timeout_s)))
    options = f"-c lock_timeout={round(timeout_s * 1_000)}ms"
    engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": connect_s, "options": options})
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def _leave_transactions_alone(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # else the driver begins transactions by itself, and only before the first write


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def _begin_postgresql(connection: Connection) -> None:
    if connection.get_execution_options().get("writes"):
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})


def _stored_version(connection: Connection, schema: Schema) -> int:
    """0 where the room has no tables yet."""
    tables = set(inspect(connection).get_table_names())
    if schema.layout_table in tables:
        return int(connection.scalar(select(schema.layout.c.version)) or 0)
    return schema.unrecorded(tables)


def _bring_up_to_date(engine: Engine, schema: Schema, shown: str) -> None:
    """Make the tables, or add what the stored ones lack, in one transaction of its own."""
    with engine.execution_options(writes=True).begin() as connection:
        stored = _stored_version(connection, schema)  # again, under the lock: another process may have done it
        if stored > schema.version:
            raise schema.error(
                explain("control database is of a newer release", which=shown, expected=f"schema {schema.version} or older",
                        got=f"schema {stored}", next_step="install the newer release")
            )  # fmt: skip
        if stored == schema.version:
            return
        layout = schema.layout
        schema.metadata.create_all(connection)
        schema.migrate(connection, stored)
        connection.execute(delete(layout))
        connection.execute(insert(layout).values(version=schema.version))
