"""The tables of verdicts in the control database: what stands now, and a history that is only added to."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import JSON, BigInteger, Connection
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from features.control_database import Schema
from monitoring.errors import VerdictError


class Base(DeclarativeBase):
    """Tables of the control database that hold verdicts."""


class StandingRow(Base):
    """What a monitor said of a subject last; overwritten whenever it speaks again."""

    __tablename__ = "verdicts_standing"

    monitor: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True, index=True)
    outcome: Mapped[str]
    severity: Mapped[str]
    evidence: Mapped[dict[str, Any]] = mapped_column(JSON)
    text: Mapped[str]
    at_us: Mapped[int] = mapped_column(BigInteger)
    since_us: Mapped[int] = mapped_column(BigInteger)
    heard_us: Mapped[int] = mapped_column(BigInteger)
    valid_until_us: Mapped[int] = mapped_column(BigInteger)
    retired_at_us: Mapped[int | None] = mapped_column(BigInteger)


class HistoryRow(Base):
    """A monitor's outcome or severity for a subject has changed; never changed itself."""

    __tablename__ = "verdicts_history"

    id: Mapped[int] = mapped_column(primary_key=True)
    monitor: Mapped[str]
    subject: Mapped[str] = mapped_column(index=True)
    outcome: Mapped[str]
    severity: Mapped[str]
    evidence: Mapped[dict[str, Any]] = mapped_column(JSON)
    text: Mapped[str]
    at_us: Mapped[int] = mapped_column(BigInteger, index=True)


REFUSAL: Final = "verdicts are history and never change"
HISTORY: Final = HistoryRow.__tablename__


def make_triggers(dialect: str) -> list[str]:
    """Statements after which the history cannot be changed or deleted."""
    if dialect == "sqlite":
        body = f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
        return [f"CREATE TRIGGER {HISTORY}_no_{action} BEFORE {action} ON {HISTORY} {body}" for action in ("UPDATE", "DELETE")]
    function = "refuse_verdict_change"
    return [
        f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$",
        f"CREATE TRIGGER {HISTORY}_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {HISTORY} EXECUTE FUNCTION {function}()",
    ]


def _migrate(connection: Connection, _stored: int) -> None:
    for trigger in make_triggers(connection.dialect.name):
        connection.exec_driver_sql(trigger)


SCHEMA: Final = Schema(Base.metadata, "verdicts_schema", 1, _migrate, VerdictError)
