"""The loop that steps rollouts: look, judge, decide, record, and only then move traffic.

Every tick starts from what is recorded. A decision is recorded under the lease, with the weight that it intends, before
traffic follows; a controller that is killed in between leaves the old weight, and the next one applies what is recorded. So
the weights are always those of the newest step or of the one before it, and a step that rolls back is applied like any other.
While the control database is down nothing can be recorded, so nothing moves up; only harm that is seen then still takes
traffic away, because stable is always allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from features.errors import PlumblineError, StoreUnavailable
from monitoring.errors import LeaseLost, RolloutError, TrafficChanged, TrafficError, TrafficUnavailable
from monitoring.rollout.collector import Collector
from monitoring.rollout.following import Follower, share
from monitoring.rollout.journal import check_allowed
from monitoring.rollout.leader import US_PER_S, Lease, take
from monitoring.rollout.ledger import Ledger
from monitoring.rollout.placement import arms_of, own_canary
from monitoring.rollout.records import Command, Standing, list_pending, list_work
from monitoring.rollout.requests import answer
from monitoring.rollout.sight import look, look_at_requests
from monitoring.rollout.step import Hold, Phase, RollBack, Start
from monitoring.rollout.surroundings import Surroundings
from monitoring.rollout.track import Track, find_changes, follow, meet_share, take_snapshot, weigh
from monitoring.rollout.traffic import Routing
from monitoring.verdicts import Outcome, Severity, Verdict

KEEP_EVERY_US: Final = 3 * US_PER_S
"""Evidence is kept at least so often; a controller that is killed loses what came since."""


class Controller:
    """Steps every open rollout once a tick."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._around = surroundings
        self._ledger = Ledger(surroundings)
        self._follower = Follower(surroundings, self._ledger)
        self._told: dict[int, str] = {}

    @property
    def acts(self) -> bool:
        """Whether it held the lease at the last tick."""
        return self._ledger.lease is not None

    @property
    def lease(self) -> Lease | None:
        """What it holds."""
        return self._ledger.lease

    @property
    def evidence_lost(self) -> int:
        """How often what was kept of a rollout could not be read, since the start."""
        return self._ledger.evidence_lost

    @property
    def collector(self) -> Collector:
        """Where its events come in."""
        return self._around.collector

    def tick(self, now_us: int) -> None:
        """Look at everything once."""
        around, ledger = self._around, self._ledger
        try:
            ledger.lease = take(around.workspace, around.claim, ledger.lease, now_us)
            self._told.pop(0, None)
            if ledger.lease is None:
                self._stand_by()
                return
            for command, standing in list_pending(around.workspace, around.claim.timeout_s):
                self._obey(command, standing, now_us)
            work = list_work(around.workspace, around.claim.timeout_s)
            for gone in ledger.tracks.keys() - {standing.facts.id for standing in work}:
                self._forget(gone)
            for standing in work:
                self._attend(standing, now_us)
        except LeaseLost as error:
            around.tell(str(error))
            self._stand_by()
        except StoreUnavailable as error:
            self._say(0, f"blind: {error}")
            self._protect(now_us)

    def _stand_by(self) -> None:
        self._ledger.lease = None
        for number in list(self._ledger.tracks):
            self._forget(number)

    def _forget(self, number: int) -> None:
        self._ledger.forget(number)
        self._follower.forget(number)

    def _attend(self, standing: Standing, now_us: int) -> None:
        """One rollout, as far as it can be taken now."""
        ledger, number = self._ledger, standing.facts.id
        try:
            routing = self._around.traffic.read(standing.facts.service)
            if standing.step.phase == Phase.PENDING:
                standing = ledger.record(standing, Start(ledger.track(standing, now_us).plan.stages[0].percent), now_us)
            if standing.step.applied_at_us is not None:
                # What somebody has done by hand comes first: a decision made now would undo it.
                if not self._follower.follow(standing, routing, now_us):
                    return
                standing = self._weigh(standing, routing, now_us)
            if standing.step.applied_at_us is None:
                self._follower.follow(standing, routing, now_us)
        except (TrafficUnavailable, TrafficChanged) as error:
            self._say(number, f"rollout {number}: {error}")
        except TrafficError as error:
            self._say(number, f"rollout {number}: {error}")
            if standing.is_open:
                ledger.end(standing, Phase.ABORTED, "abort", f"the data plane refuses: {error}", now_us)

    def _weigh(self, standing: Standing, routing: Routing, now_us: int) -> Standing:
        """Judge what has come since the last tick; the standing after what was decided."""
        ledger, facts = self._ledger, standing.facts
        track = ledger.track(standing, now_us)
        others = self._ask_monitors(standing, routing, now_us)
        look_now = look(self._around, track, arms_of(routing, facts), self._say, now_us)
        weighed, action = weigh(track, look_now.seen, (look_now.collection, *others), now_us)
        if weighed.evidence is not track.evidence:  # labels that were not weighed are read again
            weighed = replace(weighed, labels_version=look_now.labels_version)
        ledger.tracks[facts.id] = weighed  # before anything is written, or what was seen would be lost with a failure
        changes = find_changes(track.verdicts, weighed.verdicts)
        if changes or now_us - weighed.kept_at_us >= KEEP_EVERY_US:
            ledger.keep(take_snapshot(weighed, getattr(action, "reason", ""), now_us), changes)
            ledger.tracks[facts.id] = replace(weighed, kept_at_us=now_us)
        return standing if isinstance(action, Hold) else ledger.record(standing, action, now_us)

    def _ask_monitors(self, standing: Standing, routing: Routing, now_us: int) -> Sequence[Verdict]:
        """What monitors beside the gates say; where they cannot, that stops promotions like anything else that is not seen."""
        if self._around.monitors is None:
            return ()
        try:
            return self._around.monitors(standing, routing, now_us)
        except StoreUnavailable:
            raise
        except PlumblineError as error:
            text = f"monitors cannot be asked: {' '.join(str(error).split())}"
            subject = f"{standing.facts.service}/canary"
            return (Verdict("monitors", subject, Outcome.INCONCLUSIVE, Severity.PAGE, {}, text, now_us),)

    def _obey(self, command: Command, standing: Standing, now_us: int) -> None:
        """Do what somebody asked for, or refuse it with a reason."""
        try:
            check_allowed(command.action, standing.step.phase, f"{command.action} of rollout {command.rollout_id}")
            action, state = answer(command, self._ledger.track(standing, now_us), self._around.traffic, now_us)
            self._ledger.decide(standing, action, state, (command.who, command.why), now_us, command)
        except (TrafficUnavailable, TrafficChanged) as error:
            self._say(standing.facts.id, f"rollout {command.rollout_id}: {error}")
        except (RolloutError, TrafficError) as error:
            self._ledger.refuse(command, str(error), now_us)

    def _protect(self, now_us: int) -> None:
        """Without the control database: nothing is recorded, but harm that is seen still takes the traffic away."""
        for number, track in list(self._ledger.tracks.items()):
            try:
                routing = self._around.traffic.read(track.standing.facts.service)
                canary = own_canary(routing, track.standing.facts)
                if canary is None or not canary.percent:
                    continue
                reason = self._find_harm(track, routing, canary.percent, now_us)
                if reason:
                    self._around.traffic.shift(routing, 0)
                    self._around.tell(f"rollout {number}: 0 % without a new record, because {reason}")
            except PlumblineError as error:
                self._say(number, f"rollout {number}: {error}")

    def _find_harm(self, track: Track, routing: Routing, percent: int, now_us: int) -> str:
        """Why a canary must lose its traffic, as far as the plane and its events alone can tell; empty where it need not."""
        number, step = track.standing.facts.id, track.standing.step
        if step.phase in (Phase.ROLLED_BACK, Phase.ABORTED):
            return step.why  # recorded, but traffic has not followed yet
        if not track.standing.is_open or not self._follower.sees(number, share(percent)):
            return ""
        if step.applied_at_us is None and step.percent == percent:
            track = follow(track, replace(track.standing, step=replace(step, applied_at_us=now_us)))
        track = meet_share(track, percent, now_us)
        look_now = look_at_requests(self._around, track, arms_of(routing, track.standing.facts), now_us)
        self._ledger.tracks[number], action = weigh(track, look_now.seen, (look_now.collection,), now_us)
        return action.reason if isinstance(action, RollBack) else ""

    def _say(self, number: int, line: str) -> None:
        """Tell it once, not every tick."""
        if self._told.get(number) != line:
            self._told[number] = line
            self._around.tell(line)
