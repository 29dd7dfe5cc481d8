"""What one controller knows of the rollouts it steps, and how it writes that down: only under its lease.

A decision is recorded with the weight that it intends, before anybody moves traffic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from monitoring.errors import LeaseLost, ObservationError
from monitoring.rollout.journal import Decision, keep_evidence, record_applied, record_step, refuse_command
from monitoring.rollout.leader import Lease
from monitoring.rollout.placement import STARTED
from monitoring.rollout.records import Command, Outcome, Snapshot, Standing, read_snapshot
from monitoring.rollout.step import Action, Page, Phase, Promote, RollBack, Rollout, Shift, Start, advance
from monitoring.rollout.surroundings import Surroundings
from monitoring.rollout.track import SHIFTED, Track, begin_track, follow

NAMES: Final = {Start: STARTED, Shift: SHIFTED, Promote: "promote", RollBack: "rollback", Page: "page"}
SELF: Final = "controller"


class Ledger:
    """The lease that is held, and every rollout in memory.

    Attributes:
        lease: None while another controller acts.
        tracks: by the rollout's number.
        evidence_lost: how often what was kept of a rollout could not be read.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._around = surroundings
        self.lease: Lease | None = None
        self.tracks: dict[int, Track] = {}
        self.evidence_lost = 0

    def forget(self, number: int) -> None:
        """A rollout is over, or another controller's."""
        self._around.collector.forget(self.tracks.pop(number).standing.facts.service)

    def track(self, standing: Standing, now_us: int) -> Track:
        """The rollout in memory, or from the control database where this process has not met it."""
        known = self.tracks.get(standing.facts.id)
        if known is None or known.standing.step.sequence != standing.step.sequence:
            known = self._meet(standing, now_us)
        self.tracks[standing.facts.id] = known
        return known

    def _meet(self, standing: Standing, now_us: int) -> Track:
        snapshot = read_snapshot(self._around.workspace, standing.facts.id)
        try:
            return begin_track(standing, snapshot, now_us)
        except ObservationError as error:
            # Less evidence holds the stage for longer, and nothing else: that is no reason to leave a canary unwatched.
            self.evidence_lost += 1
            self._around.tell(f"rollout {standing.facts.id}: evidence begins anew: {error}")
            return begin_track(standing, None, now_us)

    def record(self, standing: Standing, action: Action, now_us: int) -> Standing:
        """Record what ``step`` has decided; where the rollout stands from then on."""
        track = self.track(standing, now_us)
        state = advance(track.state, action, now_us)
        reason = getattr(action, "reason", "") or f"stage {state.stage + 1} of {len(track.plan.stages)}: {state.percent} %"
        return self.decide(standing, NAMES[type(action)], state, (SELF, reason), now_us)

    def decide(
        self, standing: Standing, action: str, state: Rollout, because: tuple[str, str], now_us: int,
        command: Command | None = None,
    ) -> Standing:  # fmt: skip
        """Record a step; ``because`` is who and why."""
        track, facts = self.track(standing, now_us), standing.facts
        verdicts = [verdict.describe() for verdict in track.verdicts]
        who, why = because
        decision = Decision(action, str(state.phase), state.percent, state.describe(), verdicts, who, why)
        recorded = record_step(self._around.workspace, self._held(), standing, decision, now_us, command=command)
        after = replace(standing, step=recorded)
        self.tracks[facts.id] = follow(track, after)
        self._around.tell(f"rollout {facts.id} of {facts.service}: {action}, {state.percent} %, by {who}: {why}")
        return after

    def end(self, standing: Standing, phase: Phase, action: str, why: str, now_us: int) -> Standing:
        """Record that a rollout is over, with nothing for the canary."""
        state = replace(self.track(standing, now_us).state, phase=phase, percent=0, reason=why)
        return self.decide(standing, action, state, (SELF, why), now_us)

    def mark_applied(self, standing: Standing, now_us: int) -> Standing:
        """Record that traffic follows the newest step, and has since ``now_us`` at the latest."""
        record_applied(self._around.workspace, self._held(), standing.step, now_us)
        after = replace(standing, step=replace(standing.step, applied_at_us=now_us))
        self.tracks[standing.facts.id] = follow(self.track(standing, now_us), after)
        return after

    def count_from(self, standing: Standing, now_us: int) -> None:
        """Traffic was elsewhere: requests count that are routed from now on."""
        self.tracks[standing.facts.id] = replace(self.track(standing, now_us), since_us=now_us)

    def refuse(self, command: Command, reason: str, now_us: int) -> None:
        """Record why a command is not done."""
        refuse_command(self._around.workspace, self._held(), command, reason, now_us)

    def keep(self, snapshot: Snapshot, changes: Sequence[Outcome]) -> None:
        """Record the evidence, and the outcomes that have changed."""
        keep_evidence(self._around.workspace, self._held(), snapshot, changes)

    def _held(self) -> Lease:
        if self.lease is None:
            raise LeaseLost("lease is lost: controller; expected a lease; got none; next: take it again")
        return self.lease
