from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.rollout_streams import FEATURES, Stream
from monitoring.rollout.evidence import Evidence, begin, fold
from monitoring.rollout.gates import judge
from monitoring.rollout.observations import Observations, no_requests
from monitoring.rollout.plan import DEFAULT_PLAN, GateSpec, Plan, Stage
from monitoring.verdicts import Outcome, Severity, Verdict

PLAN = replace(DEFAULT_PLAN, stages=(Stage(10, 60, 200), Stage(50, 60, 500)))
SECOND_US = 1_000_000
COLUMNS = ("arm", "entity", "latency_s", "degraded", "score", "slice_code")


def verdicts_of(evidence: Evidence, plan: Plan = PLAN, now_us: int | None = None) -> dict[str, Verdict]:
    return {verdict.monitor: verdict for verdict in judge(evidence, plan, max(evidence.seen_us) if now_us is None else now_us)}


def play(kind: str, ticks: int, plan: Plan = PLAN, seed: int = 0) -> Evidence:
    stream, evidence = Stream(kind, (seed,)), begin(plan)
    for _ in range(ticks):
        evidence = fold(evidence, stream.next_tick(10))
    return evidence


def requests(n: int, *, share: float = 0.1, seed: int = 0, users: int = 5_000, at_s: int = 1) -> Observations:
    """Requests of as many users, all alike: nothing fails, nothing is slow."""
    rng = np.random.default_rng((seed, 8))
    user = rng.integers(0, users, n)
    arm = (np.random.default_rng(5).random(users) < share).astype(np.int8)
    return Observations(
        at_us=at_s * SECOND_US,
        arm=arm[user],
        entity=user * 7_919 + 13,
        failed=np.zeros(n, np.bool_),
        latency_s=rng.lognormal(-4, 0.5, n),
        degraded=np.zeros(n, np.bool_),
        score=rng.beta(2, 20, n).astype(np.float32),
        slice_code=(1 + user % 4).astype(np.int16),
    )


def test_an_equal_canary_passes_every_gate_and_errors_are_shown_to_be_within_tolerance():
    verdicts = verdicts_of(play("equal", 60))
    assert {verdict.outcome for verdict in verdicts.values()} == {Outcome.PASS}
    assert verdicts["errors"].text.startswith("errors: at most 0.0")
    assert verdicts["errors"].evidence["upper_bound"] <= 0.01


def test_too_few_users_are_inconclusive():
    verdicts = verdicts_of(play("equal", 3))
    assert verdicts["score"].outcome is Outcome.INCONCLUSIVE
    assert "canary users of 200" in verdicts["score"].text
    assert verdicts["labels"].outcome is Outcome.PASS  # waits for nobody


def test_no_gate_that_needs_a_reference_passes_before_it_is_complete():
    # 200 users of stable are fewer than the 256 that set the bins: whatever the canary scores, it could not be told.
    seen = requests(400, share=0.5, users=400)
    few = replace(seen, score=np.where(seen.arm == 1, 0.99, seen.score).astype(np.float32))
    plan = replace(PLAN, stages=(Stage(50, 1, 10),))
    verdicts = verdicts_of(fold(begin(plan), few), plan)
    for gate in ("score", "latency", "features"):
        assert verdicts[gate].outcome is Outcome.INCONCLUSIVE
    stable_users = np.unique(few.entity[few.arm == 0]).size
    assert verdicts["score"].text == f"score: its reference has {stable_users} of 256 stable users"


def test_users_who_came_before_the_share_was_there_blame_no_score_of_the_canary():
    # The plan says 25 %, but the plane gave 5 % to the first 500 users; from then on each revision gets its part.
    plan = replace(PLAN, stages=(Stage(25, 1, 10),))
    evidence = fold(begin(plan), requests(2_000, share=0.25, users=600))
    shares = [0.05, *[0.25] * 10]
    for number, share in enumerate(shares, start=1):
        seen = requests(500 if share < 0.25 else 20, share=share, seed=number, users=5_000)
        evidence = fold(evidence, replace(seen, entity=seen.entity + number * 10**9))
        score = verdicts_of(evidence, plan)["score"]
        assert score.outcome is not Outcome.FAIL, score.text
    assert verdicts_of(evidence, plan)["data"].outcome is Outcome.FAIL


def test_rows_of_stable_that_are_missing_blame_no_feature_of_the_canary():
    # Every user is asked about, but nine in ten of stable's whole rows never reach the disk.
    seen = requests(20_000, share=0.1, users=20_000)
    chance = np.random.default_rng(3)
    kept = (seen.arm == 1) | (chance.random(len(seen)) < 0.1)
    feature = chance.integers(0, 3, len(seen)).astype(np.float32)[:, None]
    rows = {
        "feature_names": ("level",),
        "features": feature[kept],
        "feature_arm": seen.arm[kept],
        "feature_entity": seen.entity[kept],
    }
    verdicts = verdicts_of(fold(begin(PLAN), replace(seen, **rows)))
    assert verdicts["features"].outcome is Outcome.PASS
    assert float(verdicts["features"].evidence["log_wealth"]) < 2


def test_users_who_came_before_the_reference_was_complete_prove_nothing():
    seen = requests(600, share=0.5, users=600)
    evidence = fold(begin(replace(PLAN, stages=(Stage(50, 1, 10),))), seen)
    score = verdicts_of(evidence, replace(PLAN, stages=(Stage(50, 1, 200),)))["score"]
    assert evidence.firsts.ready or score.outcome is Outcome.INCONCLUSIVE
    assert score.evidence["users"] == evidence.firsts.counts[0, 0, 1].sum() < evidence.moment("scored")[1]


@pytest.mark.parametrize(
    ("kind", "gate", "told"),
    [
        ("unit", "features", "session_time_ms unseen"),
        ("categories", "features", "plan shifted"),
        ("missing", "features", "missing): worse"),
        ("slow", "latency", "latency"),
        ("crashing", "errors", "errors"),
        ("miscalibrated", "score", "score"),
    ],
)
def test_each_bad_kind_fails_the_gate_that_it_is_about(kind, gate, told):
    verdict = verdicts_of(play(kind, 30))[gate]
    assert (verdict.outcome, verdict.severity) == (Outcome.FAIL, Severity.ROLL_BACK)
    assert told in verdict.text


def test_a_canary_that_always_fails_is_called_within_forty_of_its_requests():
    seen = requests(400)
    seen = replace(seen, failed=seen.arm == 1, score=np.where(seen.arm == 1, np.float32(np.nan), seen.score))
    assert seen.arm.sum() <= 45
    assert verdicts_of(fold(begin(PLAN), seen))["errors"].outcome is Outcome.FAIL


def test_one_user_who_fails_a_thousand_times_is_one_user():
    seen = requests(4_000)
    unlucky = seen.entity[seen.arm == 1][0]
    repeated = np.concatenate([np.arange(4_000), np.full(1_000, np.flatnonzero(seen.entity == unlucky)[0])])
    columns = {
        name: getattr(seen, name)[repeated] for name in ("arm", "entity", "latency_s", "degraded", "score", "slice_code")
    }
    failed = columns["entity"] == unlucky
    verdict = verdicts_of(fold(begin(PLAN), Observations(at_us=1, failed=failed, **columns)))["errors"]
    assert verdict.evidence["effect"] > 0.5
    assert verdict.outcome is not Outcome.FAIL


def test_a_difference_that_is_certain_but_tolerable_does_not_fail():
    # 0.6 % more failures, of 1 % tolerated, on 200,000 requests.
    seen = requests(200_000, users=100_000)
    failed = (seen.arm == 1) & (np.random.default_rng(4).random(len(seen)) < 0.006)
    verdict = verdicts_of(fold(begin(PLAN), replace(seen, failed=failed)))["errors"]
    assert verdict.evidence["log_wealth"] > verdict.evidence["log_wealth_needed"]
    assert verdict.outcome is Outcome.PASS


def test_one_pause_of_the_canarys_process_is_no_lasting_slowness():
    seen = requests(8_000)
    paused = (seen.arm == 1) & (np.arange(8_000) >= 3_000) & (np.arange(8_000) < 3_600)
    evidence = begin(PLAN)
    for part in np.array_split(np.arange(8_000), 20):
        columns = {name: getattr(seen, name)[part] for name in ("arm", "entity", "failed", "degraded", "score", "slice_code")}
        evidence = fold(evidence, Observations(at_us=1, latency_s=np.where(paused, 2.0, seen.latency_s)[part], **columns))
        verdict = verdicts_of(evidence)["latency"]
        assert verdict.outcome is not Outcome.FAIL
    assert paused.sum() > 40


def test_nothing_seen_is_a_failed_check_on_data_that_only_pages():
    evidence = fold(begin(PLAN, 0), requests(4_000, at_s=30))
    in_time, late = 90 * SECOND_US, 91 * SECOND_US
    assert verdicts_of(evidence, now_us=in_time)["data"].outcome is Outcome.PASS
    blind = verdicts_of(evidence, now_us=late)["data"]
    assert (blind.outcome, blind.severity) == (Outcome.FAIL, Severity.PAGE)
    assert blind.text == "data: nothing seen of stable and canary for 60 s"


def test_one_silent_revision_is_missing_data_too():
    seen = requests(4_000, at_s=200)
    stable = {name: getattr(seen, name)[seen.arm == 0] for name in (
        "arm", "entity", "failed", "latency_s", "degraded", "score", "slice_code")}  # fmt: skip
    verdict = verdicts_of(fold(begin(PLAN, 0), Observations(at_us=200 * SECOND_US, **stable)))["data"]
    assert verdict.text == "data: nothing seen of canary for 60 s"


def test_lost_events_of_stable_fail_the_check_on_data_and_blame_no_canary():
    seen = requests(20_000, users=20_000)
    rng = np.random.default_rng(9)
    failed = rng.random(20_000) < 0.05
    kept = (seen.arm == 1) | (rng.random(20_000) < 0.2)
    columns = {name: getattr(seen, name)[kept] for name in COLUMNS}
    verdicts = verdicts_of(fold(begin(PLAN), Observations(at_us=1, failed=failed[kept], **columns)))
    assert (verdicts["data"].outcome, verdicts["data"].severity) == (Outcome.FAIL, Severity.PAGE)
    assert "10 % planned" in verdicts["data"].text
    assert verdicts["errors"].outcome is not Outcome.FAIL


def test_harm_to_one_slice_is_found_there():
    seen = requests(20_000, users=20_000)
    failed = (seen.arm == 1) & (seen.slice_code == 3) & (np.random.default_rng(2).random(20_000) < 0.03)
    plan = replace(PLAN, gates=(GateSpec("errors", 0.01),))
    verdict = verdicts_of(fold(begin(plan), replace(seen, failed=failed)), plan)["errors"]
    assert verdict.outcome is Outcome.FAIL
    assert verdict.evidence["what"] == "slice 3"


def test_of_a_broken_source_missing_values_are_told_before_the_shift_they_cause():
    verdict = verdicts_of(play("missing", 40))["features"]
    assert str(verdict.evidence["what"]).endswith(" missing")
    assert str(verdict.evidence["what"]).split()[0] in FEATURES


def test_the_estimate_before_labels_says_so_and_does_not_roll_back():
    verdict = verdicts_of(play("miscalibrated", 40))["estimate"]
    assert verdict.outcome is Outcome.FAIL
    assert verdict.severity is Severity.PAGE
    assert verdict.evidence["estimated"] == 1
    assert "estimated, no labels" in verdict.text


def labelled(stated: float, n: int = 12_000) -> Observations:
    """Labels of probability 0.1 to 0.3, whose log odds the canary states too high by ``stated``; 30 % of them its."""
    rng = np.random.default_rng(11)
    truth = rng.uniform(0.1, 0.3, n)
    arm = (rng.random(n) < 0.3).astype(np.int8)
    odds = np.log(truth / (1 - truth)) + np.where(arm == 1, stated, 0.0)
    return Observations(
        **{
            **no_requests(SECOND_US).__dict__,
            "label_arm": arm,
            "label_entity": np.arange(n) * 31 + 7,
            "label_score": (1 / (1 + np.exp(-odds))).astype(np.float32),
            "label": rng.random(n) < truth,
            "label_percent": np.full(n, 30, np.float32),
        }
    )


def test_matured_labels_find_a_canary_that_states_too_much_and_let_an_equal_one_pass():
    wrong = verdicts_of(fold(begin(PLAN), labelled(1.0)))["labels"]
    assert (wrong.outcome, wrong.severity) == (Outcome.FAIL, Severity.ROLL_BACK)
    assert verdicts_of(fold(begin(PLAN), labelled(0.0)))["labels"].outcome is Outcome.PASS


def test_labels_of_one_revision_that_are_missing_are_no_harm():
    # Both state their odds too high by 1; of stable, whose log has lost rows, one label in four has come. At the plan's 30 %
    # the bets would win on that alone: 3,600 canary users of 5,700.
    both = labelled(1.0)
    odds = np.log(both.label_score / (1 - both.label_score)) + np.where(both.label_arm == 1, 0.0, 1.0)
    kept = (both.label_arm == 1) | (np.arange(len(odds)) % 4 == 0)
    columns = {name: getattr(both, name)[kept] for name in ("label_arm", "label_entity", "label", "label_percent")}
    few = replace(both, label_score=(1 / (1 + np.exp(-odds)))[kept].astype(np.float32), **columns)
    verdict = verdicts_of(fold(begin(PLAN), few))["labels"]
    assert verdict.outcome is Outcome.PASS
    assert verdict.evidence["log_wealth"] < 3


def test_a_canary_that_is_better_than_stable_does_not_fail_on_labels():
    better = labelled(-1.0)
    better = replace(better, label_arm=1 - better.label_arm, label_percent=np.full(12_000, 70, np.float32))
    verdict = verdicts_of(fold(begin(PLAN), better))["labels"]
    assert verdict.evidence["log_wealth"] > verdict.evidence["log_wealth_needed"]
    assert verdict.outcome is Outcome.PASS
