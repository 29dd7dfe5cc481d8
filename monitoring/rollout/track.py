"""A rollout in the controller's memory between two ticks: its state, its evidence, and what was last made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from monitoring.rollout.evidence import Evidence, begin, enter_stage, fold
from monitoring.rollout.evidence_json import read_evidence, write_evidence
from monitoring.rollout.gates import judge
from monitoring.rollout.observations import Observations
from monitoring.rollout.placement import STARTED
from monitoring.rollout.plan import Plan, read_plan
from monitoring.rollout.records import Outcome, Snapshot, Standing
from monitoring.rollout.step import Action, Rollout, read_rollout, step
from monitoring.verdicts import Verdict

SHIFTED = "shift"
RESUMED = "resume"
NO_LABELS = -1


@dataclass(frozen=True)
class Track:
    """One open rollout.

    Attributes:
        standing: as it was recorded last.
        plan: its plan.
        state: of the standing; its stage begins when traffic followed, not when that was decided.
        evidence: of the stage.
        verdicts: the last ones.
        kept_at_us: when the control database got the evidence last, UTC microseconds.
        looked_at_us: when it was judged last; 0 for a controller that has just met it.
        since_us: requests routed from then on count, because only then did traffic surely follow.
        labels_version: of the table of labels that the evidence holds; a controller that has just met it reads all again.
    """

    standing: Standing
    plan: Plan
    state: Rollout
    evidence: Evidence
    verdicts: tuple[Verdict, ...] = ()
    kept_at_us: int = 0
    looked_at_us: int = 0
    since_us: int = 0
    labels_version: int = NO_LABELS


def begin_track(standing: Standing, snapshot: Snapshot | None, now_us: int) -> Track:
    """A rollout as the control database knows it; its evidence goes on from the newest snapshot, if that is of its share.

    Nothing was looked at before ``now_us``, so that a revision is silent only from then on.

    Raises:
        ObservationError: the snapshot cannot be read.
    """
    plan, state = read_plan(standing.facts.plan), effective_state(standing)
    # Whoever asked for the rollout may have a clock that runs ahead; what is seen until then must count all the same.
    began_us = min(standing.step.at_us, now_us)
    evidence = begin(plan, began_us) if snapshot is None else read_evidence(snapshot.evidence)
    evidence = replace(evidence, seen_us=(max(evidence.seen_us[0], now_us), max(evidence.seen_us[1], now_us)))
    return _suit(Track(standing, plan, state, evidence))


def follow(track: Track, standing: Standing) -> Track:
    """The same rollout after a step of it was recorded or applied. Evidence moves on once traffic has."""
    applied_us = standing.step.applied_at_us
    if standing.step.action == STARTED and applied_us is not None and not track.standing.step.applied_at_us:
        track = replace(track, evidence=begin(track.plan, applied_us))
    return _suit(replace(track, standing=standing, state=effective_state(standing)))


def _suit(track: Track) -> Track:
    """With evidence of the stage and the share that the newest step has brought to the plane."""
    step, state, evidence = track.standing.step, track.state, track.evidence
    fits = (evidence.stage, evidence.percent) == (state.stage, state.percent)
    if step.applied_at_us is not None and track.standing.is_open and step.percent and not fits:
        evidence = enter_stage(evidence, track.plan, state.stage, step.applied_at_us, state.percent)
    return replace(track, evidence=evidence, since_us=max(track.since_us, evidence.begun_us, state.stage_started_us))


def meet_share(track: Track, percent: int, now_us: int) -> Track:
    """The rollout at a share that nobody could record, seen since ``now_us``: judged by its own odds."""
    if track.evidence.percent == percent:
        return track
    evidence = enter_stage(track.evidence, track.plan, track.state.stage, now_us, percent)
    return replace(track, evidence=evidence, since_us=now_us)


def effective_state(standing: Standing) -> Rollout:
    """The recorded state; a stage that a step began bakes from when traffic followed."""
    recorded, latest = read_rollout(standing.step.state), standing.step
    if latest.action in (STARTED, SHIFTED, RESUMED) and latest.applied_at_us is not None:
        return replace(recorded, stage_started_us=latest.applied_at_us)
    return recorded


def weigh(track: Track, seen: Observations, extra: Sequence[Verdict], now_us: int) -> tuple[Track, Action]:
    """Fold what was seen, judge it, and ask what is to be done."""
    if not track.state.percent:
        # Somebody has taken the canary's share away: there is nothing to be said about it.
        return track, step(track.state, track.verdicts, track.plan, now_us)
    evidence = fold(track.evidence, seen)
    subject = f"{track.standing.facts.service}/canary"
    verdicts = (*judge(evidence, track.plan, now_us, subject), *extra)
    weighed = replace(track, evidence=evidence, verdicts=verdicts, looked_at_us=now_us)
    return weighed, step(track.state, verdicts, track.plan, now_us)


def take_snapshot(track: Track, decision: str, now_us: int) -> Snapshot:
    """What is kept of a track, so that another controller can go on from there."""
    return Snapshot(
        track.standing.facts.id,
        track.standing.step.sequence,
        write_evidence(track.evidence),
        [verdict.describe() for verdict in track.verdicts],
        track.state.describe(),
        decision,
        now_us,
    )


def find_changes(before: Sequence[Verdict], after: Sequence[Verdict]) -> list[Outcome]:
    """Verdicts whose outcome differs from the one before of the same monitor and subject."""
    known = {(verdict.monitor, verdict.subject): verdict.outcome for verdict in before}
    return [
        Outcome(**verdict.describe())
        for verdict in after
        if known.get((verdict.monitor, verdict.subject)) is not verdict.outcome
    ]
