"""What a person asks of rollouts, the same by command line and by HTTP: start one, change one, look at one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from features.errors import explain
from features.workspace import Workspace
from monitoring.errors import RolloutError
from monitoring.rollout.journal import NewRollout, Request, request_command, request_rollout
from monitoring.rollout.leader import US_PER_S, Lease, read_lease
from monitoring.rollout.plan import Plan, describe_plan, read_plan
from monitoring.rollout.records import Command, Dossier, Facts, Standing, find_rollout, list_rollouts, read_dossier
from monitoring.rollout.step import FINAL, Phase, current_stage
from monitoring.rollout.track import effective_state
from monitoring.rollout.traffic import Routing


def start_rollout(workspace: Workspace, routing: Routing, canary_version: int, plan: Plan, request: Request) -> Standing:
    """Ask for a canary beside what a service serves now.

    Args:
        routing: of the service, as the plane has just told it.
        canary_version: a version of the same model; whether it may be served is for the caller to check.
    Raises:
        RolloutError: the service has a canary or an open rollout, serves that version already, or sends no events; or no
            reason is given.
    """
    if not routing.sends_events:
        raise RolloutError(
            explain("service sends no events", which=routing.service, expected="spec.predictor.logger with mode all",
                    got="none, so that no gate could see anything",
                    next_step="add a logger whose url is the controller's: http://127.0.0.1:8002/")
        )  # fmt: skip
    if routing.canary is not None:
        raise RolloutError(
            explain("service has a canary", which=routing.service, expected="stable alone", got=routing.canary.name,
                    next_step="end its rollout, or take the canary out of the service")
        )  # fmt: skip
    model, stable_version = routing.stable.model, routing.stable.version
    new = NewRollout(routing.service, model, stable_version, canary_version, describe_plan(plan))
    return request_rollout(workspace, new, request)


def ask(workspace: Workspace, name: str, action: str, request: Request) -> Command:
    """Ask the controller to change a rollout, named by its number or by its service.

    For a rollback by service that is the open rollout, or the last one that was promoted.

    Raises:
        RolloutError: there is none, or it cannot be changed so.
    """
    return request_command(workspace, _find_for(workspace, name, action).facts.id, action, request)


def _find_for(workspace: Workspace, name: str, action: str) -> Standing:
    if name.isdecimal() or action != "rollback":
        return find_rollout(workspace, name)
    known = list_rollouts(workspace, name)
    standing = next((entry for entry in known if entry.is_open), None)
    standing = standing or next((entry for entry in known if entry.step.phase == Phase.PROMOTED), None)
    return standing or find_rollout(workspace, name)


def describe_standing(standing: Standing) -> dict[str, Any]:
    """One line of a list, as plain values."""
    facts, step = standing.facts, standing.step
    return {
        "id": facts.id, "service": facts.service, "model": facts.model, "stable_version": facts.stable_version,
        "canary_version": facts.canary_version, "phase": step.phase, "percent": step.percent,
        "applied": step.applied_at_us is not None, "who": facts.who, "why": facts.why, "at_us": facts.at_us,
        "step_at_us": step.at_us, "step_who": step.who, "step_why": step.why,
    }  # fmt: skip


def describe_rollout(workspace: Workspace, name: str, now_us: int) -> dict[str, Any]:
    """Everything that on-call asks of one rollout, as plain values: what runs, at which share, what each gate says, what the
    controller does next and when, and everything that has happened, with who and why."""
    dossier = read_dossier(workspace, find_rollout(workspace, name).facts.id)
    standing, snapshot = dossier.standing, dossier.snapshot
    plan, state = read_plan(standing.facts.plan), effective_state(standing)
    stage = current_stage(state, plan)
    ready_at_us = state.stage_started_us + stage.bake_s * US_PER_S
    running = standing.step.phase == Phase.RUNNING and standing.step.applied_at_us is not None
    return {
        **describe_standing(standing),
        "stage": state.stage + 1, "stages": len(plan.stages), "stage_started_us": state.stage_started_us,
        "stage_ends_us": ready_at_us if running else None,
        "plan": standing.facts.plan,
        "controller": describe_lease(read_lease(workspace), now_us),
        "next": describe_next(dossier, plan),
        "judged_at_us": snapshot.judged_at_us if snapshot else None,
        "verdicts": snapshot.verdicts if snapshot else [],
        "commands": [asdict(entry) for entry in dossier.commands],
        "timeline": [_describe_step(entry) for entry in dossier.steps],
        "changes": [asdict(entry) for entry in dossier.outcomes],
    }  # fmt: skip


def describe_lease(lease: Lease | None, now_us: int) -> dict[str, Any]:
    """Which controller acts; ``holder`` None where none does."""
    acts = lease is not None and lease.expires_at_us > now_us
    return {"holder": lease.holder if lease and acts else None, "expires_at_us": lease.expires_at_us if lease else None}


def describe_next(dossier: Dossier, plan: Plan) -> str:
    """One sentence: what the controller does next."""
    standing, snapshot = dossier.standing, dossier.snapshot
    step, facts = standing.step, standing.facts
    waiting = [entry for entry in dossier.commands if entry.done_at_us is None]
    if waiting:
        return f"{waiting[0].action}, as {waiting[0].who} has asked: {waiting[0].why}"
    if step.applied_at_us is None:
        return f"brings traffic to step {step.sequence}: {step.action}, {step.percent} %"
    if step.phase == Phase.PENDING:
        return f"starts the canary and gives it {plan.stages[0].percent} %"
    if step.phase in FINAL:
        return _describe_end(facts, step.phase)
    held = snapshot.decision if snapshot and snapshot.sequence == step.sequence else "gathers evidence"
    if step.phase == Phase.PAUSED:
        return f"waits for a person; harm still rolls it back. {held}"
    state = effective_state(standing)
    ends = state.stage + 1 == len(plan.stages)
    then = "promotes it" if ends else f"gives it {plan.stages[state.stage + 1].percent} %"
    return f"holds ({held}); then {then} once every gate passes"


def _describe_end(facts: Facts, phase: str) -> str:
    if phase == Phase.PROMOTED:
        return f"nothing; `plumb rollouts rollback {facts.id} --why ...` restores version {facts.stable_version}"
    return "nothing: it is over"


def _describe_step(step: Any) -> dict[str, Any]:
    fields = asdict(step)
    return {name: fields[name] for name in ("sequence", "action", "phase", "percent", "who", "why", "at_us", "applied_at_us")}
