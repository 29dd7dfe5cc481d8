from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.rollout_streams import Stream
from monitoring.errors import ObservationError
from monitoring.rollout.evidence import MOMENTS, Evidence, begin, enter_stage, fold
from monitoring.rollout.evidence_json import read_evidence, write_evidence
from monitoring.rollout.gates import judge
from monitoring.rollout.histograms import BINS, MISSING, NOVEL, count_users, find_bins, open_histograms
from monitoring.rollout.observations import Observations, no_requests
from monitoring.rollout.plan import DEFAULT_PLAN

REQUESTS = ("arm", "entity", "failed", "latency_s", "degraded", "score", "slice_code")
ROWS = ("features", "feature_arm", "feature_entity")
LABELS = ("label_arm", "label_entity", "label_score", "label", "label_percent")


def join(parts: list[Observations]) -> Observations:
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in REQUESTS}
    return Observations(at_us=parts[-1].at_us, **columns)


def cut(seen: Observations, places: list[int]) -> list[Observations]:
    edges = [0, *sorted(places), len(seen)]
    return [
        Observations(at_us=seen.at_us, **{name: getattr(seen, name)[low:high] for name in REQUESTS})
        for low, high in pairwise(edges)
    ]


def play(kind: str, ticks: int, seed: int = 1) -> list[Observations]:
    stream = Stream(kind, (seed,))
    return [stream.next_tick(10) for _ in range(ticks)]


TICKS = play("slow", 6)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 1_500), max_size=8))
def test_however_requests_are_cut_into_ticks_the_evidence_is_the_same(places):
    whole = join(TICKS)
    at_once, in_parts = fold(begin(DEFAULT_PLAN), whole), begin(DEFAULT_PLAN)
    for part in cut(whole, places):
        in_parts = fold(in_parts, part)
    for name in ("requests", "moments", "recent"):
        assert getattr(in_parts, name) == pytest.approx(getattr(at_once, name))
    assert (in_parts.firsts.counts == at_once.firsts.counts).all()
    assert (in_parts.spans.worse == at_once.spans.worse).all()
    assert (in_parts.pace.medians == at_once.pace.medians).all()
    for name, tally in at_once.tallies.items():
        assert (in_parts.tallies[name].users == tally.users).all()
        assert (in_parts.tallies[name].events == tally.events).all()


def test_evidence_comes_back_from_its_text_and_gives_the_same_verdicts():
    evidence = begin(DEFAULT_PLAN)
    for tick in play("missing", 20):
        evidence = fold(evidence, tick)
    again = read_evidence(write_evidence(evidence))
    assert write_evidence(again) == write_evidence(evidence)
    assert judge(again, DEFAULT_PLAN, 10**8) == judge(evidence, DEFAULT_PLAN, 10**8)
    more = play("missing", 1, seed=2)[0]
    assert write_evidence(fold(again, more)) == write_evidence(fold(evidence, more))


def test_evidence_of_another_format_is_refused():
    text = json.dumps({**json.loads(write_evidence(begin(DEFAULT_PLAN))), "format": 99})
    with pytest.raises(ObservationError, match="format 99"):
        read_evidence(text)


def test_evidence_stays_small_when_every_user_has_been_seen():
    # Six panels of 131,072 bits are 96 KiB, 128 KiB in base64, once all of them are half full and cannot be compressed.
    rng = np.random.default_rng(3)
    n = 300_000
    seen = Observations(
        at_us=1, arm=(rng.random(n) < 0.1).astype(np.int8), entity=rng.integers(0, 2**62, n), failed=rng.random(n) < 0.3,
        latency_s=rng.random(n), degraded=rng.random(n) < 0.3, score=rng.random(n, np.float32),
        slice_code=np.zeros(n, np.int16),
    )  # fmt: skip
    assert len(write_evidence(fold(begin(DEFAULT_PLAN), seen))) < 160_000


def test_a_stage_starts_with_the_bins_of_the_last_one_and_nobody_counted():
    evidence = begin(DEFAULT_PLAN)
    for tick in play("equal", 20):
        evidence = fold(evidence, tick)
    later: Evidence = enter_stage(evidence, DEFAULT_PLAN, 1, 77)
    assert (later.stage, later.percent, later.begun_us) == (1, 25, 77)
    assert later.firsts.ready
    assert not later.firsts.counts.any()
    assert not later.moments.any()
    assert (later.outcomes.sums == evidence.outcomes.sums).all()
    assert later.outcomes.sums[:, 0].min() > 0


def test_moments_count_each_users_first_request_only():
    seen = Observations(
        at_us=1,
        arm=np.array([0, 0, 1, 1], np.int8),
        entity=np.array([5, 5, 6, 7]),
        failed=np.array([False, True, True, False]),
        latency_s=np.ones(4),
        degraded=np.array([True, False, False, False]),
        score=np.array([0.25, np.nan, np.nan, 0.5], np.float32),
        slice_code=np.zeros(4, np.int16),
    )
    moments = dict(zip(MOMENTS, fold(begin(DEFAULT_PLAN), seen).moments.T, strict=True))
    assert moments["users"].tolist() == [1, 2]
    assert moments["errors"].tolist() == [0, 1]
    assert moments["degraded"].tolist() == [1, 0]
    assert moments["score"].tolist() == [0.25, 0.5]


def test_a_request_for_many_users_fails_once():
    columns = {
        "arm": np.ones(50, np.int8), "entity": np.arange(50), "failed": np.ones(50, np.bool_), "latency_s": np.ones(50),
        "degraded": np.zeros(50, np.bool_), "score": np.full(50, np.nan, np.float32), "slice_code": np.zeros(50, np.int16),
    }  # fmt: skip
    together = fold(begin(DEFAULT_PLAN), Observations(at_us=1, **columns, request=np.zeros(50, np.int64)))
    apart = fold(begin(DEFAULT_PLAN), Observations(at_us=1, **columns))
    assert together.tallies["errors"].users[0].tolist() == [0, 1]
    assert apart.tallies["errors"].users[0].tolist() == [0, 50]


def test_columns_that_do_not_fit_together_are_refused():
    with pytest.raises(ObservationError, match="one length"):
        Observations(**{**no_requests(0).__dict__, "arm": np.zeros(1, np.int8)})
    with pytest.raises(ObservationError, match="1 columns"):
        Observations(
            **{
                **no_requests(0).__dict__,
                "feature_names": ("one",),
                "features": np.zeros((1, 2), np.float32),
                "feature_arm": np.zeros(1, np.int8),
                "feature_entity": np.zeros(1, np.int64),
            }
        )


def test_bins_are_eighths_of_the_reference_or_single_values_and_say_what_is_new():
    # 16 users of stable with values 0..15 (more than 12 distinct: eighths) and 0/1 (categorical) set the bins.
    histograms = open_histograms(("amount", "flag"), 16)
    values = np.stack([np.arange(16.0), np.arange(16.0) % 2], axis=1)
    histograms, firsts = count_users(histograms, values, np.zeros(16, np.int8), np.arange(16, dtype=np.int64))
    assert (len(firsts), histograms.ready) == (16, True)
    assert histograms.categorical.tolist() == [False, True]
    probes = np.array([[0.0, 0.0], [7.4, 1.0], [15.0, 0.5], [15.1, 2.0], [-1.0, np.nan], [np.nan, 1.0]])
    # The cut points are 15/8, 30/8, ... 105/8 = 13.125; 7.4 lies below the fourth, 7.5.
    assert find_bins(histograms, probes)[:, 0].tolist() == [0, 3, 7, NOVEL, NOVEL, MISSING]
    assert find_bins(histograms, probes)[:, 1].tolist() == [0, 1, NOVEL, NOVEL, MISSING, 1]
    assert histograms.shares[1, :2].tolist() == [0.5, 0.5]
    assert histograms.counts.sum() == 0
    assert histograms.counts.shape[-1] == BINS


def test_users_of_the_reference_are_not_counted_again():
    histograms = open_histograms(("amount",), 4)
    users, stable = np.arange(4, dtype=np.int64), np.zeros(4, np.int8)
    histograms, _ = count_users(histograms, np.arange(4.0)[:, None], stable, users)
    histograms, firsts = count_users(histograms, np.arange(4.0)[:, None], stable, users)
    assert not len(firsts)
    histograms, _ = count_users(histograms, np.zeros((1, 1)), np.ones(1, np.int8), np.array([99]))
    assert (histograms.users(0), histograms.users(1)) == (0, 1)


def test_a_column_without_a_single_known_value_has_only_new_and_missing_values():
    histograms = open_histograms(("gone",), 2)
    nothing = np.full((2, 1), np.nan)
    histograms, _ = count_users(histograms, nothing, np.zeros(2, np.int8), np.arange(2, dtype=np.int64))
    assert find_bins(histograms, np.array([[1.0], [np.nan]]))[:, 0].tolist() == [NOVEL, MISSING]
