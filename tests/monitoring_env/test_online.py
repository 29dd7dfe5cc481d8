"""A share watched value by value equals alibi-detect's online test, in bounded memory, and goes on after a restart."""

from __future__ import annotations

import json

import numpy as np
import pytest
from alibi_detect.cd import CVMDriftOnline, FETDriftOnline

from monitoring.drift.detectors import seeded
from monitoring.drift.online import OnlineSettings, ShareWatch, ValueWatch

SETTINGS = OnlineSettings(values_between_alarms=200, windows=(20, 60), simulations=500, seed=3)


@pytest.fixture(scope="module")
def reference():
    return np.random.default_rng(1).random(800) < 0.2


def test_statistics_equal_alibis_and_memory_does_not_grow(reference):
    values = np.random.default_rng(2).random(150) < 0.2
    with seeded(SETTINGS.seed):
        direct = FETDriftOnline(reference.astype(int), ert=200, window_sizes=[20, 60], n_bootstraps=500, verbose=False)
    ours = ShareWatch(reference, "rise", SETTINGS)
    np.testing.assert_array_equal(ours._detector.thresholds, direct.thresholds)
    for value in values.tolist():
        found = direct.predict(np.array([int(value)]))["data"]
        if found["is_drift"]:
            break
        assert ours.update(np.array([value])) == []
        np.testing.assert_array_equal(ours._detector.test_stats[-1], found["test_stat"])
    assert len(ours._detector.xs) <= 60
    assert len(ours._detector.test_stats) == 1


def test_a_restarted_watch_goes_on_as_if_it_had_not_stopped(reference):
    values = np.random.default_rng(4).random(120) < 0.3
    whole = ShareWatch(reference, "rise", SETTINGS)
    straight = whole.update(values)

    first = ShareWatch(reference, "rise", SETTINGS)
    before = first.update(values[:70])
    second = ShareWatch(reference, "rise", SETTINGS)
    second.restore(json.loads(json.dumps(first.describe())))
    after = [place + 70 for place in second.update(values[70:])]

    assert before + after == straight
    assert second.describe() == whole.describe()


def test_a_fall_is_found_by_the_watch_for_falls_alone(reference):
    values = np.zeros(100, np.bool_)
    assert ShareWatch(reference, "fall", SETTINGS).update(values)
    assert ShareWatch(reference, "rise", SETTINGS).update(values) == []


NUMBERS = OnlineSettings(values_between_alarms=100, windows=(20, 40), simulations=500, seed=3)


@pytest.fixture(scope="module")
def scores():
    return np.random.default_rng(5).normal(size=200)


def test_a_watched_number_equals_alibis_test_alarms_at_the_same_value_and_its_memory_does_not_grow(scores):
    values = np.concatenate([np.random.default_rng(6).normal(size=60), np.random.default_rng(7).normal(1.5, size=60)])
    with seeded(NUMBERS.seed):
        direct = CVMDriftOnline(scores, ert=100, window_sizes=[20, 40], n_bootstraps=500, verbose=False)
    ours = ValueWatch(scores, NUMBERS)
    np.testing.assert_array_equal(ours.thresholds, direct.thresholds)
    for value in values.tolist():
        found = direct.predict(np.array([value]))["data"]
        assert bool(ours.update(np.array([value]))) == bool(found["is_drift"])
        if found["is_drift"]:
            break
        np.testing.assert_array_equal(ours._detector.test_stats[-1], found["test_stat"])
    assert found["is_drift"]
    assert len(ours._detector.xs) <= 40


def test_a_restarted_watch_of_a_number_goes_on_with_the_thresholds_it_had_found(scores):
    values = np.random.default_rng(8).normal(0.6, size=150)
    whole = ValueWatch(scores, NUMBERS)
    straight = whole.update(values)
    first = ValueWatch(scores, NUMBERS, thresholds=whole.thresholds)
    before = first.update(values[:97])
    second = ValueWatch(scores, NUMBERS, thresholds=np.array(json.loads(json.dumps(first.thresholds.tolist()))))
    second.restore(json.loads(json.dumps(first.describe())))
    assert before + [place + 97 for place in second.update(values[97:])] == straight
    assert second.describe() == whole.describe()
