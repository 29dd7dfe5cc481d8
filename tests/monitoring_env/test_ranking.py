"""Which features are shown first, and which page."""

from __future__ import annotations

import numpy as np
import pytest

from monitoring.drift.ranking import divide, find_q_values, rank
from monitoring.drift.settings import FEATURES, SHARES, DriftSettings, read_settings
from monitoring.errors import DriftError

NAMES = ("a", "b", "c", "d")


def test_q_values_are_benjamini_and_hochbergs():
    # Sorted 0.01, 0.03, 0.04, 0.5 times 4/1, 4/2, 4/3, 4/4: 0.04, 0.06, 0.05333, 0.5; none above a later one.
    assert find_q_values(np.array([0.01, 0.04, 0.03, 0.5])).round(5).tolist() == [0.04, 0.05333, 0.05333, 0.5]
    assert find_q_values(np.array([0.9, 0.8])).tolist() == [0.9, 0.9]
    assert find_q_values(np.zeros(0)).tolist() == []


def test_what_pages_comes_first_then_q_value_then_effect():
    p_value = np.array([1e-9, 1e-9, 0.5, 1e-12])
    ranking = rank(NAMES, np.array([0.05, 0.3, 0.2, 0.2]), p_value, np.ones(4), {"c": 1.0}, (0.01, 0.1))
    # a is as sure as b, but its effect is below the floor.
    assert ranking.names == ("d", "b", "a", "c")
    assert ranking.drifted.tolist() == [True, True, False, False]
    assert ranking.threshold.tolist() == [0.0025] * 4


def test_an_important_feature_may_take_more_of_the_chance():
    # Half of it equally, 1/8 each of the whole; the other half by importance 3 : 1 : 0 : 0. Means of 1: times 4.
    weight = divide(NAMES, {"a": 3.0, "b": 1.0}, 0.5)
    assert weight.tolist() == [2.0, 1.0, 0.5, 0.5]
    assert divide(NAMES, {}, 0.5).tolist() == [1.0] * 4
    assert divide(NAMES, {"a": -1.0}, 0.5).tolist() == [1.0] * 4


def test_evidence_names_the_first_features():
    ranking = rank(("a", "b"), np.array([0.1, 0.5]), np.array([0.5, 1e-9]), np.ones(2), {"b": 0.2}, (0.01, 0.1))
    evidence = ranking.describe(1)
    assert (evidence["feature_1"], evidence["effect_1"], evidence["importance_1"]) == ("b", 0.5, 0.2)
    assert "feature_2" not in evidence


def test_a_month_of_windows_spends_the_months_alarms_however_they_are_cut():
    settings = DriftSettings(alarms_per_month=2.0)
    month_s = 30 * 86_400
    assert sum(SHARES.values()) == pytest.approx(1)
    for window_s in (600, 3_600, 7 * 3_600):
        windows = month_s / window_s
        spent = windows * sum(settings.chance(family, window_s) for family in SHARES)
        assert spent == pytest.approx(2.0)
    # One alarm a month over hourly windows and 2,500 features: 0.4 / 720 / 2,500.
    assert DriftSettings().chance(FEATURES, 3_600) / 2_500 == pytest.approx(2.2e-7, rel=0.02)


def test_settings_are_read_from_a_file_and_refused_in_one_line(tmp_path):
    path = tmp_path / "drift.yaml"
    path.write_text("window_s: 900\nalarms_per_month: 0.5\n")
    assert read_settings(path) == DriftSettings(window_s=900, alarms_per_month=0.5)
    assert read_settings(None) == DriftSettings()
    for text in ("windows: 3", "window_s: yes", "window_s: 1.5", "effect_floor: 2", "least_rows: 20000", "- 1", "a: [", ""):
        path.write_text(text)
        with pytest.raises(DriftError, match=r"^drift settings refused: [^\n]+$"):
            read_settings(path)
