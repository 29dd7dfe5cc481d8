from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.rollout.observations import Observations, no_requests
from monitoring.rollout.outcomes import fold_labels, label_ratios, open_outcomes
from monitoring.rollout.panels import SLOTS, admit, open_panel
from monitoring.rollout.sequential import (
    HARMS,
    SHIFTS,
    SPREADS,
    bound,
    log_threshold,
    log_wealth,
    log_wealth_any_shape,
    mix,
    rank_ratios,
)
from monitoring.rollout.spans import SPAN, fold_spans, log_wealth_spans, open_spans

prices = st.floats(0.01, 0.6)


def mean_wealth(log_of, bins, price, kinds):
    """Exact mean wealth over every draw of arms, when users met these bins and arms tell nothing."""
    total = 0.0
    for arms in product((0, 1), repeat=len(bins)):
        counts = np.zeros((2, kinds), np.int64)
        for arm, met in zip(arms, bins, strict=True):
            counts[arm, met] += 1
        total += price ** sum(arms) * (1 - price) ** (len(arms) - sum(arms)) * math.exp(log_of(counts))
    return total


@given(st.lists(st.integers(0, 2), max_size=7), prices)
def test_a_bet_on_ranks_is_fair_whatever_users_met(bins, price):
    ratios = rank_ratios(np.array([0.5, 0.3, 0.2]), SHIFTS, SPREADS)
    assert mean_wealth(lambda counts: mix(log_wealth(counts, ratios, price)), bins, price, 3) == pytest.approx(1)


@given(st.lists(st.integers(0, 2), max_size=7), prices)
def test_a_bet_on_any_shape_is_fair_whatever_users_met(bins, price):
    assert mean_wealth(lambda counts: log_wealth_any_shape(counts, price), bins, price, 3) == pytest.approx(1)


@given(st.lists(st.just(0), max_size=8), prices)
def test_a_bet_on_a_rare_event_is_fair_however_often_it_happened(events, price):
    assert mean_wealth(lambda counts: mix(log_wealth(counts, HARMS[:, None], price)), events, price, 1) == pytest.approx(1)


def test_one_failing_user_on_the_canary_wins_what_the_ratio_says():
    # p = 0.05, w = 10: canary 10 / (0.5 + 0.95) = 6.897; stable 1 / 1.45 = 0.690.
    wealth = log_wealth(np.array([[[1], [1]], [[1], [0]]]), np.array([[10.0]]), 0.05)
    assert np.exp(wealth[:, 0]) == pytest.approx([10 / 1.45**2, 1 / 1.45])


def test_a_crash_is_called_within_five_failing_users():
    # At 5 % and w = 1000 a failing canary user wins 1000 / 50.95 = 19.63. Six gates share a rate of 0.01 over three stages,
    # half of it for everybody: 1 / 0.01 * 6 * 3 * 2 = 3,600. Of nine bets the largest alone has 19.63^5 / 9 = 323,000 after
    # five users and 19.63^3 / 9 = 840 after three; the next ones, 100 / 5.95 = 16.8 and 30 / 2.45 = 12.2, add 527 and 205.
    needed = log_threshold(0.01 / 6 / 3 / 2)
    assert math.exp(needed) == pytest.approx(3_600)
    wealth = [float(mix(log_wealth(np.array([[0], [failing]]), HARMS[:, None], 0.05))) for failing in range(6)]
    assert wealth[3] < needed < wealth[5]


def test_any_shape_is_the_beta_binomial_bayes_factor():
    # One bin, prior Beta(1, 3) at p = 1/4. Two canary users: E q^2 = (1 * 2) / (4 * 5) = 1/10, against 1/16: 1.6.
    assert math.exp(log_wealth_any_shape(np.array([[0], [2]]), 0.25)) == pytest.approx(1.6)


def test_ratios_of_ranks_have_mean_one_and_rise_with_the_rank():
    shares = np.array([0.5, 0.25, 0.25])
    ratios = rank_ratios(shares, np.array([2.0]), np.zeros(0))
    # Middle ranks 2 * (0.25, 0.625, 0.875) - 1 = -0.5, 0.25, 0.75.
    tilts = np.exp(2 * np.array([-0.5, 0.25, 0.75]))
    assert ratios[0] == pytest.approx(tilts / (tilts @ shares))
    assert ratios[0] @ shares == pytest.approx(1)


@given(st.lists(st.integers(0, 30), min_size=6, max_size=6), st.lists(st.integers(0, 30), min_size=6, max_size=6), prices)
def test_wealth_of_two_halves_is_the_product_of_theirs(first, second, price):
    ratios = rank_ratios(np.full(3, 1 / 3), SHIFTS, SPREADS)
    one, two = (np.array(counts).reshape(2, 3) for counts in (first, second))
    assert log_wealth(one + two, ratios, price) == pytest.approx(
        log_wealth(one, ratios, price) + log_wealth(two, ratios, price)
    )


def test_the_bound_is_the_one_of_the_paper():
    # level 0.05, tuned for 100: -2 log 0.1 = 4.6052, log(5.6052) = 1.7237, rho^2 = 0.063289. At t = 100, variance 1:
    # t rho^2 + 1 = 7.3289, log(1 + sqrt(7.3289) / 0.1) = log(28.072) = 3.3348, sqrt(2 * 7.3289 / 632.89 * 3.3348) = 0.27791.
    assert bound(1.0, 100, 0.05, 100) == pytest.approx(0.27791, abs=1e-4)


def test_means_rarely_leave_the_bound_at_any_of_many_looks():
    # 400 sequences of 2,000 centred exponentials, looked at from 50 on: at most 5 % may ever leave; 3 deviations of 400 draws.
    rng = np.random.default_rng(1)
    left = 0
    for _ in range(400):
        values = 1 - rng.exponential(size=2_000)
        counts = np.arange(1, 2_001)
        means = np.cumsum(values) / counts
        variances = np.cumsum(values**2) / counts - means**2
        left += any(means[n - 1] - bound(variances[n - 1], n, 0.05, 500) > 0 for n in range(50, 2_001, 10))
    assert left / 400 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_a_user_is_counted_once_in_the_order_of_arrival():
    panel, firsts = admit(open_panel(), np.array([7, 9, 7, 11, 9], np.int64))
    assert firsts.tolist() == [0, 1, 3]
    assert admit(panel, np.array([11, 12], np.int64))[1].tolist() == [1]


def test_a_full_panel_counts_nobody_and_grows_no_further():
    panel, firsts = admit(open_panel(), np.arange(40 * SLOTS, dtype=np.int64))
    assert len(firsts) == SLOTS == panel.sum()
    assert not len(admit(panel, np.arange(-1_000, 0, dtype=np.int64))[1])


def test_a_span_is_worse_when_the_canary_has_one_event_more_than_stables_share_explains():
    # 20 canary requests with 40 of stable, 4 of which are slow: 2 expected on the canary, so 3 are worse and 2 are not.
    def span(slow_canary):
        arm = np.array([0, 0, 1] * SPAN, np.int8)
        slow = np.zeros(3 * SPAN, np.bool_)
        slow[np.flatnonzero(arm == 0)[:4]] = True
        slow[np.flatnonzero(arm == 1)[:slow_canary]] = True
        return fold_spans(open_spans(1), arm, slow[:, None])

    assert (span(3).worse[0], span(3).spans[0]) == (1, 1)
    assert (span(2).worse[0], span(2).spans[0]) == (0, 1)


def test_one_pause_of_a_process_wins_little_and_lasting_slowness_much():
    spans = open_spans(1)
    assert log_wealth_spans(spans, 0) == pytest.approx(0)
    # 3 worse of 40 spans; 14 worse of 14: the bet on 0.98 alone has 1.96^14 / 4 = 3,089.
    assert log_wealth_spans(type(spans)(spans.open, np.array([3]), np.array([40])), 0) < 0
    assert log_wealth_spans(type(spans)(spans.open, np.array([14]), np.array([14])), 0) > math.log(3_089)


@given(st.lists(st.tuples(st.sampled_from([0.05, 0.3, 0.9]), st.booleans()), min_size=1, max_size=6), st.integers(1, 99))
def test_a_bet_on_a_label_is_fair_whatever_score_and_label(rows, percent):
    price = percent / 100
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    total = np.zeros(13)
    for arms in product((0, 1), repeat=len(rows)):
        seen = Observations(
            **{
                **no_requests(0).__dict__,
                "label_arm": np.array(arms, np.int8),
                "label_entity": np.arange(len(rows)) * 977 + 5,
                "label_score": scores.astype(np.float32),
                "label": labels,
                "label_percent": np.full(len(rows), percent, np.float32),
            }
        )
        chance = price ** sum(arms) * (1 - price) ** (len(arms) - sum(arms))
        ((_, counts),) = fold_labels(open_outcomes(), seen).by_percent()
        total += chance * np.exp(log_wealth(counts, label_ratios(0.2), price))
    assert total == pytest.approx(np.ones(13), rel=1e-4)
