"""What a person's request makes of a rollout."""

from __future__ import annotations

from dataclasses import replace

from features.errors import explain
from monitoring.errors import RolloutError
from monitoring.rollout import step as steps
from monitoring.rollout.placement import RESTORED, targets_of
from monitoring.rollout.records import Command
from monitoring.rollout.step import Phase, Rollout
from monitoring.rollout.track import Track
from monitoring.rollout.traffic import Traffic


def answer(command: Command, track: Track, traffic: Traffic, now_us: int) -> tuple[str, Rollout]:
    """Name of the step that a command asks for, and the state after it.

    Raises:
        RolloutError: it does not fit where the rollout stands, or what was promoted is no longer what is served.
        TrafficUnavailable, TrafficError: the data plane cannot say what is served.
    """
    state, why = track.state, command.why
    if command.action == "resume":
        # Somebody may have lowered the share meanwhile: the stage's own is what its gates are about.
        return "resume", replace(steps.resume(state, why, now_us), percent=track.plan.stages[state.stage].percent)
    if command.action == "rollback" and state.phase is Phase.PROMOTED:
        _check_served(track, traffic)
        return RESTORED, replace(state, phase=Phase.ROLLED_BACK, percent=0, reason=why)
    change = {"pause": steps.pause, "promote": steps.promote, "abort": steps.abort, "rollback": steps.roll_back}[command.action]
    return command.action, change(state, why)


def _check_served(track: Track, traffic: Traffic) -> None:
    """Raise ``RolloutError`` unless what this rollout has promoted is what is served, with no canary beside it."""
    facts, step = track.standing.facts, track.standing.step
    _, promoted = targets_of(facts)
    served = traffic.read(facts.service)
    if step.applied_at_us is not None and (served.stable != promoted or served.canary is not None):
        beside = f" beside {served.canary.target}" if served.canary else ""
        raise RolloutError(
            explain("rollout is no longer what is served", which=f"rollout {facts.id} of {facts.service}",
                    expected=str(promoted), got=f"{served.stable}{beside}",
                    next_step="roll back the newest rollout of the service first")
        )  # fmt: skip
