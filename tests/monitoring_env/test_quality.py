"""What is wrong with the data is found before a test sees it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from alibi_detect.cd import CVMDrift, KSDrift

from monitoring.drift.detectors import compare_columns
from monitoring.drift.judge import Window, judge_window
from monitoring.drift.quality import pool_rare, prepare
from monitoring.drift.reference import Reference
from monitoring.drift.sample import Sample
from monitoring.verdicts import Outcome

CHANCE = 0.001


def judge(reference, window, settings):
    return judge_window(
        Window("churn/stable", 0, 3_600_000_000, window, len(window)), Reference("training", reference), settings
    )


def by_monitor(judgement):
    return {verdict.monitor.rpartition(".")[2]: verdict for verdict in judgement.verdicts}


def test_a_shift_of_five_sigma_under_two_percent_of_nan_is_found(draw, settings, rng):
    reference, window = draw(5_000), draw(5_000)
    window.numbers[:, 1] -= 5
    window.numbers[rng.random(5_000) < 0.02, 1] = np.nan

    found = judge(reference, window, settings)

    assert by_monitor(found)["features"].outcome is Outcome.FAIL
    assert found.ranking.names[0] == "f1"
    assert found.ranking.drifted.tolist() == [True, False, False]
    # The present values hardly overlap; alibi-detect, given the NaNs, takes them for the largest values and says less.
    alone = KSDrift(reference.numbers, p_val=0.05).predict(window.numbers, drift_type="feature")["data"]
    assert alone["distance"][1] < 0.98 < found.ranking.effect[0]
    assert by_monitor(found)["quality"].evidence["feature_1"] == "f1"


def test_missing_scores_raise_no_alarm_where_alibi_alone_always_would(draw, settings, rng):
    # With the releases locked here one NaN makes the Cramér-von Mises statistic NaN and the p-value 0.
    reference, window = (draw(2_000, score=rng.random(2_000).astype(np.float32)) for _ in range(2))
    window.score[:40] = np.nan

    alone = CVMDrift(reference.score[:, None], p_val=0.05).predict(window.score[:, None])["data"]

    assert alone["is_drift"] == 1
    assert by_monitor(judge(reference, window, settings))["score"].outcome is Outcome.PASS


def test_a_rise_of_missing_values_is_a_finding_and_no_drift(draw, settings, rng):
    reference, window = draw(4_000), draw(4_000)
    window.numbers[rng.random(4_000) < 0.05, 2] = np.nan

    verdicts = by_monitor(judge(reference, window, settings))

    assert verdicts["quality"].outcome is Outcome.FAIL
    assert verdicts["quality"].evidence["kind_1"] == "missing"
    assert verdicts["features"].outcome is Outcome.PASS


def test_missing_values_as_many_as_before_are_none(draw, settings, rng):
    reference, window = draw(4_000), draw(4_000)
    for sample in (reference, window):
        sample.numbers[rng.random(4_000) < 0.3, 0] = np.nan
    assert by_monitor(judge(reference, window, settings))["quality"].outcome is Outcome.PASS


def test_infinite_values_are_a_finding_and_left_out(draw, settings):
    reference, window = draw(2_000), draw(2_000)
    window.numbers[:100, 0] = np.inf

    prepared = prepare(reference, window, settings, CHANCE)

    assert [(finding.feature, finding.kind, finding.value) for finding in prepared.findings] == [("f0", "not finite", 0.05)]
    assert np.isfinite(prepared.columns[0].window).all()


def test_an_unseen_category_is_named_and_left_out(draw, settings, letters):
    reference = draw(3_000, categories={"plan": letters(3_000)})
    plans = pa.concat_arrays([letters(2_850), pa.array(["gold"] * 150)])

    prepared = prepare(reference, draw(3_000, categories={"plan": plans}), settings, CHANCE)

    (finding,) = prepared.findings
    assert (finding.feature, finding.kind, finding.value, finding.detail) == ("plan", "unseen", 0.05, "gold")
    assert len(prepared.columns[-1].window) == 2_850


def test_a_category_of_the_reference_that_never_comes_raises_nothing(draw, settings, letters):
    reference = draw(3_000, categories={"plan": letters(3_000, "abc")})
    window = draw(3_000, categories={"plan": letters(3_000, "ab")})

    found = judge(reference, window, settings)

    assert found.ranking.names[0] == "plan"
    # c had 1/3 of the rows, a and b gain half of it each.
    assert found.ranking.effect[0] == pytest.approx(1 / 3, abs=0.03)


def test_null_categories_are_missing_values(draw, settings, letters):
    plans = pa.concat_arrays([letters(2_700), pa.nulls(300, pa.string())])
    prepared = prepare(
        draw(3_000, categories={"plan": letters(3_000)}), draw(3_000, categories={"plan": plans}), settings, CHANCE
    )
    assert [(finding.kind, finding.value) for finding in prepared.findings] == [("missing", 0.1)]


def test_a_feature_that_is_gone_is_a_finding(draw, settings):
    (finding,) = prepare(draw(500, 3), draw(500, 2), settings, CHANCE).findings
    assert (finding.feature, finding.kind) == ("f2", "absent")


def test_a_feature_with_too_few_present_values_is_not_tested(draw, settings):
    reference, window = draw(1_000), draw(1_000)
    reference.numbers[50:, 0] = np.nan
    window.numbers[50:, 0] = np.nan

    prepared = prepare(reference, window, settings, CHANCE)

    assert prepared.too_few == ("f0",)
    verdict = by_monitor(judge(reference, window, settings))["quality"]
    assert verdict.outcome is Outcome.PASS
    assert "to be tested: f0" in verdict.text


def test_a_window_of_which_no_feature_can_be_tested_is_inconclusive(draw, settings):
    reference, window = draw(1_000), draw(1_000)
    for sample in (reference, window):
        sample.numbers[50:] = np.nan
    assert by_monitor(judge(reference, window, settings))["quality"].outcome is Outcome.INCONCLUSIVE


def test_a_window_with_too_few_rows_is_inconclusive(draw, settings):
    (verdict,) = judge(draw(1_000), draw(100), settings).verdicts
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "100 of the window" in verdict.text


def test_degraded_rows_are_a_finding_and_their_features_no_drift(draw, settings):
    degraded = np.zeros(3_000, np.bool_)
    reference, window = draw(3_000, flags={"degraded": degraded}), draw(3_000, flags={"degraded": np.arange(3_000) < 900})
    window.numbers[:900] = 0  # what defaults look like

    verdicts = by_monitor(judge(reference, window, settings))

    assert verdicts["quality"].evidence["feature_1"] == "degraded"
    assert verdicts["features"].outcome is Outcome.PASS


def test_a_window_all_of_whose_rows_are_degraded_fails_instead_of_saying_too_few(draw, settings):
    reference = draw(1_000, flags={"degraded": np.zeros(1_000, np.bool_)})
    window = draw(1_000, flags={"degraded": np.ones(1_000, np.bool_)})
    (verdict,) = judge(reference, window, settings).verdicts
    assert verdict.outcome is Outcome.FAIL


def test_rare_categories_are_taken_together():
    # Both sides have 100 rows. Code 0 has 150 of 200, code 1 has 44, codes 2 and 3 have 3 each: half of 3 is below 5, so
    # they become one code with half of 6 = 3, still below 5: it joins code 1.
    reference = np.repeat([0, 1, 2, 3], [75, 22, 2, 1])
    window = np.repeat([0, 1, 2, 3], [75, 22, 1, 2])

    old, new, count = pool_rare(reference, window)

    assert count == 2
    assert np.bincount(old.astype(int)).tolist() == [75, 25]
    assert np.bincount(new.astype(int)).tolist() == [75, 25]


def test_frequent_categories_stay_apart_and_the_rare_ones_keep_a_code():
    # Codes 2, 3 and 4 have 4 of 200 rows each, 12 together: 6 are expected of either side, enough for a code.
    reference = np.repeat([0, 1, 2, 3, 4], [50, 44, 2, 2, 2])
    old, _, count = pool_rare(reference, reference)
    assert count == 3
    assert np.bincount(old.astype(int)).tolist() == [50, 44, 6]


def test_a_window_keeps_no_value_that_is_missing(draw, settings, rng):
    reference, window = draw(1_000), draw(1_000)
    window = replace(window, numbers=np.where(rng.random(window.numbers.shape) < 0.1, np.nan, window.numbers))
    for column in prepare(reference, window, settings, CHANCE).columns:
        assert np.isfinite(column.window).all()


def test_no_features_at_all_still_judge_the_score(settings, rng):
    at_us = np.zeros(1_000, np.int64)
    bare = [Sample(np.zeros((1_000, 0), np.float32), (), at_us, score=rng.random(1_000).astype(np.float32)) for _ in range(2)]
    verdicts = by_monitor(judge(*bare, settings))
    assert verdicts["score"].outcome is Outcome.PASS


def test_a_category_that_is_gone_is_told_beside_few_training_rows_and_a_great_window(draw, settings):
    # 60 rows of the reference, half of them basic; of 6,000 none is. Beside all of those 30 * 60 / 6,060 = 0.3 basic rows of
    # the reference would be expected, and basic would be taken for too rare; beside 240 of them 30 * 60 / 300 = 6.
    old = draw(60, categories={"plan": pa.array(["basic", "pro"] * 30)})
    new = draw(6_000, categories={"plan": pa.array(["pro"] * 6_000)})
    (column,) = [each for each in prepare(old, new, settings, CHANCE, least=50).columns if each.name == "plan"]
    assert (column.categories, len(column.reference), len(column.window)) == (2, 60, 240)
    assert compare_columns([column]).p_value[0] < 1e-9
