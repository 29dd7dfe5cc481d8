"""What a rollout does next: a pure function of its state, the latest verdicts, its plan and the time.

The controller records the state that ``advance`` gives for an action, then carries the action out; a controller that dies in
between finds the new state and carries the action out again, so carrying one out twice must do no harm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final

from features.errors import explain
from features.layout import US_PER_S
from monitoring.errors import RolloutError
from monitoring.rollout.plan import Plan, Stage
from monitoring.verdicts import Outcome, Severity, Verdict


class Phase(StrEnum):
    """Where a rollout stands. The last three are final."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"


FINAL: Final = frozenset({Phase.PROMOTED, Phase.ROLLED_BACK, Phase.ABORTED})


@dataclass(frozen=True)
class Rollout:
    """One rollout's state, small and complete: with the plan and the evidence it is all a new controller needs.

    ``percent`` is the canary's share of users that was last recorded, ``stage`` the index of the plan's stage,
    ``paged_stage`` the last stage that has paged (-1: none; a stage pages once), ``reason`` why the phase was entered.
    Times are UTC microseconds.
    """

    id: int
    service: str
    model: str
    stable_version: int
    canary_version: int
    phase: Phase = Phase.PENDING
    stage: int = 0
    stage_started_us: int = 0
    percent: int = 0
    paged_stage: int = -1
    reason: str = ""

    def describe(self) -> dict[str, Any]:
        """Plain values for JSON; ``read_rollout`` reads them."""
        return {**asdict(self), "phase": str(self.phase)}


def read_rollout(fields: Mapping[str, Any]) -> Rollout:
    """The state that ``Rollout.describe`` gave."""
    return Rollout(**{**fields, "phase": Phase(fields["phase"])})


@dataclass(frozen=True)
class Start:
    """Start the canary and give it its first share."""

    percent: int


@dataclass(frozen=True)
class Shift:
    """Give the canary the next stage's share. Evidence moves on with it (``evidence.enter_stage``)."""

    percent: int


@dataclass(frozen=True)
class Hold:
    """Leave everything as it is."""

    reason: str


@dataclass(frozen=True)
class Page:
    """Leave everything as it is, and call somebody."""

    reason: str


@dataclass(frozen=True)
class Promote:
    """Make the canary's version the stable one."""

    reason: str


@dataclass(frozen=True)
class RollBack:
    """Take all traffic from the canary and stop it."""

    reason: str


Action = Start | Shift | Hold | Page | Promote | RollBack


def step(state: Rollout, verdicts: Sequence[Verdict], plan: Plan, now_us: int) -> Action:
    """The next action.

    Harm rolls back, also while paused. Otherwise a stage ends only when its time is over and every verdict above INFO
    is a pass; no verdicts at all are no pass. What keeps a stage from ending pages once: a failure at once, anything
    inconclusive after ``plan.hold_s`` seconds beyond the stage's time.
    """
    if state.phase in FINAL:
        return Hold(f"the rollout is over: {state.phase}")
    if state.phase is Phase.PENDING:
        return Start(plan.stages[0].percent)
    harm = [verdict.text for verdict in verdicts if _is_failure(verdict, Severity.ROLL_BACK)]
    if harm:
        return RollBack("; ".join(harm))
    may_page = state.paged_stage != state.stage
    failures = [verdict.text for verdict in verdicts if _is_failure(verdict, Severity.PAGE)]
    if failures:
        return (Page if may_page else Hold)("; ".join(failures))
    if state.phase is Phase.PAUSED:
        return Hold(f"paused: {state.reason}")
    return _end_stage(state, verdicts, plan, now_us, may_page)


def _end_stage(state: Rollout, verdicts: Sequence[Verdict], plan: Plan, now_us: int, may_page: bool) -> Action:
    stage = plan.stages[state.stage]
    over_s = (now_us - state.stage_started_us) / US_PER_S - stage.bake_s
    if over_s < 0:
        return Hold(f"stage {state.stage + 1} of {len(plan.stages)} bakes for another {-over_s:.0f} s")
    waiting = [v.text for v in verdicts if v.outcome is not Outcome.PASS and v.severity is not Severity.INFO]
    if waiting or not verdicts:
        reason = "; ".join(waiting) or "no verdicts"
        return (Page if may_page and over_s >= plan.hold_s else Hold)(f"inconclusive: {reason}")
    if state.stage + 1 < len(plan.stages):
        return Shift(plan.stages[state.stage + 1].percent)
    return Promote(f"every gate passed at {stage.percent:g} %")


def _is_failure(verdict: Verdict, severity: Severity) -> bool:
    return verdict.outcome is Outcome.FAIL and verdict.severity is severity


def advance(state: Rollout, action: Action, now_us: int) -> Rollout:
    """The state once ``action``, as ``step`` gave it, has been carried out."""
    match action:
        case Start(percent):
            return replace(state, phase=Phase.RUNNING, stage=0, stage_started_us=now_us, percent=percent, reason="started")
        case Shift(percent):
            return replace(state, stage=state.stage + 1, stage_started_us=now_us, percent=percent)
        case Promote(reason):
            return replace(state, phase=Phase.PROMOTED, percent=100, reason=reason)
        case RollBack(reason):
            return replace(state, phase=Phase.ROLLED_BACK, percent=0, reason=reason)
        case Page():
            return replace(state, paged_stage=state.stage)
        case Hold():
            return state


def pause(state: Rollout, reason: str) -> Rollout:
    """Stay at this percent until resumed. The canary keeps its traffic, and harm still rolls it back."""
    _require(state, {Phase.RUNNING}, "pause")
    return replace(state, phase=Phase.PAUSED, reason=reason)


def resume(state: Rollout, reason: str, now_us: int) -> Rollout:
    """Go on; the stage bakes anew from now."""
    _require(state, {Phase.PAUSED}, "resume")
    return replace(state, phase=Phase.RUNNING, stage_started_us=now_us, reason=reason)


def abort(state: Rollout, reason: str) -> Rollout:
    """End a rollout by hand: the canary is to have no traffic."""
    _require(state, set(Phase) - FINAL, "abort")
    return replace(state, phase=Phase.ABORTED, percent=0, reason=reason)


def roll_back(state: Rollout, reason: str) -> Rollout:
    """End a rollout by hand because the canary is bad: it is to have no traffic."""
    _require(state, set(Phase) - FINAL, "roll back")
    return replace(state, phase=Phase.ROLLED_BACK, percent=0, reason=reason)


def promote(state: Rollout, reason: str) -> Rollout:
    """Promote by hand, whatever the gates say."""
    _require(state, {Phase.RUNNING, Phase.PAUSED}, "promote")
    return replace(state, phase=Phase.PROMOTED, percent=100, reason=reason)


def _require(state: Rollout, phases: set[Phase] | frozenset[Phase], what: str) -> None:
    if state.phase not in phases:
        raise RolloutError(
            explain(f"cannot {what} a rollout", which=str(state.id), expected=f"phase {' or '.join(sorted(phases))}",
                    got=str(state.phase), next_step="look at `plumb rollouts show`")
        )  # fmt: skip


def current_stage(state: Rollout, plan: Plan) -> Stage:
    """The plan's stage that the rollout stands in."""
    return plan.stages[state.stage]
