"""How traffic follows what is recorded, what is made of somebody's hand on it, and which version is champion for it."""

from __future__ import annotations

from dataclasses import replace

from features.errors import PermanentError, StoreUnavailable
from monitoring.rollout.leader import US_PER_S
from monitoring.rollout.ledger import Ledger
from monitoring.rollout.placement import Placed, own_canary, place
from monitoring.rollout.records import Standing, read_dossier
from monitoring.rollout.step import Phase
from monitoring.rollout.surroundings import Surroundings
from monitoring.rollout.traffic import Routing


class Follower:
    """Brings traffic to where a rollout's newest step says, and marks the step."""

    def __init__(self, surroundings: Surroundings, ledger: Ledger) -> None:
        self._around = surroundings
        self._ledger = ledger

    def follow(self, standing: Standing, routing: Routing, now_us: int) -> bool:
        """Do what is missing; whether another step had to be recorded for that."""
        placed = place(self._around.traffic, routing, standing, self._share_before(standing))
        ended = self._react(placed, standing, routing, now_us) if standing.is_open else None
        if ended is not None:
            self.follow(ended, routing, now_us)
            return True
        if placed in (Placed.DONE, Placed.FOREIGN) and standing.step.applied_at_us is None:
            if placed is Placed.DONE:  # what is served by others' doing is not this rollout's to name
                self._give_alias(standing, now_us)
            self._ledger.mark_applied(standing, now_us)
        return False

    def _share_before(self, standing: Standing) -> int:
        """The canary's percent of the last step that traffic has followed."""
        if standing.step.applied_at_us is not None or not standing.is_open:
            return standing.step.percent
        steps = read_dossier(self._around.workspace, standing.facts.id).steps
        return next(step.percent for step in reversed(steps) if step.applied_at_us is not None)

    def _react(self, placed: Placed, standing: Standing, routing: Routing, now_us: int) -> Standing | None:
        """The step that must follow because traffic cannot, or somebody has changed it; None where there is none."""
        if placed is Placed.FOREIGN:
            why = f"{standing.facts.service} was changed by others: it runs {routing.stable}"
            return self._ledger.end(standing, Phase.ABORTED, "abort", why, now_us)
        waited_s = (now_us - standing.step.at_us) / US_PER_S
        if placed is Placed.WAITING and waited_s > self._around.ready_within_s:
            why = f"the canary's model did not answer within {self._around.ready_within_s:g} s"
            return self._ledger.end(standing, Phase.ROLLED_BACK, "rollback", why, now_us)
        return self._take_over(standing, routing, now_us) if placed is Placed.LOWERED else None

    def _take_over(self, standing: Standing, routing: Routing, now_us: int) -> Standing:
        """Somebody has given the canary less than was recorded: that stands, and nothing is raised until somebody resumes."""
        canary = own_canary(routing, standing.facts)
        if canary is None:
            return self._ledger.end(standing, Phase.ABORTED, "abort", "the canary was taken off by hand", now_us)
        why = f"the plane gives {canary.percent} %, less than the {standing.step.percent} % recorded: lowered by hand"
        state = replace(self._ledger.track(standing).state, phase=Phase.PAUSED, percent=canary.percent, reason=why)
        return self._ledger.decide(standing, "pause", state, ("plane", why), now_us)

    def _give_alias(self, standing: Standing, now_us: int) -> None:
        """The champion is what is served, as far as this rollout decides it."""
        facts, step = standing.facts, standing.step
        wanted = {Phase.PROMOTED: facts.canary_version, Phase.ROLLED_BACK: facts.stable_version}.get(Phase(step.phase))
        champion = self._around.aliases.champion(facts.model)
        undone = step.phase != Phase.ROLLED_BACK or champion == facts.canary_version
        if wanted is None or wanted == champion or not undone:
            return
        why = f"rollout {facts.id}, {step.action} by {step.who}: {step.why}"
        try:
            self._around.aliases.promote(facts.model, wanted, why, now_us)
        except StoreUnavailable:
            raise
        except PermanentError as error:
            self._around.tell(f"rollout {facts.id}: {wanted} is served but not champion: {error}")
