"""What has been seen of a rollout's stage, in bounded space: enough for every gate, and no request kept.

``begin``, then ``fold`` for every tick, and ``enter_stage`` with every change of the share; ``gates.judge`` reads it. A
controller keeps it as text (``evidence_json``) and goes on from there after a crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from monitoring.rollout.histograms import MAX_SLICES, Histograms, count_users, forget_users, open_histograms
from monitoring.rollout.observations import CANARY, Observations
from monitoring.rollout.outcomes import Outcomes, fold_labels, open_outcomes
from monitoring.rollout.pace import Pace, fold_pace, open_pace
from monitoring.rollout.panels import Panel, admit, open_panel
from monitoring.rollout.plan import Plan
from monitoring.rollout.spans import Spans, fold_spans, open_spans

REFERENCE_USERS: Final = 256
REFERENCE_ROWS: Final = 128
RECENT_REQUESTS: Final = 1_000.0
"""Canary requests over which recent rates are averaged; stable's span the same time."""
SLICES: Final = MAX_SLICES + 1
"""Slice 0 is everybody."""
EVENTS: Final = ("errors", "degraded", "latency")
LASTING: Final = ("degraded", "latency")
"""Events that must last before they count: a process may pause for a second."""
MOMENTS: Final = (
    "users", "errors", "degraded", "timed", "latency", "scored", "score", "score_squared", "surprise", "surprise_squared",
)  # fmt: skip
"""Sums over each user's first request: failures, degraded answers, users whose latency could be judged and slow ones, users
with a score, its sums, and those of the log loss that the score itself expects."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Tally:
    """One kind of event: users by the revision on which they met their first (slices, 2), all events (slices, 2), and
    events (2,) discounted by the requests since."""

    panel: Panel
    users: Ints
    events: Ints
    recent: Floats


@dataclass(frozen=True)
class Evidence:
    """Of one stage at one share, except ``outcomes``, which go through all. Pairs are (stable, canary).

    ``percent`` is the canary's share of users, ``begun_us`` since when: only requests routed from then on belong to it.
    ``seen_us`` is the end of the last tick with a request of each revision. ``requests`` (slices, 2) counts requests,
    ``recent`` (2,) discounted ones, ``spans`` says whether harm lasts and ``pace`` what is slow, ``firsts`` bins each user's
    first score and latency, ``moments`` (2, 10) sums over first requests, ``rows`` bins the features of each user's first
    whole row.
    """

    stage: int
    percent: int
    begun_us: int
    seen_us: tuple[int, int]
    requests: Ints
    recent: Floats
    pace: Pace
    firsts: Histograms
    moments: Floats
    tallies: Mapping[str, Tally]
    spans: Spans
    rows: Histograms
    outcomes: Outcomes

    @property
    def price(self) -> float:
        """The canary's share of users, the price of every bet."""
        return self.percent / 100

    def moment(self, name: str) -> Floats:
        """One of ``MOMENTS``: (2,)."""
        return np.asarray(self.moments[:, MOMENTS.index(name)])


def begin(plan: Plan, now_us: int = 0) -> Evidence:
    """Evidence of the plan's first stage: nothing seen."""
    return Evidence(
        stage=0,
        percent=plan.stages[0].percent,
        begun_us=now_us,
        seen_us=(now_us, now_us),
        requests=np.zeros((SLICES, 2), np.int64),
        recent=np.zeros(2),
        pace=open_pace(),
        firsts=open_histograms(("score", "latency_s"), REFERENCE_USERS, SLICES),
        moments=np.zeros((2, len(MOMENTS))),
        tallies={name: _open_tally() for name in EVENTS},
        spans=open_spans(len(LASTING)),
        rows=open_histograms((), REFERENCE_ROWS),
        outcomes=open_outcomes(),
    )


def enter_stage(evidence: Evidence, plan: Plan, stage: int, now_us: int, percent: int | None = None) -> Evidence:
    """Evidence of another stage, or at a share other than the stage's own: requests at other odds do not mix. Bins stay, and
    so do matured labels."""
    fresh = begin(plan, now_us)
    return replace(
        fresh,
        stage=stage,
        percent=plan.stages[stage].percent if percent is None else percent,
        pace=evidence.pace,
        firsts=forget_users(evidence.firsts),
        rows=forget_users(evidence.rows),
        outcomes=evidence.outcomes,
    )


def fold(evidence: Evidence, observations: Observations) -> Evidence:
    """Evidence with one more tick. However requests are cut into ticks, the outcome is the same but for rounding."""
    if len(observations):
        evidence = _fold_requests(evidence, observations)
    if len(observations.features):
        evidence = _fold_rows(evidence, observations)
    if len(observations.label):
        evidence = replace(evidence, outcomes=fold_labels(evidence.outcomes, observations))
    return evidence


def _fold_requests(evidence: Evidence, seen: Observations) -> Evidence:
    values = np.stack([seen.score.astype(np.float64), seen.latency_s], axis=1)
    values[seen.failed] = np.nan
    leads = seen.leads
    values[~leads, 1] = np.nan
    firsts, positions = count_users(evidence.firsts, values, seen.arm, seen.entity, seen.slice_code)
    pace, limits_s = fold_pace(evidence.pace, seen.arm[leads], values[leads, 1])
    timed, slow = np.zeros(len(seen), np.bool_), np.zeros(len(seen), np.bool_)
    timed[leads], slow[leads] = ~np.isnan(limits_s), values[leads, 1] > limits_s
    happened = {"errors": seen.failed & leads, "degraded": ~seen.failed & seen.degraded & leads, "latency": slow}
    last_us = np.where(np.bincount(seen.arm, minlength=2) > 0, seen.at_us, evidence.seen_us)
    weights, kept = _discounts(seen.arm[leads], evidence.price)
    spread = np.zeros(len(seen))
    spread[leads] = weights
    lasting = np.stack([happened[name][timed] for name in LASTING], axis=1)
    return replace(
        evidence,
        seen_us=(int(last_us[0]), int(last_us[1])),
        requests=evidence.requests + _by_slice(seen.arm[leads], seen.slice_code[leads]),
        recent=evidence.recent * kept + np.bincount(seen.arm, spread, minlength=2),
        firsts=firsts,
        pace=pace,
        moments=evidence.moments + _sum_firsts(seen, positions, (leads, timed, slow)),
        tallies={name: _fold_event(tally, seen, happened[name], (spread, kept)) for name, tally in evidence.tallies.items()},
        spans=fold_spans(evidence.spans, seen.arm[timed], lasting),
    )


def _fold_event(tally: Tally, seen: Observations, happened: Flags, discount: tuple[Floats, Floats]) -> Tally:
    weights, kept = discount
    arm, codes = seen.arm[happened], seen.slice_code[happened]
    panel, positions = admit(tally.panel, seen.entity[happened])
    return Tally(
        panel=panel,
        users=tally.users + _by_slice(arm[positions], codes[positions]),
        events=tally.events + _by_slice(arm, codes),
        recent=tally.recent * kept + np.bincount(arm, weights[happened], minlength=2),
    )


def _fold_rows(evidence: Evidence, seen: Observations) -> Evidence:
    rows = evidence.rows if evidence.rows.names else open_histograms(seen.feature_names, REFERENCE_ROWS)
    columns = [seen.feature_names.index(name) for name in rows.names]
    values = seen.features[:, columns].astype(np.float64)
    rows, _ = count_users(rows, values, seen.feature_arm, seen.feature_entity)
    return replace(evidence, rows=rows)


def _sum_firsts(seen: Observations, positions: Ints, masks: tuple[Flags, Flags, Flags]) -> Floats:
    leads, timed, slow = (mask[positions] for mask in masks)
    answered, score = ~seen.failed[positions], seen.score[positions].astype(np.float64)
    scored = answered & ~np.isnan(score)
    surprise = np.where(scored, entropy(np.where(scored, score, 0.5)), 0.0)
    score = np.where(scored, score, 0.0)
    columns = [
        leads, leads & ~answered, leads & answered & seen.degraded[positions], timed & answered, slow,
        scored, score, score**2, surprise, surprise**2,
    ]  # fmt: skip
    on_canary = (seen.arm[positions] == CANARY).astype(np.float64)
    sums = np.stack([np.asarray(column, np.float64) for column in columns], axis=1)
    return np.stack([(1 - on_canary) @ sums, on_canary @ sums])


def entropy(score: Floats) -> Floats:
    """The log loss that a probability expects of itself, nats: what confidence-based estimation sums up."""
    score = np.clip(score, 1e-9, 1 - 1e-9)
    return np.asarray(-(score * np.log(score) + (1 - score) * np.log1p(-score)))


def _by_slice(arm: npt.NDArray[np.int8], slice_code: npt.NDArray[np.int16]) -> Ints:
    counts = np.zeros((SLICES, 2), np.int64)
    inside = (slice_code > 0) & (slice_code < SLICES)
    counts += np.bincount(slice_code[inside] * 2 + arm[inside], minlength=SLICES * 2).reshape(SLICES, 2)
    counts[0] = np.bincount(arm, minlength=2)
    return counts


def _discounts(arm: npt.NDArray[np.int8], price: float) -> tuple[Floats, Floats]:
    """Weight of each request at the tick's end, and what the tick leaves of older sums (2,).

    A request's weight falls by 1/e with each ``RECENT_REQUESTS`` canary requests, of stable with as many as come meanwhile.
    """
    rates = 1 / (RECENT_REQUESTS * np.array([(1 - price) / price, 1.0]))
    later = np.zeros(len(arm))
    totals = np.bincount(arm, minlength=2)
    for side in (0, 1):
        later[arm == side] = np.arange(totals[side] - 1, -1, -1)
    return np.exp(-later * rates[arm]), np.exp(-totals * rates)


def _open_tally() -> Tally:
    return Tally(open_panel(), np.zeros((SLICES, 2), np.int64), np.zeros((SLICES, 2), np.int64), np.zeros(2))
