"""Estimates before labels mature: hand-derived values, the truth of simulations, and alarms no oftener than declared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from monitoring.early_labels import (
    FALLS,
    RISES,
    UNKNOWN,
    Baseline,
    Bets,
    Cohorts,
    estimate_rate,
    fit_delays,
    learn_baseline,
    watch_early,
    watch_matured,
)
from monitoring.errors import MonitorError
from monitoring.estimate import (
    BLIND_SPOT,
    Served,
    _as_cohorts,
    expect_performance,
    find_span,
    judge_confidence,
    judge_early_labels,
)
from monitoring.label_maturity import DAY_US, NEVER_KNOWN, Answers, judge_maturity, tabulate_maturity
from monitoring.monitor_settings import MonitorSettings
from monitoring.verdicts import Outcome, Severity

SETTINGS = MonitorSettings()
SERVED = Served("churn", 3, trained_auc=0.80)


def test_delays_that_could_not_be_seen_yet_do_not_make_the_seen_ones_look_short() -> None:
    # Rows of day 0 are seen up to lag 2, of day 1 up to lag 1, of day 2 up to lag 0. Outcomes: day 0 one each of lag 0, 1, 2;
    # day 1 one each of lag 0 and 1; day 2 one of lag 0. In reverse time: g(2) = 1 of 3 that could be seen so long; g(1) = 2 of
    # the 4 with lag <= 1 that could be seen up to 1. F(1) = 1 - 1/3, F(0) = 2/3 * (1 - 1/2) = 1/3: uniform, as it was.
    lag, seen_for = np.array([0, 1, 2, 0, 1, 0]), np.array([2, 2, 2, 1, 1, 0])
    assert fit_delays(lag, seen_for, 2) == pytest.approx([1 / 3, 2 / 3, 1])
    # As if all had been seen to the end: half of the outcomes at once.
    assert fit_delays(lag, np.full(6, 2), 2) == pytest.approx([1 / 2, 5 / 6, 1])


def test_what_becomes_known_later_changes_nothing_of_an_earlier_look() -> None:
    rows = Cohorts(np.array([0, 0, 1]), np.full(3, 0.5), np.array([0, 2, UNKNOWN]))
    known = rows.known_by(2)  # days 0 and 1 are over: an outcome two days after day 0 is not known
    assert known.lag.tolist() == [0, UNKNOWN, UNKNOWN]
    assert rows.known_by(1).day.tolist() == [0, 0]
    with pytest.raises(MonitorError, match="no outcome"):
        learn_baseline(replace(rows, lag=np.full(3, UNKNOWN)), 2, 2)


def test_a_final_rate_is_the_outcomes_so_far_divided_by_the_share_that_should_be_known() -> None:
    # 100 rows of day 0, 100 of day 1, scores 0.2; half of outcomes come at once, all within a day. When day 2 begins the share
    # known is 1 for day 0 and 1/2 for day 1: 30 outcomes expected of the 40 in the end. 15 came: a rate of 0.2 * 15 / 30.
    day, lag = np.repeat([0, 1], 100), np.full(200, UNKNOWN)
    lag[:10], lag[100:105] = 0, 0
    found = estimate_rate(Cohorts(day, np.full(200, 0.2), lag), Baseline(np.array([0.5, 1.0]), 1.0, 99), 2, since=0)
    assert found is not None
    assert (found.rate, found.expected, found.outcomes, found.share) == pytest.approx((0.1, 0.2, 15, 0.75))
    # Garwood's interval of 15 is [8.395, 24.740].
    assert (found.low, found.high) == pytest.approx((0.2 * 8.395 / 30, 0.2 * 24.740 / 30), rel=1e-3)


def test_wealth_is_the_sum_of_bets_begun_on_every_day() -> None:
    # One row a day of score 1/2, known at once: q = 1/2. A bet on r = 1/2 wins exp((1 - r) q) = e^(1/4) on a day without an
    # outcome, half of it on a day with one. R = (0 + 1) e^.25 = 1.2840; then (1.2840 + 1) e^.25 / 2 = 1.4664.
    rows = Cohorts(np.array([0, 1]), np.full(2, 0.5), np.array([UNKNOWN, 0]))
    watch = watch_early(rows, Baseline(np.array([1.0]), 1.0, 9), (0, 2), Bets(np.array([0.5]), 1e-12, 1.45))
    assert watch.wealth == pytest.approx([np.exp(0.25), (np.exp(0.25) + 1) * np.exp(0.25) / 2])
    assert (watch.outcomes.tolist(), watch.expected.tolist(), watch.first_alarm) == ([0, 1], [0.5, 0.5], 1)
    assert watch_matured(rows, Baseline(np.array([1.0]), 1.0, 9), (0, 2), Bets(np.array([0.5]), 1e-12, 9)).wealth == (
        pytest.approx(watch.wealth)
    )


@given(st.lists(st.floats(0.001, 0.9), min_size=1, max_size=30), st.sampled_from([*FALLS, *RISES]))
def test_no_bet_gains_on_average_where_outcomes_are_as_likely_as_said(chances: list[float], factor: float) -> None:
    # E[r^N exp((1 - r) M)] over independent outcomes of these chances, exactly: never above 1.
    q = np.array(chances)
    assert np.log1p(-(1 - factor) * q).sum() + (1 - factor) * q.sum() <= 1e-12


def simulate(rng: np.random.Generator, days: int, volume: int, fall: float, fall_day: int) -> Answers:
    day = np.repeat(np.arange(days), volume)
    chance = 1 / (1 + np.exp(-rng.normal(-2.5, 0.8, len(day))))
    happens = rng.random(len(day)) < chance * np.where(day >= fall_day, 1 - fall, 1)
    now_us = day * DAY_US + rng.integers(0, DAY_US, len(day))
    late_us = (DAY_US * (1 + 6 * rng.beta(1.2, 2.5, len(day)))).astype(np.int64)
    known_us = np.where(happens, now_us + late_us, NEVER_KNOWN)
    everyone = np.arange(len(day))
    return Answers(now_us, known_us, chance, np.full(len(day), 3), np.zeros(len(day), bool), everyone)


def known_at(answers: Answers, day: int) -> Answers:
    asked = answers.take(answers.now_us < day * DAY_US)
    return replace(asked, known_us=np.where(asked.known_us < day * DAY_US, asked.known_us, NEVER_KNOWN))


def test_a_fall_pages_days_before_any_label_of_it_has_matured_and_says_where_the_rate_will_end() -> None:
    answers = simulate(np.random.default_rng(2), 30, 2_000, fall=0.4, fall_day=21)
    found = {
        day: judge_early_labels(SERVED, known_at(answers, day), SETTINGS, day * DAY_US) for day in (10, 20, 21, 24, 26, 27, 28)
    }
    assert (found[10].outcome, found[10].severity) == (Outcome.INCONCLUSIVE, Severity.INFO)  # still learned from
    assert [found[day].outcome for day in (20, 21)] == [Outcome.PASS] * 2
    first = min(day for day, verdict in found.items() if verdict.outcome is Outcome.FAIL)
    assert first <= 28  # labels of day 21 have matured when day 29 begins
    verdict = found[28]
    assert (verdict.outcome, verdict.severity, verdict.subject) == (Outcome.FAIL, Severity.PAGE, "model:churn/3")
    assert (verdict.evidence["estimated"], verdict.evidence["direction"]) == (1, "fall")
    recent = answers.take((answers.now_us >= 21 * DAY_US) & (answers.now_us < 28 * DAY_US))
    truth = (recent.known_us < NEVER_KNOWN).mean()
    low, high = (float(verdict.evidence[name] or 0) for name in ("rate_low", "rate_high"))
    assert low <= truth <= high < float(verdict.evidence["expected_rate"] or 0)
    assert judge_early_labels(SERVED, known_at(answers, 28), SETTINGS, 28 * DAY_US) == verdict


def test_a_rise_pages_too_and_a_label_that_nothing_happens_is_turned_round() -> None:
    answers = simulate(np.random.default_rng(3), 28, 2_000, fall=-0.5, fall_day=20)
    assert judge_early_labels(SERVED, answers, SETTINGS, 28 * DAY_US).evidence["direction"] == "rise"
    turned = replace(answers, score=1 - answers.score)
    found = judge_early_labels(replace(SERVED, positive_is_absent=True), turned, SETTINGS, 28 * DAY_US)
    assert found.evidence["direction"] == "rise"


def test_alarms_without_a_change_are_no_more_often_than_declared() -> None:
    # Forty watches of 28 days, from day 28 on: at 0.2 alarms a month 7.5 are allowed on average.
    rng, alarms = np.random.default_rng(4), 0
    for _ in range(40):
        answers = simulate(rng, 56, 300, fall=0.0, fall_day=0)
        alarms += judge_early_labels(SERVED, answers, SETTINGS, 56 * DAY_US).outcome is Outcome.FAIL
    assert alarms <= 7


def test_a_watch_is_renewed_with_a_new_baseline_each_period() -> None:
    # Learned from for 14 days, then watched to the next multiple of 28, which is 140, and for 28 days each from there.
    assert find_span(100, 114, SETTINGS) is None
    assert find_span(100, 115, SETTINGS) == (114, 115)
    assert find_span(100, 140, SETTINGS) == (114, 140)
    assert find_span(100, 141, SETTINGS) == (140, 141)
    # Of a log that begins later, because older rows have gone, the same days are watched.
    assert find_span(150, 200, SETTINGS) == find_span(100, 200, SETTINGS) == (196, 200)


def test_rows_that_have_left_the_log_change_nothing_of_a_later_watch() -> None:
    answers = simulate(np.random.default_rng(7), 100, 200, fall=0.0, fall_day=0)
    whole = judge_early_labels(SERVED, answers, SETTINGS, 100 * DAY_US)
    kept = answers.take(answers.now_us >= 40 * DAY_US)  # watched since day 84, learned from since day 42
    assert judge_early_labels(SERVED, kept, SETTINGS, 100 * DAY_US).evidence == {**whole.evidence, "answers": len(kept)}


def test_scores_expect_the_performance_that_their_labels_then_show() -> None:
    rng = np.random.default_rng(5)
    score = 1 / (1 + np.exp(-rng.normal(-2, 1.2, 8_000)))
    label = rng.random(len(score)) < score
    found = expect_performance(score)
    area = roc_auc_score(label, score)
    loss = -np.where(label, np.log(score), np.log1p(-score)).mean()
    for (value, low, high), truth in ((found.auc, area), (found.log_loss, loss), (found.rate, label.mean())):
        assert low <= truth <= high
        assert low < value < high
    # Two rows, 0.8 and 0.2. Pairs: the higher is positive and the lower negative, 0.8 * 0.8, or the other way, 0.2 * 0.2.
    assert expect_performance(np.array([0.2, 0.8])).auc[0] == pytest.approx(0.64 / (0.64 + 0.04))


def test_what_scores_expect_is_shown_and_never_pages_and_names_what_it_cannot_see() -> None:
    rng = np.random.default_rng(6)
    for spread, outcome in ((1.6, Outcome.PASS), (0.3, Outcome.FAIL)):
        verdict = judge_confidence(SERVED, 1 / (1 + np.exp(-rng.normal(-2, spread, 3_000))), SETTINGS, 1)
        assert (verdict.outcome, verdict.severity) == (outcome, Severity.INFO)
        assert BLIND_SPOT in verdict.text
    assert judge_confidence(SERVED, np.full(10, 0.5), SETTINGS, 1).outcome is Outcome.INCONCLUSIVE
    for constant in (0.0, 1.0):  # a model that says the same of everybody
        stuck = judge_confidence(SERVED, np.full(3_000, constant), SETTINGS, 1)
        assert (stuck.outcome, stuck.severity) == (Outcome.INCONCLUSIVE, Severity.INFO)
        assert f"all 3,000 scores are {constant:.0f}" in stuck.text


def test_an_outcome_or_question_of_a_clock_that_runs_ahead_counts_as_of_this_moment() -> None:
    ahead = Answers(
        now_us=np.array([2 * DAY_US, 5 * DAY_US]), known_us=np.array([DAY_US - 1, NEVER_KNOWN]), score=np.full(2, 0.5),
        version=np.full(2, 3), matured=np.array([True, False]), entity=np.arange(2),
    )  # fmt: skip
    cohorts, _ = _as_cohorts(ahead, SERVED)
    assert cohorts.lag.tolist() == [0, UNKNOWN]
    table = tabulate_maturity("churn", ahead, waiting=0, now_us=4 * DAY_US)
    assert [(row.age_days, row.predictions) for row in table.ages] == [(0, 1), (2, 1)]
    assert table.delays_s["0.5"] == 0


def test_the_maturity_table_counts_by_age_and_a_log_that_has_ended_pages() -> None:
    hour_us = DAY_US // 24
    answers = Answers(
        now_us=np.array([0, 0, DAY_US, 2 * DAY_US]),
        known_us=np.array([6 * hour_us, NEVER_KNOWN, DAY_US + hour_us, NEVER_KNOWN]),
        score=np.full(4, 0.5), version=np.full(4, 3), matured=np.array([True, True, False, False]), entity=np.arange(4),
    )  # fmt: skip
    table = tabulate_maturity("churn", answers, waiting=1, now_us=2 * DAY_US + 1)
    rows = [(row.age_days, row.predictions, row.matured, row.outcomes) for row in table.ages]
    assert rows == [(0, 1, 0, 0), (1, 1, 0, 1), (2, 2, 2, 1)]
    assert table.delays_s == {"0.5": 21_600, "0.9": 21_600, "0.99": 21_600}
    fine = judge_maturity(table, silence_s=60, most_silence_s=3_600, now_us=1)
    assert (fine.outcome, fine.evidence["matured_share"], fine.evidence["delay_s_p50"]) == (Outcome.PASS, 0.5, 21_600)
    assert judge_maturity(table, silence_s=7_200, most_silence_s=3_600, now_us=1).outcome is Outcome.FAIL
