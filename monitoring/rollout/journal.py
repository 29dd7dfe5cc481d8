"""What is written about rollouts: requests of operators, and what the controller decides.

Everything that the controller writes goes through a fenced session: a controller that has lost its lease writes nothing. A
step names the step that it follows, so that two decisions on the same ground cannot both be recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from features.control_database import open_session
from features.errors import explain
from features.workspace import Workspace
from monitoring.errors import RolloutError
from monitoring.rollout.leader import Lease, fenced
from monitoring.rollout.records import (
    COMMANDS,
    OPEN,
    Command,
    Outcome,
    Snapshot,
    Standing,
    Step,
    as_command,
    as_facts,
    as_step,
    newest_step,
)
from monitoring.rollout.step import Phase, Rollout
from monitoring.rollout.tables import SCHEMA, CommandRow, EvidenceRow, RolloutRow, StepRow, VerdictRow

REQUESTED = "request"
"""Action of a rollout's first step: somebody asked for it."""


@dataclass(frozen=True)
class NewRollout:
    """What is asked for: a canary version of a model beside the version that a service serves now."""

    service: str
    model: str
    stable_version: int
    canary_version: int
    plan: dict[str, Any]


@dataclass(frozen=True)
class Request:
    """Who asks, why, and when (UTC microseconds)."""

    who: str
    why: str
    at_us: int


@dataclass(frozen=True)
class Decision:
    """A step to be recorded: what is done, and where the rollout stands from then on."""

    action: str
    phase: str
    percent: int
    state: dict[str, Any]
    verdicts: Sequence[dict[str, Any]]
    who: str
    why: str


def request_rollout(workspace: Workspace, new: NewRollout, request: Request) -> Standing:
    """Ask for a rollout; the controller starts it.

    Raises:
        RolloutError: no reason is given, both versions are the same, or the service has an open rollout.
        StoreUnavailable: the control database does not answer.
    """
    _check_reason(request, f"rollout of {new.model} version {new.canary_version}")
    if new.stable_version == new.canary_version:
        raise RolloutError(
            explain("canary is what is served already", which=f"{new.service}: {new.model} version {new.canary_version}",
                    expected="another version", got=str(new.canary_version), next_step="list versions: plumb models list")
        )  # fmt: skip
    with open_session(workspace, SCHEMA, write=True) as session:
        present = _open_rollout(session, new.service)
        if present is not None:
            raise RolloutError(
                explain("service has an open rollout", which=f"rollout {present} of {new.service}", expected="none",
                        got="one that is not over", next_step=f"abort it first: plumb rollouts abort {present} --why ...")
            )  # fmt: skip
        row = RolloutRow(**asdict(new), **asdict(request))
        session.add(row)
        session.flush()
        first = StepRow(
            rollout_id=row.id, sequence=1, action=REQUESTED, phase=Phase.PENDING, percent=0, state=_first_state(row),
            verdicts=[], who=request.who, why=request.why, token=0, at_us=request.at_us, applied_at_us=request.at_us,
        )  # fmt: skip
        session.add(first)
        session.flush()
        made = Standing(as_facts(row), as_step(first))
        session.commit()
        return made


def request_command(workspace: Workspace, rollout_id: int, action: str, request: Request) -> Command:
    """Ask the controller for something; the same open request of the same person is not doubled.

    Raises:
        RolloutError: unknown action or rollout, no reason, or the rollout is over and cannot be changed so.
        StoreUnavailable: the control database does not answer.
    """
    which = f"{action} of rollout {rollout_id}"
    if action not in COMMANDS:
        raise RolloutError(
            explain("unknown command", which=which, expected=" or ".join(COMMANDS), got=action, next_step="correct the command")
        )
    _check_reason(request, which)
    with open_session(workspace, SCHEMA, write=True) as session:
        step = newest_step(session, rollout_id)
        if step is None:
            raise RolloutError(
                explain("rollout does not exist", which=str(rollout_id), expected="a rollout's number", got="none such",
                        next_step="list them: plumb rollouts list")
            )  # fmt: skip
        check_allowed(action, step.phase, which)
        same = select(CommandRow).where(
            CommandRow.rollout_id == rollout_id, CommandRow.action == action, CommandRow.who == request.who,
            CommandRow.done_at_us.is_(None),
        )  # fmt: skip
        row = session.scalars(same).first()
        if row is None:
            row = CommandRow(rollout_id=rollout_id, action=action, result="", **asdict(request))
            session.add(row)
            session.flush()
        command = as_command(row)
        session.commit()
        return command


def check_allowed(action: str, phase: str, which: str) -> None:
    """Raise ``RolloutError`` where a rollout in this phase cannot be changed so.

    Pausing pauses what runs, resuming resumes what is paused; what has been promoted can only be rolled back.
    """
    allowed = {
        "pause": {Phase.RUNNING}, "resume": {Phase.PAUSED}, "promote": {Phase.RUNNING, Phase.PAUSED}, "abort": OPEN,
        "rollback": OPEN | {Phase.PROMOTED},
    }[action]  # fmt: skip
    if phase not in allowed:
        raise RolloutError(
            explain("rollout cannot be changed so", which=which, expected=" or ".join(sorted(allowed)), got=phase,
                    next_step="look at it: plumb rollouts show")
        )  # fmt: skip


def record_step(
    workspace: Workspace, lease: Lease, standing: Standing, decision: Decision, now_us: int, *, command: Command | None = None
) -> Step:
    """Record a decision on a rollout that stands where the caller believes, before traffic follows.

    Args:
        command: done by this very step, in one transaction.
    Raises:
        LeaseLost: another controller acts.
        RolloutError: another step has been recorded meanwhile.
        StoreUnavailable: the control database does not answer.
    """
    facts, before = standing.facts, standing.step
    with fenced(workspace, lease, now_us) as session:
        newest = newest_step(session, facts.id)
        if newest is None or newest.sequence != before.sequence:
            raise RolloutError(
                explain("rollout has been stepped meanwhile", which=f"rollout {facts.id}", expected=f"step {before.sequence}",
                        got=f"step {newest.sequence if newest else 0}", next_step="read it again")
            )  # fmt: skip
        row = StepRow(
            rollout_id=facts.id, sequence=before.sequence + 1, action=decision.action, phase=decision.phase,
            percent=decision.percent, state=decision.state, verdicts=list(decision.verdicts), who=decision.who,
            why=decision.why, token=lease.token, at_us=now_us, applied_at_us=None,
        )  # fmt: skip
        session.add(row)
        if command is not None:
            _finish(session, command, "done", now_us)
        session.flush()
        step = as_step(row)
        session.commit()
        return step


def record_applied(workspace: Workspace, lease: Lease, step: Step, now_us: int) -> None:
    """Traffic follows the step now."""
    with fenced(workspace, lease, now_us) as session:
        row = newest_step(session, step.rollout_id)
        if row is not None and row.sequence == step.sequence and row.applied_at_us is None:
            row.applied_at_us = now_us
            session.commit()


def refuse_command(workspace: Workspace, lease: Lease, command: Command, reason: str, now_us: int) -> None:
    """A command cannot be done; whoever asked can read why."""
    with fenced(workspace, lease, now_us) as session:
        _finish(session, command, f"refused: {reason}", now_us)
        session.commit()


def keep_evidence(workspace: Workspace, lease: Lease, snapshot: Snapshot, changed: Sequence[Outcome]) -> None:
    """Keep what has been gathered since the newest step, and the outcomes that have changed."""
    with fenced(workspace, lease, snapshot.judged_at_us) as session:
        query = select(EvidenceRow).where(
            EvidenceRow.rollout_id == snapshot.rollout_id, EvidenceRow.sequence == snapshot.sequence
        )
        row = session.scalars(query).first()
        if row is None:
            session.add(EvidenceRow(**asdict(snapshot)))
        else:
            for name, value in asdict(snapshot).items():
                setattr(row, name, value)
        session.add_all(VerdictRow(rollout_id=snapshot.rollout_id, **asdict(entry)) for entry in changed)
        session.commit()


def _first_state(row: RolloutRow) -> dict[str, Any]:
    return Rollout(row.id, row.service, row.model, row.stable_version, row.canary_version).describe()


def _finish(session: Session, command: Command, result: str, now_us: int) -> None:
    row = session.get(CommandRow, command.id)
    if row is not None and row.done_at_us is None:
        row.done_at_us, row.result = now_us, result


def _open_rollout(session: Session, service: str) -> int | None:
    """Number of the service's rollout that is not over."""
    for number in session.scalars(select(RolloutRow.id).where(RolloutRow.service == service).order_by(RolloutRow.id.desc())):
        step = newest_step(session, number)
        if step is not None and (step.phase in OPEN or step.applied_at_us is None):
            return int(number)
    return None


def _check_reason(request: Request, which: str) -> None:
    for name, value in (("who", request.who), ("why", request.why)):
        if not value.strip():
            raise RolloutError(
                explain("request has no reason", which=which, expected=f"a text for {name}",
                        got="nothing", next_step="give one with --why")
            )  # fmt: skip
