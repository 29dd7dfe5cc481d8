"""A share watched value by value equals alibi-detect's online test, in bounded memory, and goes on after a restart."""

from __future__ import annotations

import json

import numpy as np
import pytest
from alibi_detect.cd import FETDriftOnline

from monitoring.drift.detectors import seeded
from monitoring.drift.online import ShareSettings, ShareWatch

SETTINGS = ShareSettings(values_between_alarms=200, windows=(20, 60), simulations=500, seed=3)


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
