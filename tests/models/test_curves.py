"""ROC, lift and calibration on numbers small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from models.curves import MOST_POINTS, calibration_table, lift_curve, roc_curve

LABEL = np.array([0, 1, 0, 1], np.int8)
SCORE = np.array([0.1, 0.4, 0.4, 0.8])


def test_roc_takes_equal_scores_in_one_step() -> None:
    # From the top: .8 is positive (tpr 1/2); .4 is one of each (tpr 1, fpr 1/2); .1 is negative.
    assert roc_curve(LABEL, SCORE) == {"fpr": [0.0, 0.0, 0.5, 1.0], "tpr": [0.0, 0.5, 1.0, 1.0]}


def test_lift_is_the_share_of_positives_among_the_top_over_that_of_all() -> None:
    # Of all, 1/2 is positive. Top 1/4: all positive, lift 2. Top 3/4: 2 of 3, lift 4/3. All: 1.
    found = lift_curve(LABEL, SCORE)
    assert found["share"] == [0.25, 0.75, 1.0]
    assert found["lift"] == pytest.approx([2.0, 4 / 3, 1.0], abs=1e-4)


@given(st.integers(0, 1_000), st.integers(10, 5_000))
def test_a_thinned_roc_keeps_its_ends_and_its_area(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    score = rng.random(rows)
    label = np.concatenate([[0, 1], rng.random(rows - 2) < score[2:]]).astype(np.int8)
    found = roc_curve(label, score)
    assert len(found["fpr"]) <= MOST_POINTS + 1
    assert (found["fpr"][0], found["tpr"][0], found["fpr"][-1], found["tpr"][-1]) == (0, 0, 1, 1)
    assert np.trapezoid(found["tpr"], found["fpr"]) == pytest.approx(roc_auc_score(label, score), abs=0.02)


def test_calibration_counts_bins_and_gives_wilsons_interval() -> None:
    # 20 rows at .2 with 4 positives. Wilson: centre (4 + 1.9208) / (20 + 3.8415) = 0.24834,
    # half 1.96 * sqrt(.2 * .8 * 20 + 0.9604) / 23.8415 = 0.16768: 0.0807 to 0.4160.
    label = np.array([1] * 4 + [0] * 16 + [1] * 15 + [0] * 5, np.int8)
    table = calibration_table(label, np.array([0.2] * 20 + [0.7] * 20))
    assert [entry["rows"] for entry in table] == [20, 20]
    assert [entry["mean_score"] for entry in table] == pytest.approx([0.2, 0.7])
    assert [entry["share_positive"] for entry in table] == [0.2, 0.75]
    assert (table[0]["low"], table[0]["high"]) == pytest.approx((0.0807, 0.4160), abs=1e-4)
