"""How traffic follows what is recorded, what is made of somebody's hand on it, and which version is champion for it."""

from __future__ import annotations

from dataclasses import replace

from features.errors import PermanentError, StoreUnavailable
from monitoring.errors import TrafficChanged, TrafficError, TrafficUnavailable
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
        self._sighted: dict[int, str] = {}
        """Where traffic was, by rollout, when it was last looked at or moved."""
        self._astray: set[int] = set()
        """Rollouts whose traffic may have been elsewhere since the last look."""

    def follow(self, standing: Standing, routing: Routing, now_us: int) -> bool:
        """Do what is missing; whether traffic is, and has been since before this look, where the newest step says.

        Nobody knows when within a look traffic moved, nor when a change that failed took hold after all. So a step is marked
        applied by a look that sees traffic where the look before saw or brought it, with this look's begin, and requests count
        that are routed from then on.
        """
        number, step = standing.facts.id, standing.step
        where = share(step.percent) if standing.is_open else step.phase
        try:
            placed = place(self._around.traffic, routing, standing, self._share_before(standing))
        except (TrafficUnavailable, TrafficChanged, TrafficError):
            self._lose(number)
            raise
        ended = self._react(placed, standing, routing, now_us) if standing.is_open else None
        if ended is not None:
            self._lose(number)
            self.follow(ended, routing, now_us)
            return False
        if placed in (Placed.MOVED, Placed.WAITING):
            self._lose(number)
        if placed is Placed.WAITING or not self.sees(number, where):
            return False
        if step.applied_at_us is None:
            if placed is Placed.DONE:  # what is served by others' doing is not this rollout's to name
                self._give_alias(standing, now_us)
            self._ledger.mark_applied(standing, now_us)
        elif number in self._astray:
            self._ledger.count_from(standing, now_us)
        self._astray.discard(number)
        return True

    def sees(self, number: int, where: str) -> bool:
        """Note where a rollout's traffic is; whether it was there at the look before as well."""
        before, self._sighted[number] = self._sighted.get(number), where
        return before == where

    def forget(self, number: int) -> None:
        """A rollout is over, or another controller's."""
        self._sighted.pop(number, None)
        self._astray.discard(number)

    def _lose(self, number: int) -> None:
        self._sighted.pop(number, None)
        self._astray.add(number)

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
        state = replace(self._ledger.track(standing, now_us).state, phase=Phase.PAUSED, percent=canary.percent, reason=why)
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


def share(percent: int) -> str:
    """Where traffic is while a canary has this share."""
    return f"{percent} %"
