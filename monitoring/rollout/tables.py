"""The tables of rollouts in the control database.

What has happened is never rewritten: a rollout's facts, its steps and its verdicts are only added to, and triggers hold
that. Where a rollout stands is what its newest step says; there is no second record that could disagree. Of a step, only
the time at which it was applied is filled in later, once. What can change, and may be lost without harm, stands apart:
evidence gathered since the newest step, and the lease of the controller that acts.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import JSON, BigInteger, Connection, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from features.control_database import Schema
from monitoring.errors import RolloutError


class Base(DeclarativeBase):
    """Tables of the control database that rollouts own."""


class RolloutRow(Base):
    """What is rolled out where, by which plan, and who asked for it."""

    __tablename__ = "rollouts"

    id: Mapped[int] = mapped_column(primary_key=True)
    service: Mapped[str] = mapped_column(index=True)
    model: Mapped[str]
    stable_version: Mapped[int]
    canary_version: Mapped[int]
    plan: Mapped[dict[str, Any]] = mapped_column(JSON)
    who: Mapped[str]
    why: Mapped[str]
    at_us: Mapped[int] = mapped_column(BigInteger)


class StepRow(Base):
    """Something was decided about a rollout: where it stands from then on, and at which weight."""

    __tablename__ = "rollout_steps"
    __table_args__ = (UniqueConstraint("rollout_id", "sequence"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    rollout_id: Mapped[int] = mapped_column(index=True)
    sequence: Mapped[int]
    action: Mapped[str]
    phase: Mapped[str]
    percent: Mapped[int]
    state: Mapped[dict[str, Any]] = mapped_column(JSON)
    verdicts: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    who: Mapped[str]
    why: Mapped[str]
    token: Mapped[int] = mapped_column(BigInteger)
    at_us: Mapped[int] = mapped_column(BigInteger)
    applied_at_us: Mapped[int | None] = mapped_column(BigInteger)


class VerdictRow(Base):
    """A gate's outcome has changed."""

    __tablename__ = "rollout_verdicts"

    id: Mapped[int] = mapped_column(primary_key=True)
    rollout_id: Mapped[int] = mapped_column(index=True)
    monitor: Mapped[str]
    subject: Mapped[str]
    outcome: Mapped[str]
    severity: Mapped[str]
    evidence: Mapped[dict[str, Any]] = mapped_column(JSON)
    text: Mapped[str]
    at_us: Mapped[int] = mapped_column(BigInteger)


class EvidenceRow(Base):
    """What has been gathered while a step stood, as it was judged last; one row a step, overwritten while it is the newest."""

    __tablename__ = "rollout_evidence"
    __table_args__ = (UniqueConstraint("rollout_id", "sequence"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    rollout_id: Mapped[int] = mapped_column(index=True)
    sequence: Mapped[int]
    evidence: Mapped[str] = mapped_column(Text)
    verdicts: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    state: Mapped[dict[str, Any]] = mapped_column(JSON)
    decision: Mapped[str]
    judged_at_us: Mapped[int] = mapped_column(BigInteger)


class CommandRow(Base):
    """Somebody asks the controller to do something; ``result`` is empty until it has."""

    __tablename__ = "rollout_commands"

    id: Mapped[int] = mapped_column(primary_key=True)
    rollout_id: Mapped[int] = mapped_column(index=True)
    action: Mapped[str]
    who: Mapped[str]
    why: Mapped[str]
    at_us: Mapped[int] = mapped_column(BigInteger)
    done_at_us: Mapped[int | None] = mapped_column(BigInteger)
    result: Mapped[str] = mapped_column(default="")


class LeaseRow(Base):
    """Which controller acts; its token grows with every change of holder."""

    __tablename__ = "rollout_leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str]
    token: Mapped[int] = mapped_column(BigInteger)
    expires_at_us: Mapped[int] = mapped_column(BigInteger)


REFUSAL: Final = "rollouts are history and never change"
KEPT: Final = ("rollouts", "rollout_verdicts")
STEP_FACTS: Final = (
    "rollout_id, sequence, action, phase, percent, state, verdicts, who, why, token, at_us"  # all but applied_at_us
)


def make_triggers(dialect: str) -> list[str]:
    """Statements after which history cannot be changed or deleted."""
    if dialect == "sqlite":
        body = f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
        made = [f"CREATE TRIGGER {table}_no_{action} BEFORE {action} ON {table} {body}"
                for table in KEPT for action in ("UPDATE", "DELETE")]  # fmt: skip
        made += [f"CREATE TRIGGER rollout_steps_no_delete BEFORE DELETE ON rollout_steps {body}"]
        made += [f"CREATE TRIGGER rollout_steps_no_update BEFORE UPDATE OF {STEP_FACTS} ON rollout_steps {body}"]
        once = "BEFORE UPDATE ON rollout_steps WHEN OLD.applied_at_us IS NOT NULL"
        return [*made, f"CREATE TRIGGER rollout_steps_applied_once {once} {body}"]
    function = "refuse_rollout_change"
    made = [
        f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$",
    ]
    call = f"EXECUTE FUNCTION {function}()"
    made += [f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} {call}" for table in KEPT]
    made += [f"CREATE TRIGGER rollout_steps_no_delete BEFORE DELETE OR TRUNCATE ON rollout_steps {call}"]
    made += [f"CREATE TRIGGER rollout_steps_no_update BEFORE UPDATE OF {STEP_FACTS} ON rollout_steps {call}"]
    once = "BEFORE UPDATE ON rollout_steps FOR EACH ROW WHEN (OLD.applied_at_us IS NOT NULL)"
    return [*made, f"CREATE TRIGGER rollout_steps_applied_once {once} {call}"]


def _migrate(connection: Connection, _stored: int) -> None:
    for trigger in make_triggers(connection.dialect.name):
        connection.exec_driver_sql(trigger)


SCHEMA: Final = Schema(Base.metadata, "rollouts_schema", 1, _migrate, RolloutError)
