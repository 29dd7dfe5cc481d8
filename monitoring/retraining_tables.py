"""The table of retrainings in the control database: what was opened and why never changes, what came of it is filled in."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import JSON, BigInteger, Connection
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from features.control_database import Schema
from monitoring.errors import RetrainingError


class Base(DeclarativeBase):
    """Tables of the control database that retrainings own."""


class RetrainingRow(Base):
    """One training run that drift has asked for; its facts first, then what came of it."""

    __tablename__ = "retrainings"

    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(index=True)
    service: Mapped[str]
    pipeline: Mapped[str]
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON)
    like_run: Mapped[str]
    place: Mapped[str]
    who: Mapped[str]
    why: Mapped[str]
    verdicts: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    drifts_since_us: Mapped[int] = mapped_column(BigInteger)
    opened_at_us: Mapped[int] = mapped_column(BigInteger)

    status: Mapped[str]
    run_id: Mapped[str] = mapped_column(default="")
    result: Mapped[str] = mapped_column(default="")
    finished_at_us: Mapped[int | None] = mapped_column(BigInteger)
    episode_ended_at_us: Mapped[int | None] = mapped_column(BigInteger)


REFUSAL: Final = "why a run was opened is history and never changes"
FACTS: Final = "model, service, pipeline, parameters, like_run, place, who, why, verdicts, drifts_since_us, opened_at_us"
TABLE: Final = RetrainingRow.__tablename__


def make_triggers(dialect: str) -> list[str]:
    """Statements after which facts cannot be changed, nor rows deleted."""
    if dialect == "sqlite":
        body = f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
        return [
            f"CREATE TRIGGER {TABLE}_no_update BEFORE UPDATE OF {FACTS} ON {TABLE} {body}",
            f"CREATE TRIGGER {TABLE}_no_delete BEFORE DELETE ON {TABLE} {body}",
        ]
    function = "refuse_retraining_change"
    call = f"EXECUTE FUNCTION {function}()"
    return [
        f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$",
        f"CREATE TRIGGER {TABLE}_no_update BEFORE UPDATE OF {FACTS} ON {TABLE} {call}",
        f"CREATE TRIGGER {TABLE}_no_delete BEFORE DELETE OR TRUNCATE ON {TABLE} {call}",
    ]


def _migrate(connection: Connection, _stored: int) -> None:
    for trigger in make_triggers(connection.dialect.name):
        connection.exec_driver_sql(trigger)


SCHEMA: Final = Schema(Base.metadata, "retrainings_schema", 1, _migrate, RetrainingError)
