"""Bringing traffic to where a rollout's newest step says that it stands, from wherever it is.

``place`` may be called at any time and any number of times: it does the one thing that is missing. That is how a controller
goes on after it was killed between recording a step and applying it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from monitoring.rollout.names import name_canary, name_restored
from monitoring.rollout.records import Facts, Standing
from monitoring.rollout.step import Phase
from monitoring.rollout.traffic import Canary, Routing, Target, Traffic

STARTED: Final = "start"
"""Action of the step that adds the canary."""
RESTORED: Final = "restore"
"""Action of the step that undoes a promotion."""


class Placed(StrEnum):
    """What became of it: traffic was there already, it has just been moved there, a process is still loading, somebody has
    taken traffic from the canary or the canary away by hand, or the service runs something else altogether."""

    DONE = "done"
    MOVED = "moved"
    WAITING = "waiting"
    LOWERED = "lowered"
    FOREIGN = "foreign"


def canary_name(facts: Facts) -> str:
    """Name of the canary's revision."""
    return name_canary(facts.id)


def restored_name(facts: Facts) -> str:
    """Name of the stable revision after a rollback that undid a promotion."""
    return name_restored(facts.id)


def targets_of(facts: Facts) -> tuple[Target, Target]:
    """The stable and the canary version."""
    return Target(facts.model, facts.stable_version), Target(facts.model, facts.canary_version)


def arms_of(routing: Routing, facts: Facts) -> dict[str, int]:
    """Which revision is which arm: 0 stable, 1 canary."""
    return {routing.stable_name: 0, canary_name(facts): 1}


def own_canary(routing: Routing, facts: Facts) -> Canary | None:
    """The canary that this rollout has added; None where there is none or another one."""
    canary = routing.canary
    return canary if canary is not None and canary.name == canary_name(facts) else None


def place(traffic: Traffic, routing: Routing, standing: Standing, before: int) -> Placed:
    """Do what is missing until traffic is where the newest step says.

    Args:
        before: the canary's percent that traffic last followed; less than that, before or after the step, is somebody's hand.
    Raises:
        TrafficUnavailable, TrafficChanged, TrafficError: see ``Traffic``.
    """
    phase = standing.step.phase
    if phase == Phase.PENDING:
        return Placed.DONE
    if phase == Phase.PROMOTED:
        return _place_promotion(traffic, routing, standing.facts)
    if phase in (Phase.ROLLED_BACK, Phase.ABORTED):
        return _place_end(traffic, routing, standing)
    return _place_share(traffic, routing, standing, before)


def _place_share(traffic: Traffic, routing: Routing, standing: Standing, before: int) -> Placed:
    facts, step = standing.facts, standing.step
    stable, target = targets_of(facts)
    canary = own_canary(routing, facts)
    starting = step.action == STARTED and step.applied_at_us is None
    if routing.stable != stable or routing.canary != canary or (canary is not None and canary.target != target):
        return Placed.FOREIGN
    if canary is None:
        if starting:
            traffic.start(routing, target, canary_name(facts))
        return Placed.WAITING if starting else Placed.LOWERED
    # Once it has its share, a process that is down is a canary that crashes: to be judged, and not to be waited for.
    if starting and not canary.ready and canary.percent != step.percent:
        return Placed.WAITING
    if canary.percent < min(before, step.percent):
        return Placed.LOWERED
    if canary.percent == step.percent:
        return Placed.DONE
    traffic.shift(routing, step.percent)
    return Placed.MOVED


def _place_promotion(traffic: Traffic, routing: Routing, facts: Facts) -> Placed:
    stable, target = targets_of(facts)
    if own_canary(routing, facts) is not None:
        traffic.promote(routing)
        return Placed.MOVED
    if routing.canary is not None:
        return Placed.FOREIGN
    if routing.stable == target:
        return Placed.DONE if routing.ready else Placed.WAITING
    if routing.stable != stable:
        return Placed.FOREIGN
    traffic.restore(routing, target, canary_name(facts))  # the canary was taken away after the promotion was recorded
    return Placed.WAITING


def _place_end(traffic: Traffic, routing: Routing, standing: Standing) -> Placed:
    """Back to the version before; also when the canary had been promoted."""
    facts = standing.facts
    stable, target = targets_of(facts)
    if own_canary(routing, facts) is not None:
        traffic.roll_back(routing)
        return Placed.MOVED
    if standing.step.action != RESTORED:
        return Placed.DONE if routing.stable == stable else Placed.FOREIGN
    if routing.stable == target:
        traffic.restore(routing, stable, restored_name(facts))
        return Placed.WAITING
    if routing.stable != stable:
        return Placed.FOREIGN
    return Placed.DONE if routing.ready else Placed.WAITING
