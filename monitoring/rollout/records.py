"""What the control database knows of rollouts, as values, and how it is read."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from features.control_database import is_absent, open_session
from features.errors import explain
from features.workspace import Workspace
from monitoring.errors import RolloutError
from monitoring.rollout.step import FINAL, Phase
from monitoring.rollout.tables import SCHEMA, CommandRow, EvidenceRow, RolloutRow, StepRow, VerdictRow

OPEN: Final = frozenset(set(Phase) - FINAL)
"""Phases of a rollout that is not over."""
COMMANDS: Final = ("pause", "resume", "promote", "abort", "rollback")
READ_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True)
class Facts:
    """What is rolled out where; never changes. Times are UTC microseconds."""

    id: int
    service: str
    model: str
    stable_version: int
    canary_version: int
    plan: dict[str, Any]
    who: str
    why: str
    at_us: int


@dataclass(frozen=True)
class Step:
    """A decision, where the rollout stands from then on, and when traffic followed; None while it has not."""

    rollout_id: int
    sequence: int
    action: str
    phase: str
    percent: int
    state: dict[str, Any]
    verdicts: list[dict[str, Any]]
    who: str
    why: str
    token: int
    at_us: int
    applied_at_us: int | None


@dataclass(frozen=True)
class Standing:
    """A rollout and its newest step."""

    facts: Facts
    step: Step

    @property
    def is_open(self) -> bool:
        """Whether it is still to be stepped."""
        return self.step.phase in OPEN

    @property
    def needs_controller(self) -> bool:
        """Whether it is open, or traffic does not follow its last step yet."""
        return self.is_open or self.step.applied_at_us is None


@dataclass(frozen=True)
class Snapshot:
    """What was gathered while step ``sequence`` stood, the verdicts on it, and what the controller made of them."""

    rollout_id: int
    sequence: int
    evidence: str
    verdicts: list[dict[str, Any]]
    state: dict[str, Any]
    decision: str
    judged_at_us: int


@dataclass(frozen=True)
class Command:
    """What somebody asked for; ``done_at_us`` is None until the controller has done or refused it, as ``result`` says."""

    id: int
    rollout_id: int
    action: str
    who: str
    why: str
    at_us: int
    done_at_us: int | None
    result: str


@dataclass(frozen=True)
class Outcome:
    """A gate's outcome, when it changed to it."""

    monitor: str
    subject: str
    outcome: str
    severity: str
    evidence: dict[str, Any]
    text: str
    at_us: int


@dataclass(frozen=True)
class Dossier:
    """Everything that is known of one rollout; steps, outcomes and commands in order of time."""

    standing: Standing
    steps: list[Step]
    snapshot: Snapshot | None
    outcomes: list[Outcome]
    commands: list[Command]


def list_rollouts(workspace: Workspace, service: str | None = None) -> list[Standing]:
    """Every rollout, or those of one service, the newest first.

    Raises:
        StoreUnavailable: the control database does not answer.
    """
    if is_absent(workspace):
        return []
    query = _standings()
    if service is not None:
        query = query.where(RolloutRow.service == service)
    with open_session(workspace, SCHEMA, timeout_s=READ_TIMEOUT_S) as session:
        return [Standing(as_facts(row), as_step(step)) for row, step in session.execute(query)]


def find_rollout(workspace: Workspace, name: str) -> Standing:
    """By its number, or the newest of the service so named.

    Raises:
        RolloutError: there is none.
    """
    known = list_rollouts(workspace)
    if name.isdecimal():
        found = next((entry for entry in known if entry.facts.id == int(name)), None)
    else:
        found = next((entry for entry in known if entry.facts.service == name), None)
    if found is None:
        shown = ", ".join(f"{entry.facts.id} ({entry.facts.service})" for entry in known[:5]) or "none was ever started"
        raise RolloutError(
            explain("rollout does not exist", which=repr(name), expected=f"a rollout's number or a service: {shown}",
                    got=name, next_step="list them: plumb rollouts list")
        )  # fmt: skip
    return found


def read_dossier(workspace: Workspace, rollout_id: int) -> Dossier:
    """Everything about one rollout.

    Raises:
        RolloutError: there is none of that number.
    """
    standing = find_rollout(workspace, str(rollout_id))
    with open_session(workspace, SCHEMA, timeout_s=READ_TIMEOUT_S) as session:
        steps = session.scalars(select(StepRow).where(StepRow.rollout_id == rollout_id).order_by(StepRow.sequence))
        outcomes = session.scalars(select(VerdictRow).where(VerdictRow.rollout_id == rollout_id).order_by(VerdictRow.id))
        commands = session.scalars(select(CommandRow).where(CommandRow.rollout_id == rollout_id).order_by(CommandRow.id))
        return Dossier(
            standing,
            [as_step(row) for row in steps],
            find_snapshot(session, rollout_id),
            [Outcome(**_facts_of(row, Outcome)) for row in outcomes],
            [as_command(row) for row in commands],
        )


def list_work(workspace: Workspace, timeout_s: float = READ_TIMEOUT_S) -> list[Standing]:
    """Rollouts that a controller has to do with, the oldest first."""
    if is_absent(workspace):
        return []
    with open_session(workspace, SCHEMA, timeout_s=timeout_s) as session:
        known = [Standing(as_facts(row), as_step(step)) for row, step in session.execute(_standings())]
    return [entry for entry in reversed(known) if entry.needs_controller]


def list_pending(workspace: Workspace, timeout_s: float = READ_TIMEOUT_S) -> list[tuple[Command, Standing]]:
    """The oldest command of each rollout that is not done: a later one is about what that one makes of it."""
    if is_absent(workspace):
        return []
    with open_session(workspace, SCHEMA, timeout_s=timeout_s) as session:
        rows = session.scalars(select(CommandRow).where(CommandRow.done_at_us.is_(None)).order_by(CommandRow.id))
        commands = [as_command(row) for row in rows]
        if not commands:
            return []
        standings = {row.id: Standing(as_facts(row), as_step(step)) for row, step in session.execute(_standings())}
    oldest = {command.rollout_id: command for command in reversed(commands)}
    return [(command, standings[number]) for number, command in sorted(oldest.items())]


def read_snapshot(workspace: Workspace, rollout_id: int) -> Snapshot | None:
    """The newest evidence of a rollout; None where none was kept."""
    with open_session(workspace, SCHEMA, timeout_s=READ_TIMEOUT_S) as session:
        return find_snapshot(session, rollout_id)


def find_snapshot(session: Session, rollout_id: int) -> Snapshot | None:
    """The newest evidence of a rollout within a session."""
    query = select(EvidenceRow).where(EvidenceRow.rollout_id == rollout_id).order_by(EvidenceRow.sequence.desc())
    row = session.scalars(query.limit(1)).first()
    return None if row is None else Snapshot(**_facts_of(row, Snapshot))


def newest_step(session: Session, rollout_id: int) -> StepRow | None:
    """The row that says where a rollout stands."""
    query = select(StepRow).where(StepRow.rollout_id == rollout_id).order_by(StepRow.sequence.desc())
    return session.scalars(query.limit(1)).first()


def _standings() -> Select[RolloutRow, StepRow]:
    newest = select(StepRow.rollout_id, func.max(StepRow.sequence).label("sequence")).group_by(StepRow.rollout_id).subquery()
    return (
        select(RolloutRow, StepRow)
        .join(newest, newest.c.rollout_id == RolloutRow.id)
        .join(StepRow, (StepRow.rollout_id == RolloutRow.id) & (StepRow.sequence == newest.c.sequence))
        .order_by(RolloutRow.id.desc())
    )


def as_facts(row: RolloutRow) -> Facts:
    """A row as a value."""
    return Facts(**_facts_of(row, Facts))


def as_step(row: StepRow) -> Step:
    """A row as a value."""
    return Step(**_facts_of(row, Step))


def as_command(row: CommandRow) -> Command:
    """A row as a value."""
    return Command(**_facts_of(row, Command))


def _facts_of(row: object, kind: type[Any]) -> dict[str, Any]:
    return {entry.name: getattr(row, entry.name) for entry in fields(kind)}
