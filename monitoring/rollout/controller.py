"""The loop that steps rollouts: look, judge, decide, record, and only then move traffic.

Every tick starts from what is recorded. A decision is recorded under the lease, with the weight that it intends, before
traffic follows; a controller that is killed in between leaves the old weight, and the next one applies what is recorded. So
the weights are always those of the newest step or of the one before it, and a step that rolls back is applied like any other.
While the control database is down nothing can be recorded, so nothing moves up; only harm that is seen then still takes
traffic away, because stable is always allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from features.errors import EventLogError, PermanentError, PlumblineError, StoreUnavailable
from features.served_labels import table_version
from features.workspace import Workspace
from monitoring.errors import LeaseLost, RolloutError, TrafficChanged, TrafficError, TrafficUnavailable
from monitoring.rollout import step as steps
from monitoring.rollout.collector import Collector, check_collection
from monitoring.rollout.journal import (
    Decision,
    check_allowed,
    keep_evidence,
    record_applied,
    record_step,
    refuse_command,
)
from monitoring.rollout.labels import read_matured, shares_of
from monitoring.rollout.leader import US_PER_S, Claim, Lease, take
from monitoring.rollout.observations import Observations
from monitoring.rollout.placement import STARTED, Placed, arms_of, own_canary, place
from monitoring.rollout.records import Command, Standing, list_pending, list_work, read_dossier, read_snapshot
from monitoring.rollout.requests import answer
from monitoring.rollout.step import Action, Page, Phase, Promote, RollBack, Rollout, Shift, Start, advance
from monitoring.rollout.track import SHIFTED, Track, begin_track, find_changes, follow, take_snapshot, weigh
from monitoring.rollout.traffic import Routing, Traffic
from monitoring.rollout.whole_rows import OVERLAP_US, read_whole_rows

NAMES: Final = {Start: STARTED, Shift: SHIFTED, Promote: "promote", RollBack: "rollback", Page: "page"}
SELF: Final = "controller"
KEEP_EVERY_US: Final = 3 * US_PER_S
"""Evidence is kept at least so often; a controller that is killed loses what came since."""


class Aliases(Protocol):
    """Which version of a model is champion: the registry's business, which another room keeps."""

    def champion(self, model: str) -> int | None:
        """Its version; None where there is none."""

    def promote(self, model: str, version: int, why: str, at_us: int) -> None:
        """Make a version champion.

        Raises:
            PermanentError: it may not be.
        """


@dataclass(frozen=True)
class Surroundings:
    """What a controller works with.

    Attributes:
        ready_within_s: how long a canary may take until its model answers.
        feature_names: of a model's version, in the order of its logged whole rows; without it features are not judged.
        tell: called with one line whenever something happens that on-call should see.
    """

    workspace: Workspace
    traffic: Traffic
    collector: Collector
    aliases: Aliases
    claim: Claim
    tell: Callable[[str], None]
    ready_within_s: float = 180.0
    feature_names: Callable[[str, int], tuple[str, ...]] | None = None


class Controller:
    """Steps every open rollout once a tick."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._around = surroundings
        self._lease: Lease | None = None
        self._tracks: dict[int, Track] = {}
        self._told: dict[int, str] = {}

    @property
    def acts(self) -> bool:
        """Whether it held the lease at the last tick."""
        return self._lease is not None

    @property
    def lease(self) -> Lease | None:
        """What it holds."""
        return self._lease

    @property
    def collector(self) -> Collector:
        """Where its events come in."""
        return self._around.collector

    def tick(self, now_us: int) -> None:
        """Look at everything once."""
        around = self._around
        try:
            self._lease = take(around.workspace, around.claim, self._lease, now_us)
            self._told.pop(0, None)
            if self._lease is None:
                self._stand_by()
                return
            for command, standing in list_pending(around.workspace, around.claim.timeout_s):
                self._obey(command, standing, now_us)
            work = list_work(around.workspace, around.claim.timeout_s)
            for gone in self._tracks.keys() - {standing.facts.id for standing in work}:
                around.collector.forget(self._tracks.pop(gone).standing.facts.service)
            for standing in work:
                self._attend(standing, now_us)
        except LeaseLost as error:
            around.tell(str(error))
            self._stand_by()
        except StoreUnavailable as error:
            self._say(0, f"blind: {error}")
            self._protect(now_us)

    def _stand_by(self) -> None:
        self._lease = None
        for track in self._tracks.values():
            self._around.collector.forget(track.standing.facts.service)
        self._tracks.clear()

    def _attend(self, standing: Standing, now_us: int) -> None:
        """One rollout, as far as it can be taken now."""
        try:
            routing = self._around.traffic.read(standing.facts.service)
            if standing.step.phase == Phase.PENDING:
                standing = self._record(standing, Start(self._track(standing).plan.stages[0].percent), SELF, now_us)
            if standing.step.applied_at_us is not None:
                # What somebody has done by hand comes first: a decision made now would undo it.
                if self._follow_with_traffic(standing, routing, now_us):
                    return
                standing = self._weigh(standing, routing, now_us)
            if standing.step.applied_at_us is None:
                self._follow_with_traffic(standing, routing, now_us)
        except (TrafficUnavailable, TrafficChanged) as error:
            self._say(standing.facts.id, f"rollout {standing.facts.id}: {error}")
        except TrafficError as error:
            self._say(standing.facts.id, f"rollout {standing.facts.id}: {error}")
            if standing.is_open:
                self._end(standing, Phase.ABORTED, "abort", f"the data plane refuses: {error}", now_us)

    def _weigh(self, standing: Standing, routing: Routing, now_us: int) -> Standing:
        """Judge what has come since the last tick; the standing after what was decided."""
        facts, collector = standing.facts, self._around.collector
        track = self._track(standing)
        collector.watch(facts.service, arms_of(routing, facts), track.state.stage_started_us)
        seen, losses = collector.drain(facts.service, now_us)
        seen = self._add_features(seen, track, arms_of(routing, facts))
        seen, labels = self._add_labels(seen, track, arms_of(routing, facts))
        check = check_collection(f"{facts.service}/canary", losses, now_us)
        weighed, action = weigh(track, seen, (check,), now_us)
        if weighed.evidence is not track.evidence:  # labels that were not weighed are read again
            weighed = replace(weighed, labels_version=labels)
        changes = find_changes(track.verdicts, weighed.verdicts)
        if changes or now_us - weighed.kept_at_us >= KEEP_EVERY_US:
            snapshot = take_snapshot(weighed, getattr(action, "reason", ""), now_us)
            keep_evidence(self._around.workspace, self._lease_held(), snapshot, changes)
            weighed = replace(weighed, kept_at_us=now_us)
        self._tracks[facts.id] = weighed
        if isinstance(action, steps.Hold):
            return standing
        return self._record(standing, action, SELF, now_us)

    def _add_features(self, seen: Observations, track: Track, arms: Mapping[str, int]) -> Observations:
        """With the whole rows that servers have logged lately."""
        names_of, facts = self._around.feature_names, track.standing.facts
        if names_of is None:
            return seen
        since_us = max(track.state.stage_started_us, track.looked_at_us - OVERLAP_US)
        folder = self._around.workspace.predictions(facts.model)
        try:
            names = {version: names_of(facts.model, version) for version in (facts.stable_version, facts.canary_version)}
            return replace(seen, **vars(read_whole_rows(folder, arms, names, since_us, seen.at_us)))
        except (PlumblineError, OSError) as error:
            # Without features nothing is promoted, but harm that the other gates find is not to wait for them.
            self._say(facts.id, f"rollout {facts.id}: features cannot be judged: {error}")
            return seen

    def _add_labels(self, seen: Observations, track: Track, arms: Mapping[str, int]) -> tuple[Observations, int]:
        """With what became of answers since the canary got its first share, if that has changed; the table's version."""
        facts, workspace = track.standing.facts, self._around.workspace
        folder = workspace.served_labels(facts.model)
        try:
            version = table_version(folder)
            if version == track.labels_version:
                return seen, version
            shares = shares_of(read_dossier(workspace, facts.id).steps, seen.at_us)
            return replace(seen, **vars(read_matured(folder, arms, shares))), version
        except (EventLogError, OSError) as error:
            self._say(facts.id, f"rollout {facts.id}: labels cannot be judged: {error}")
            return seen, track.labels_version

    def _record(self, standing: Standing, action: Action, who: str, now_us: int) -> Standing:
        """Record what ``step`` has decided."""
        track = self._track(standing)
        state = advance(track.state, action, now_us)
        reason = getattr(action, "reason", "") or f"stage {state.stage + 1} of {len(track.plan.stages)}: {state.percent} %"
        return self._decide(standing, NAMES[type(action)], state, (who, reason), now_us)

    def _decide(
        self, standing: Standing, action: str, state: Rollout, because: tuple[str, str], now_us: int,
        command: Command | None = None,
    ) -> Standing:  # fmt: skip
        """Record a step; ``because`` is who and why."""
        track, facts = self._track(standing), standing.facts
        verdicts = [verdict.describe() for verdict in track.verdicts]
        who, why = because
        decision = Decision(action, str(state.phase), state.percent, state.describe(), verdicts, who, why)
        workspace, lease = self._around.workspace, self._lease_held()
        recorded = record_step(workspace, lease, standing, decision, now_us, command=command)
        after = replace(standing, step=recorded)
        self._tracks[facts.id] = follow(track, after)
        self._around.tell(f"rollout {facts.id} of {facts.service}: {action}, {state.percent} %, by {who}: {why}")
        return after

    def _end(self, standing: Standing, phase: Phase, action: str, why: str, now_us: int) -> Standing:
        state = replace(self._track(standing).state, phase=phase, percent=0, reason=why)
        return self._decide(standing, action, state, (SELF, why), now_us)

    def _follow_with_traffic(self, standing: Standing, routing: Routing, now_us: int) -> bool:
        """Bring traffic to where the newest step says, and mark the step; whether another step had to be recorded for that."""
        placed = place(self._around.traffic, routing, standing, self._share_before(standing))
        ended = self._react(placed, standing, routing, now_us) if standing.is_open else None
        if ended is not None:
            self._follow_with_traffic(ended, routing, now_us)
            return True
        if placed in (Placed.DONE, Placed.FOREIGN) and standing.step.applied_at_us is None:
            if placed is Placed.DONE:  # what is served by others' doing is not this rollout's to name
                self._give_alias(standing, now_us)
            record_applied(self._around.workspace, self._lease_held(), standing.step, now_us)
            after = replace(standing, step=replace(standing.step, applied_at_us=now_us))
            self._tracks[standing.facts.id] = follow(self._track(standing), after)
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
            return self._end(standing, Phase.ABORTED, "abort", why, now_us)
        waited_s = (now_us - standing.step.at_us) / US_PER_S
        if placed is Placed.WAITING and waited_s > self._around.ready_within_s:
            why = f"the canary's model did not answer within {self._around.ready_within_s:g} s"
            return self._end(standing, Phase.ROLLED_BACK, "rollback", why, now_us)
        return self._take_over(standing, routing, now_us) if placed is Placed.LOWERED else None

    def _take_over(self, standing: Standing, routing: Routing, now_us: int) -> Standing:
        """Somebody has given the canary less than was recorded: that stands, and nothing is raised until somebody resumes."""
        canary = own_canary(routing, standing.facts)
        if canary is None:
            return self._end(standing, Phase.ABORTED, "abort", "the canary was taken off by hand", now_us)
        why = f"the plane gives {canary.percent} %, less than the {standing.step.percent} % recorded: lowered by hand"
        state = replace(self._track(standing).state, phase=Phase.PAUSED, percent=canary.percent, reason=why)
        return self._decide(standing, "pause", state, ("plane", why), now_us)

    def _give_alias(self, standing: Standing, now_us: int) -> None:
        """The champion is what is served, as far as this rollout decides it."""
        facts, step = standing.facts, standing.step
        wanted = {Phase.PROMOTED: facts.canary_version, Phase.ROLLED_BACK: facts.stable_version}.get(Phase(step.phase))
        champion = self._around.aliases.champion(facts.model)
        undone = step.phase != Phase.ROLLED_BACK or champion == facts.canary_version
        if wanted is None or wanted == champion or not undone:
            return
        try:
            self._around.aliases.promote(
                facts.model, wanted, f"rollout {facts.id}, {step.action} by {step.who}: {step.why}", now_us
            )
        except StoreUnavailable:
            raise
        except PermanentError as error:
            self._around.tell(f"rollout {facts.id}: {wanted} is served but not champion: {error}")

    def _obey(self, command: Command, standing: Standing, now_us: int) -> None:
        """Do what somebody asked for, or refuse it with a reason."""
        try:
            check_allowed(command.action, standing.step.phase, f"{command.action} of rollout {command.rollout_id}")
            action, state = answer(command, self._track(standing), self._around.traffic, now_us)
            self._decide(standing, action, state, (command.who, command.why), now_us, command)
        except (TrafficUnavailable, TrafficChanged) as error:
            self._say(standing.facts.id, f"rollout {command.rollout_id}: {error}")
        except (RolloutError, TrafficError) as error:
            refuse_command(self._around.workspace, self._lease_held(), command, str(error), now_us)

    def _protect(self, now_us: int) -> None:
        """Without the control database: nothing is recorded, but harm that is seen still takes the traffic away."""
        for number, track in list(self._tracks.items()):
            facts = track.standing.facts
            if not track.standing.is_open or track.standing.step.applied_at_us is None:
                continue
            seen, losses = self._around.collector.drain(facts.service, now_us)
            weighed, action = weigh(track, seen, (check_collection(facts.service, losses, now_us),), now_us)
            self._tracks[number] = weighed
            if not isinstance(action, RollBack):
                continue
            try:
                routing = self._around.traffic.read(facts.service)
                canary = own_canary(routing, facts)
                if canary is not None and canary.percent:
                    self._around.traffic.shift(routing, 0)
                    self._around.tell(f"rollout {number}: 0 % without a record, because {action.reason}")
            except PlumblineError as error:
                self._say(number, f"rollout {number}: {error}")

    def _track(self, standing: Standing) -> Track:
        """The rollout in memory, or from the control database where this process has not met it."""
        known = self._tracks.get(standing.facts.id)
        if known is None or known.standing.step.sequence != standing.step.sequence:
            known = begin_track(standing, read_snapshot(self._around.workspace, standing.facts.id))
        self._tracks[standing.facts.id] = known
        return known

    def _lease_held(self) -> Lease:
        if self._lease is None:
            raise LeaseLost("lease is lost: controller; expected a lease; got none; next: take it again")
        return self._lease

    def _say(self, number: int, line: str) -> None:
        """Tell it once, not every tick."""
        if self._told.get(number) != line:
            self._told[number] = line
            self._around.tell(line)
