"""Metrics on numbers small enough to work out by hand, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss as reference_log_loss
from sklearn.metrics import roc_auc_score

from models import bootstrap

LABEL = np.array([0, 0, 1, 1], np.int8)
SCORE = np.array([0.1, 0.4, 0.35, 0.8])
ONES = np.ones((1, 4))


def test_auc_counts_the_pairs_that_are_in_order_and_half_of_the_ties() -> None:
    # Pairs (positive, negative): .35>.1 yes, .35>.4 no, .8>.1 yes, .8>.4 yes: 3 of 4.
    assert bootstrap.auc(LABEL, SCORE, ONES).tolist() == [0.75]
    # .4>.1 yes, .4=.4 half, .8>.1 yes, .8>.4 yes: 3.5 of 4.
    assert bootstrap.auc(LABEL, np.array([0.1, 0.4, 0.4, 0.8]), ONES).tolist() == [0.875]
    assert bootstrap.auc(LABEL, np.full(4, 0.3), ONES).tolist() == [0.5]


def test_auc_weighs_rows_by_how_often_they_were_drawn() -> None:
    # Row 1 (negative, .4) out, row 2 (positive, .35) twice: all pairs are in order.
    assert bootstrap.auc(LABEL, SCORE, np.array([[1.0, 0.0, 2.0, 1.0]])).tolist() == [1.0]
    # Row 1 twice: wins .35>.1 (1), .8>.1 (1), .8>.4 (2) = 4 of 2 * 3 = 6 pairs.
    assert bootstrap.auc(LABEL, SCORE, np.array([[1.0, 2.0, 1.0, 1.0]])).tolist() == pytest.approx([4 / 6])


def test_a_resample_without_a_class_has_no_auc() -> None:
    assert np.isnan(bootstrap.auc(LABEL, SCORE, np.array([[1.0, 1.0, 0.0, 0.0]]))).all()


def test_log_loss_is_the_mean_negative_log_likelihood() -> None:
    # -(ln .9 + ln .6 + ln .35 + ln .8) / 4 = (0.105361 + 0.510826 + 1.049822 + 0.223144) / 4
    assert bootstrap.log_loss(LABEL, SCORE, ONES).tolist() == pytest.approx([0.472288], abs=1e-6)


def test_a_sure_and_wrong_score_costs_much_but_not_everything() -> None:
    # Clipped at 1e-7: -ln 1e-7 = 16.118.
    assert bootstrap.log_loss(np.array([1], np.int8), np.array([0.0]), np.ones((1, 1))).tolist() == pytest.approx(
        [16.118], abs=1e-3
    )


def test_calibration_error_is_the_mean_gap_between_score_and_share() -> None:
    # Two groups of equal score: 10 rows at .2 with 4 positives (gap .2), 10 at .7 with 6 (gap .1): mean .15.
    label = np.array([1] * 4 + [0] * 6 + [1] * 6 + [0] * 4, np.int8)
    score = np.array([0.2] * 10 + [0.7] * 10)
    assert bootstrap.calibration_error(label, score, np.ones((1, 20))).tolist() == pytest.approx([0.15])


@given(st.integers(0, 10_000), st.integers(4, 60))
def test_auc_and_log_loss_equal_the_field_standard_ones_on_every_resample(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    label = np.concatenate([[0, 1], rng.integers(0, 2, rows - 2)]).astype(np.int8)
    score = rng.integers(1, 10, rows) / 10
    weights = bootstrap.draw_weights(np.arange(rows), 5, seed=seed)
    areas, losses = bootstrap.auc(label, score, weights), bootstrap.log_loss(label, score, weights)
    for number, weight in enumerate(weights):
        assert losses[number] == pytest.approx(reference_log_loss(label, score, sample_weight=weight, labels=[0, 1]))
        if set(label[weight > 0]) == {0, 1}:
            assert areas[number] == pytest.approx(roc_auc_score(label, score, sample_weight=weight))


def test_an_entity_is_drawn_with_all_of_its_rows() -> None:
    weights = bootstrap.draw_weights(np.array([0, 1, 1, 2, 2, 2]), 200, seed=1)
    assert weights.shape == (201, 6)
    assert weights[0].tolist() == [1] * 6
    assert (weights[:, 1] == weights[:, 2]).all()
    assert (weights[1:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_the_interval_of_a_share_has_the_width_that_theory_gives() -> None:
    # Brier-like check through log loss is opaque, so use the weights themselves: a share of 0.5 over 400 entities has a
    # standard error of 0.025, hence a 95 % interval of +- 0.049.
    values = np.tile([0.0, 1.0], 200)
    weights = bootstrap.draw_weights(np.arange(400), 2_000, seed=2)
    figure = bootstrap.interval_of(weights @ values / weights.sum(axis=1))
    assert figure["value"] == 0.5
    assert figure["low"] == pytest.approx(0.451, abs=0.005)
    assert figure["high"] == pytest.approx(0.549, abs=0.005)
