"""What monitors outside the controller say of a rollout: which standing verdicts concern it, and what each may do to it.

A monitor that blames the canary itself (``drift.stable.*``) takes the traffic from it. One that fails for stable or the service
calls somebody and stops the promotion. A monitor that was to speak again and has not is blind, and nothing is
promoted past it. One that has found too little data is shown; only a plan that requires it waits for it, and for one that has
never spoken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from features.workspace import Workspace
from monitoring.rollout.placement import canary_name
from monitoring.rollout.plan import read_plan
from monitoring.rollout.records import Standing
from monitoring.rollout.track import effective_state
from monitoring.rollout.traffic import Routing
from monitoring.verdict_log import BLIND, read_standing
from monitoring.verdicts import Outcome, Severity, Verdict

TRAINING: Final = "drift.training."
BESIDE_THE_PAST: Final = (TRAINING, "drift.weeks.")
"""Monitors that hold what is served now against what was: a canary that was trained on the present may be the cure."""


@dataclass(frozen=True)
class Concern:
    """Whose verdicts concern a rollout.

    Attributes:
        canary, stable, service, model: subjects, as monitors name them.
        require: monitors that must have passed the canary, or the service or model as a whole, since ``since_us`` (UTC
            microseconds).
    """

    canary: str
    stable: str
    service: str
    model: str
    require: tuple[str, ...] = ()
    since_us: int = 0

    @property
    def subjects(self) -> tuple[str, ...]:
        return (self.canary, self.stable, self.service, self.model)


def concern_of(standing: Standing, routing: Routing) -> Concern:
    """What concerns a rollout now; the stable revision is the one that the plane names, whatever it was called as a canary."""
    facts = standing.facts
    return Concern(
        f"{facts.service}/{canary_name(facts)}", f"{facts.service}/{routing.stable_name}", facts.service,
        f"model:{facts.model}", read_plan(facts.plan).require, effective_state(standing).stage_started_us,
    )  # fmt: skip


def read_monitors(workspace: Workspace, standing: Standing, routing: Routing, now_us: int) -> tuple[Verdict, ...]:
    """What the workspace's log of verdicts holds on a rollout at an instant (UTC microseconds).

    Raises:
        StoreUnavailable: the control database does not answer.
    """
    concern = concern_of(standing, routing)
    known = read_standing(workspace, subjects=concern.subjects, now_us=now_us)
    return weigh_monitors(concern, [each.judged(now_us) for each in known], now_us)


def weigh_monitors(concern: Concern, verdicts: Sequence[Verdict], now_us: int) -> tuple[Verdict, ...]:
    """Standing verdicts as a rollout is to take them, and one for each required monitor that has not passed."""
    # What is wrong with a model as a whole (its labels, its estimates) stops a rollout only where the plan asks for it: the
    # rollout may be what mends it.
    known = {
        (verdict.monitor, verdict.subject): verdict
        for verdict in verdicts
        if verdict.subject != concern.model or verdict.monitor in concern.require
    }
    taken = [_take(verdict, concern, known) for verdict in known.values()]
    return (*taken, *_miss_required(concern, taken, now_us))


def _take(verdict: Verdict, concern: Concern, known: Mapping[tuple[str, str], Verdict]) -> Verdict:
    named = replace(verdict, text=f"{verdict.monitor} of {verdict.subject}: {verdict.text}")
    if verdict.severity is Severity.ROLL_BACK and verdict.subject != concern.canary:
        return replace(named, severity=Severity.PAGE)  # only what concerns the canary may take its traffic
    if verdict.outcome is Outcome.INCONCLUSIVE and BLIND not in verdict.evidence:
        return replace(named, severity=Severity.INFO)
    if verdict.outcome is Outcome.FAIL and _is_answered(verdict, concern, known):
        return replace(named, severity=Severity.INFO, text=f"{named.text}; the canary's training has it")
    return named


def _is_answered(verdict: Verdict, concern: Concern, known: Mapping[tuple[str, str], Verdict]) -> bool:
    """Stable is served what it was not trained on, and the canary was trained on just that: promoting it is the cure."""
    prefix = next((each for each in BESIDE_THE_PAST if verdict.monitor.startswith(each)), None)
    if prefix is None or verdict.subject != concern.stable:
        return False
    answer = known.get((TRAINING + verdict.monitor.removeprefix(prefix), concern.canary))
    return answer is not None and answer.outcome is Outcome.PASS


def _miss_required(concern: Concern, taken: Iterable[Verdict], now_us: int) -> list[Verdict]:
    """One verdict for each required monitor that has passed neither the canary nor service or model since the stage began."""
    spoken = {
        verdict.monitor: verdict
        for verdict in taken
        if verdict.subject != concern.stable and verdict.at_us >= concern.since_us
    }  # fmt: skip
    missed = []
    for monitor in concern.require:
        verdict = spoken.get(monitor)
        if verdict is None:
            text = f"required {monitor} has not spoken of {concern.canary} since the stage began"
        elif verdict.outcome is Outcome.PASS or _stops(verdict):
            continue
        else:
            text = f"required, but not passed: {verdict.text}"
        missed.append(Verdict(f"require.{monitor}", concern.canary, Outcome.INCONCLUSIVE, Severity.PAGE, {}, text, now_us))
    return missed


def _stops(verdict: Verdict) -> bool:
    """Whether it keeps a stage from ending by itself."""
    return verdict.severity is not Severity.INFO
