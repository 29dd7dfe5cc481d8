"""The tables of versions and promotions in the control database, and how old ones are brought up to date."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, Connection, UniqueConstraint, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from features import control_database
from features.control_database import Schema
from features.workspace import Workspace
from models.errors import VersionError

CHAMPION: Final = "champion"
CANDIDATE: Final = "candidate"
MIGRATED_BY: Final = "migration"


class Base(DeclarativeBase):
    """Tables of the control database that this room owns."""


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
    """A session on this room's tables; see ``features.control_database.open_session``.

    Args:
        write: take the lock of writers first.
    Raises:
        StoreUnavailable: the server does not answer, or another process held the lock for too long.
        VersionError: the database cannot be read, or its tables are of a newer release.
    """
    with control_database.open_session(workspace, SCHEMA, write=write) as session:
        yield session


def _unrecorded(tables: set[str]) -> int:
    """1 for versions without a row that tells the layout."""
    return 1 if VersionRow.__tablename__ in tables else 0


def _migrate(connection: Connection, stored: int) -> None:
    if stored == 1:
        connection.execute(text("ALTER TABLE model_versions ADD COLUMN lineage JSON"))
    for trigger in TRIGGERS[connection.dialect.name]:
        connection.exec_driver_sql(trigger)
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


SCHEMA: Final = Schema(Base.metadata, "models_schema", 2, _migrate, VersionError, _unrecorded)
"""Layout 1 knew versions alone; 2 has aliases with their history, and lineage."""
