"""Our detectors give what alibi-detect gives when it is called directly on the same windows."""

from __future__ import annotations

import numpy as np
import pytest
from alibi_detect.cd import ChiSquareDrift, ClassifierDrift, CVMDrift, FETDrift, KSDrift, TabularDrift
from sklearn.ensemble import HistGradientBoostingClassifier

from monitoring.drift import detectors
from monitoring.drift.detectors import (
    compare_columns,
    compare_distributions,
    compare_jointly,
    compare_shares,
    measure_effects,
)
from monitoring.drift.quality import Column


@pytest.fixture
def numbers(rng):
    return [
        Column(f"f{n}", rng.normal(0, 1, 500).astype(np.float32), rng.normal(n / 10, 1, 400).astype(np.float32))
        for n in range(4)
    ]


@pytest.fixture
def categories(rng):
    return [
        Column(f"c{n}", rng.integers(0, 3, 500).astype(np.float32), rng.choice(3, 400, p=p).astype(np.float32), 3)
        for n, p in enumerate(([1 / 3, 1 / 3, 1 / 3], [0.5, 0.3, 0.2]))
    ]


def sides(columns):
    return np.column_stack([c.reference for c in columns]), np.column_stack([c.window for c in columns])


def test_numbers_equal_ks_drift(numbers):
    reference, window = sides(numbers)
    direct = KSDrift(reference, p_val=0.05).predict(window, drift_type="feature")["data"]

    ours = compare_columns(numbers)

    np.testing.assert_array_equal(ours.p_value, direct["p_val"])
    np.testing.assert_array_equal(ours.statistic, direct["distance"])


def test_categories_equal_chi_square_drift(categories):
    reference, window = sides(categories)
    direct = ChiSquareDrift(reference, p_val=0.05).predict(window, drift_type="feature")["data"]

    ours = compare_columns(categories)

    np.testing.assert_array_equal(ours.p_value, direct["p_val"])
    np.testing.assert_array_equal(ours.statistic, direct["distance"])


def test_a_mixed_table_equals_tabular_drift_whatever_the_blocks(numbers, categories, monkeypatch):
    columns = [numbers[0], categories[0], *numbers[1:], categories[1]]
    reference, window = sides(columns)
    kinds = {1: [0, 1, 2], 5: [0, 1, 2]}
    direct = TabularDrift(reference, p_val=0.05, categories_per_feature=kinds).predict(window, drift_type="feature")["data"]

    for block in (2, 256):
        monkeypatch.setattr(detectors, "BLOCK_FEATURES", block)
        ours = compare_columns(columns)
        np.testing.assert_array_equal(ours.p_value, direct["p_val"])
        np.testing.assert_array_equal(ours.statistic, direct["distance"])


def test_columns_of_different_lengths_equal_detectors_of_their_own(numbers):
    short = Column("short", numbers[0].reference[:450], numbers[0].window[:300])
    direct = KSDrift(short.reference[:, None], p_val=0.05).predict(short.window[:, None], drift_type="feature")["data"]

    ours = compare_columns([*numbers, short])

    assert ours.p_value[-1] == direct["p_val"][0]
    np.testing.assert_array_equal(ours.p_value[:-1], compare_columns(numbers).p_value)


def test_a_distribution_equals_cvm_drift(numbers):
    column = numbers[3]
    direct = CVMDrift(column.reference[:, None], p_val=0.05).predict(column.window[:, None], drift_type="feature")["data"]

    assert compare_distributions(column.reference, column.window) == (direct["p_val"][0], direct["distance"][0])


def test_a_share_equals_fet_drift(rng):
    reference, window = rng.random(1_000) < 0.02, rng.random(800) < 0.05
    direct = FETDrift(reference.astype(int)[:, None], p_val=0.05, alternative="two-sided")
    found = direct.predict(window.astype(int)[:, None], drift_type="feature")["data"]

    assert compare_shares(reference, window) == found["p_val"][0]


def test_features_together_equal_classifier_drift(rng):
    reference, window = rng.standard_normal((400, 3)), rng.standard_normal((400, 3))
    window[:, 1] = window[:, 0]
    model = HistGradientBoostingClassifier(max_iter=60, max_depth=4, learning_rate=0.1, random_state=3)
    direct = ClassifierDrift(reference, model, backend="sklearn", p_val=0.05, preds_type="probs", train_size=0.5, seed=3)
    np.random.seed(3)  # it draws its training rows from the global generator
    found = direct.predict(window)["data"]

    assert compare_jointly(reference, window, seed=3) == (found["p_val"], found["distance"])


def test_the_same_windows_give_the_same_answer_and_leave_the_global_generator_alone(rng):
    reference, window = rng.standard_normal((300, 2)), rng.standard_normal((300, 2))
    before = np.random.get_state()[1].tolist()
    assert compare_jointly(reference, window, seed=1) == compare_jointly(reference, window, seed=1)
    assert np.random.get_state()[1].tolist() == before


def test_a_pair_that_moves_together_now_is_found_though_each_feature_is_as_before(rng):
    reference, window = rng.standard_normal((1_000, 2)), rng.standard_normal((1_000, 2))
    window[:, 1] = window[:, 0]
    columns = [Column(str(n), reference[:, n].astype(np.float32), window[:, n].astype(np.float32)) for n in range(2)]

    p_value, distance = compare_jointly(reference, window, seed=0)

    assert compare_columns(columns).p_value.min() > 0.001
    assert p_value < 1e-6
    assert distance > 0.3


def test_effects_are_shares_of_rows_that_moved():
    # Numbers: half of the window's values lie above all of the reference's, so the KS distance is 0.5.
    # Categories: a falls from 3/4 to 1/4 of the rows and b rises by as much, so 0.5 of the rows moved.
    number = Column("n", np.arange(100, dtype=np.float32), np.arange(50, 150, dtype=np.float32) + 0.5)
    category = Column("c", np.repeat([0, 1], [75, 25]).astype(np.float32), np.repeat([0, 1], [25, 75]).astype(np.float32), 2)

    compared = compare_columns([number, category])

    # Of the numbers, 50.5 is the first of the window: 51 of 100 of the reference's lie at or below 50.
    assert measure_effects([number, category], compared).round(6).tolist() == [0.51, 0.5]
