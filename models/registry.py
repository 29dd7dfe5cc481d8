"""The control database: the tables that this room owns, how a session is opened, and how old tables are brought up to date.

SQLite in the workspace or a PostgreSQL server, with the same guarantee: sessions that write take one lock when they begin
and run one after the other, so that numbers are given out one by one and a check holds until the write that rests on it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import (
    JSON,
    URL,
    BigInteger,
    Connection,
    Engine,
    UniqueConstraint,
    create_engine,
    event,
    insert,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from features.errors import StoreUnavailable, explain
from features.workspace import Workspace
from models.errors import VersionError

LOCK_TIMEOUT_S: Final = 30
CONNECT_TIMEOUT_S: Final = 10
SCHEMA_VERSION: Final = 2
"""1 knew versions alone; 2 has aliases with their history, and lineage."""

ADVISORY_LOCK: Final = 0x504C554D
"""PostgreSQL's key of the lock that writing sessions take."""

CHAMPION: Final = "champion"
CANDIDATE: Final = "candidate"
MIGRATED_BY: Final = "migration"


class Base(DeclarativeBase):
    """Tables of the control database that this room owns."""


class SchemaRow(Base):
    """One row: which layout the tables have."""

    __tablename__ = "models_schema"

    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class VersionRow(Base):
    """A registered version."""

    __tablename__ = "model_versions"
    __table_args__ = (UniqueConstraint("model", "version"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str]
    version: Mapped[int]
    created_at_us: Mapped[int] = mapped_column(BigInteger)
    run_id: Mapped[str]
    path: Mapped[str]
    blessed: Mapped[bool]
    reason: Mapped[str]
    view_key: Mapped[str]
    view_hash: Mapped[str]
    graph_hash: Mapped[str]
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON)
    lineage: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class PromotionRow(Base):
    """An alias was given to a version. The newest row of (model, alias) says where the alias stands; rows never change."""

    __tablename__ = "model_promotions"
    __table_args__ = (UniqueConstraint("model", "alias", "sequence"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str]
    alias: Mapped[str]
    sequence: Mapped[int]
    from_version: Mapped[int | None]
    to_version: Mapped[int]
    who: Mapped[str]
    why: Mapped[str]
    at_us: Mapped[int] = mapped_column(BigInteger)


REFUSAL: Final = "promotions are history and never change"
TRIGGERS: Final = {
    "sqlite": tuple(
        f"CREATE TRIGGER promotions_no_{action} BEFORE {action} ON model_promotions BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
        for action in ("UPDATE", "DELETE")
    ),
    "postgresql": (
        f"CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$",
        "CREATE TRIGGER promotions_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON model_promotions"
        " EXECUTE FUNCTION refuse_change()",
    ),
}


@contextmanager
def open_session(workspace: Workspace, *, write: bool = False) -> Iterator[Session]:
    """A session of the workspace's control database in one transaction; it is committed by the caller or not at all.

    Args:
        write: take the lock of writers first, and make or migrate the tables where that is needed.
    Raises:
        StoreUnavailable: the server does not answer, or another process held the lock for too long.
        VersionError: the database cannot be read, or its tables are of a newer release.
    """
    url = control_url(workspace)
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite":
        workspace.control_database.parent.mkdir(parents=True, exist_ok=True)
    try:
        engine = _open_engine(url)
        try:
            with engine.connect() as connection:
                stored = _schema_version(connection)
            if stored != SCHEMA_VERSION:
                _bring_up_to_date(engine, shown)
            with Session(engine.execution_options(writes=write)) as session:
                yield session
        finally:
            engine.dispose()
    except OperationalError as error:
        raise StoreUnavailable(
            explain("control database did not answer", which=shown, expected=f"a lock within {LOCK_TIMEOUT_S} s",
                    got=str(error.orig), next_step="try again once it is up, or the other process is done")
        ) from error  # fmt: skip
    except DatabaseError as error:
        raise VersionError(
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


def _open_engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": LOCK_TIMEOUT_S})
        event.listen(engine, "connect", _leave_transactions_alone)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    options = f"-c lock_timeout={LOCK_TIMEOUT_S}s"
    engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "options": options})
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def _leave_transactions_alone(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # else the driver begins transactions by itself, and only before the first write


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def _begin_postgresql(connection: Connection) -> None:
    if connection.get_execution_options().get("writes"):
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})


def _schema_version(connection: Connection) -> int:
    """0 for an empty database, 1 for versions without a schema row."""
    tables = set(inspect(connection).get_table_names())
    if SchemaRow.__tablename__ in tables:
        return connection.scalar(select(SchemaRow.version)) or 0
    return 1 if VersionRow.__tablename__ in tables else 0


def _bring_up_to_date(engine: Engine, shown: str) -> None:
    """Make the tables, or add what the stored ones lack, in one transaction of its own."""
    with engine.execution_options(writes=True).begin() as connection:
        stored = _schema_version(connection)  # again, under the lock: another process may have done it
        if stored > SCHEMA_VERSION:
            raise VersionError(
                explain("control database is of a newer release", which=shown, expected=f"schema {SCHEMA_VERSION} or older",
                        got=f"schema {stored}", next_step="install the newer release")
            )  # fmt: skip
        if stored == SCHEMA_VERSION:
            return
        if stored == 1:
            connection.execute(text("ALTER TABLE model_versions ADD COLUMN lineage JSON"))
        Base.metadata.create_all(connection)
        for trigger in TRIGGERS[connection.dialect.name]:
            connection.exec_driver_sql(trigger)
        connection.execute(insert(SchemaRow).values(version=SCHEMA_VERSION))
        if stored == 1:
            _give_aliases(connection)


def _give_aliases(connection: Connection) -> None:
    """Before there were aliases, the newest blessed version of a model was served; it stays so."""
    columns = (VersionRow.model, VersionRow.version, VersionRow.created_at_us)
    blessed = connection.execute(select(*columns).where(VersionRow.blessed).order_by(VersionRow.version)).all()
    why = "the newest blessed version when aliases came"
    newest = {row.model: row for row in blessed}
    for row in newest.values():
        for alias in (CANDIDATE, CHAMPION):
            facts = {"model": row.model, "alias": alias, "sequence": 1, "from_version": None, "to_version": row.version}
            connection.execute(insert(PromotionRow).values(**facts, who=MIGRATED_BY, why=why, at_us=row.created_at_us))
