"""Who sees to an alert, why and until when. An ack is of one episode: an alert that ends and comes back is new.

Acks are added to the control database and never changed; of several for one episode the newest counts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from sqlalchemy import BigInteger, Connection, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from features.control_database import Schema, is_absent, open_session
from features.errors import explain
from features.workspace import Workspace
from monitoring.errors import AlertError

TIMEOUT_S: Final = 3.0


class Base(DeclarativeBase):
    """Tables of the control database that hold acks."""


class AckRow(Base):
    """One ack."""

    __tablename__ = "alert_acks"

    number: Mapped[int] = mapped_column(primary_key=True)
    alert: Mapped[str] = mapped_column(index=True)
    since_us: Mapped[int] = mapped_column(BigInteger)
    who: Mapped[str]
    why: Mapped[str]
    until_us: Mapped[int] = mapped_column(BigInteger)
    at_us: Mapped[int] = mapped_column(BigInteger)


@dataclass(frozen=True)
class Ack:
    """Somebody sees to an alert: ``alert`` is its id, ``since_us`` when the episode began. Times are UTC microseconds."""

    alert: str
    since_us: int
    who: str
    why: str
    until_us: int
    at_us: int


REFUSAL: Final = "acks are history and never change"


def make_triggers(dialect: str) -> list[str]:
    """Statements after which an ack cannot be changed or deleted."""
    table = AckRow.__tablename__
    if dialect == "sqlite":
        body = f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
        return [f"CREATE TRIGGER {table}_no_{action} BEFORE {action} ON {table} {body}" for action in ("UPDATE", "DELETE")]
    function = "refuse_ack_change"
    return [
        f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$",
        f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} EXECUTE FUNCTION {function}()",
    ]


def _migrate(connection: Connection, _stored: int) -> None:
    for trigger in make_triggers(connection.dialect.name):
        connection.exec_driver_sql(trigger)


SCHEMA: Final = Schema(Base.metadata, "acks_schema", 1, _migrate, AlertError)


def record_ack(workspace: Workspace, ack: Ack) -> None:
    """Keep an ack.

    Raises:
        AlertError: it names nobody or no reason, or is over before it begins.
        StoreUnavailable: the control database does not answer.
    """
    for name, text in (("who", ack.who), ("why", ack.why)):
        if not text.strip():
            raise _refusal(ack.alert, f"somebody's {name}", "nothing")
    if ack.until_us <= ack.at_us:
        raise _refusal(ack.alert, "an end in the future", "one that is over")
    with open_session(workspace, SCHEMA, write=True, timeout_s=TIMEOUT_S) as session:
        session.add(AckRow(**vars(ack)))
        session.commit()


def read_acks(workspace: Workspace, now_us: int) -> dict[tuple[str, int], Ack]:
    """Acks that hold now, by alert and beginning of its episode."""
    if is_absent(workspace):
        return {}
    newest = select(func.max(AckRow.number)).group_by(AckRow.alert, AckRow.since_us)
    query = select(AckRow).where(AckRow.number.in_(newest), AckRow.until_us > now_us)
    with open_session(workspace, SCHEMA, timeout_s=TIMEOUT_S) as session:
        found = [Ack(**{field.name: getattr(row, field.name) for field in fields(Ack)}) for row in session.scalars(query)]
    return {(ack.alert, ack.since_us): ack for ack in found}


def _refusal(which: str, expected: str, got: str) -> AlertError:
    return AlertError(
        explain("ack refused", which=which, expected=expected, got=got, next_step="name who, why and an instant to come")
    )
