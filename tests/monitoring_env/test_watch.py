"""Windows over the prediction log, judged beside training, earlier weeks and stable."""

from __future__ import annotations

import json

import numpy as np
import pytest
from serving import HOUR_US, MONDAY_US, S_US, draw, log_predictions, spread, write_version

from features.workspace import Workspace
from monitoring.drift.predictions import read_names
from monitoring.drift.records import read_judged
from monitoring.drift.settings import DriftSettings
from monitoring.drift.watch import PredictionWatch
from monitoring.errors import DriftError
from monitoring.verdicts import Outcome, Severity

SETTINGS = DriftSettings(joint_features=0, weeks=0, canary_window_s=3_600)
GRACE_US = 10 * S_US


@pytest.fixture
def workspace(tmp_path, rng):
    workspace = Workspace(tmp_path)
    write_version(workspace, 3, rng)
    write_version(workspace, 4, rng)
    return workspace


def judge(workspace, at_us, settings=SETTINGS):
    return list(PredictionWatch(workspace, "churn", settings).judge_due(at_us))


def outcomes(judged):
    return {verdict.monitor: verdict.outcome for verdict in judged.verdicts}


def test_an_hour_as_in_training_passes_every_test_and_is_judged_once(workspace, rng):
    log_predictions(workspace, 3, "stable", spread(MONDAY_US, 1, 1_500), draw(rng, 1_500))
    end_us = MONDAY_US + HOUR_US

    assert judge(workspace, end_us + GRACE_US - 1) == []
    (judged,) = judge(workspace, end_us + GRACE_US)

    assert outcomes(judged) == {
        "drift.training.quality": Outcome.PASS, "drift.training.features": Outcome.PASS, "drift.training.score": Outcome.PASS,
    }  # fmt: skip
    assert (judged.subject, judged.start_us, judged.end_us, judged.rows) == ("churn/stable", MONDAY_US, end_us, 1_500)
    assert {feature["name"] for feature in judged.features} == {"sessions", "since_s", "plan"}
    assert judge(workspace, end_us + 2 * GRACE_US) == []
    assert [each.id for each in read_judged(workspace.drift_verdicts())] == [judged.id]


def test_what_moved_is_named_by_the_features_name_and_the_rest_is_not(workspace, rng):
    drawn = draw(rng, 1_500)
    drawn["since_s"] += 2
    log_predictions(workspace, 3, "stable", spread(MONDAY_US, 1, 1_500), drawn)

    (judged,) = judge(workspace, MONDAY_US + 2 * HOUR_US)

    (verdict,) = [each for each in judged.verdicts if each.monitor == "drift.training.features"]
    assert verdict.outcome is Outcome.FAIL
    assert verdict.severity is Severity.PAGE
    assert verdict.evidence["feature_1"] == "since_s"
    assert verdict.evidence["drifted"] == 1
    # Missing values are as many as in training, so the shift is found among the present ones without a finding.
    assert outcomes(judged)["drift.training.quality"] is Outcome.PASS


def test_a_canary_from_a_shifted_feature_is_told_from_stable_and_input_drift_of_both_is_not(workspace, rng):
    at_us = spread(MONDAY_US, 1, 1_500)
    shifted = draw(rng, 1_500)
    shifted["sessions"] *= 3
    log_predictions(workspace, 3, "stable", at_us, draw(rng, 1_500))
    log_predictions(workspace, 4, "canary", at_us, shifted)
    both = [draw(rng, 1_500) for _ in range(2)]
    for drawn in both:
        drawn["plan"] = np.full(1_500, "pro")
    log_predictions(workspace, 3, "stable", at_us + HOUR_US, both[0])
    log_predictions(workspace, 4, "canary", at_us + HOUR_US, both[1])

    found = {(each.subject, each.reference, each.start_us): each for each in judge(workspace, MONDAY_US + 3 * HOUR_US)}

    beside = found["churn/canary", "stable", MONDAY_US]
    (verdict,) = [each for each in beside.verdicts if each.monitor == "drift.stable.features"]
    assert (verdict.outcome, verdict.severity) == (Outcome.FAIL, Severity.ROLL_BACK)
    assert verdict.evidence["feature_1"] == "sessions"
    assert outcomes(found["churn/stable", "training", MONDAY_US])["drift.training.features"] is Outcome.PASS
    later = MONDAY_US + HOUR_US
    assert outcomes(found["churn/canary", "stable", later])["drift.stable.features"] is Outcome.PASS
    for subject in ("churn/stable", "churn/canary"):
        paged = [each for each in found[subject, "training", later].verdicts if each.monitor == "drift.training.features"]
        assert (paged[0].outcome, paged[0].severity) == (Outcome.FAIL, Severity.PAGE)
        assert paged[0].evidence["feature_1"] == "plan"


def test_few_rows_wait_for_more_and_a_day_of_too_few_is_inconclusive(workspace, rng):
    log_predictions(workspace, 3, "stable", spread(MONDAY_US, 3, 300), draw(rng, 300))
    assert judge(workspace, MONDAY_US + HOUR_US + GRACE_US) == []
    (judged,) = judge(workspace, MONDAY_US + 3 * HOUR_US + GRACE_US)
    assert (judged.start_us, judged.end_us) == (MONDAY_US, MONDAY_US + 2 * HOUR_US)
    # 100 rows are left in the third hour: a day after the last window's end they are all there is.
    assert judge(workspace, MONDAY_US + 24 * HOUR_US) == []
    (late,) = judge(workspace, MONDAY_US + 26 * HOUR_US + GRACE_US)
    assert outcomes(late)["drift.training.quality"] is Outcome.INCONCLUSIVE
    assert "too few rows: 100" in late.verdicts[0].text


def test_rows_of_one_user_count_once(workspace, rng):
    entities = np.arange(1_500) % 150
    log_predictions(workspace, 3, "stable", spread(MONDAY_US, 1, 1_500), draw(rng, 1_500), entities=entities)
    assert judge(workspace, MONDAY_US + 2 * HOUR_US) == []


def test_earlier_weeks_same_hours_are_a_reference_and_a_young_log_only_says_so(workspace, rng):
    settings = DriftSettings(joint_features=0, weeks=2)
    night = draw(rng, 1_000)
    night["sessions"] += 3  # it is like that every Monday at midnight, whatever training rows say
    for week in range(2):
        at_us = spread(MONDAY_US + week * 7 * 24 * HOUR_US, 1, 1_000)
        log_predictions(workspace, 3, "stable", at_us, {name: np.roll(values, week) for name, values in night.items()})

    found = {
        (each.reference, each.start_us): each
        for each in judge(workspace, MONDAY_US + 8 * 24 * HOUR_US, settings)
    }  # fmt: skip

    second = MONDAY_US + 7 * 24 * HOUR_US
    assert outcomes(found["training", second])["drift.training.features"] is Outcome.FAIL
    assert outcomes(found["weeks", second])["drift.weeks.features"] is Outcome.PASS
    (young,) = found["weeks", MONDAY_US].verdicts
    assert (young.outcome, young.severity) == (Outcome.INCONCLUSIVE, Severity.INFO)


def test_a_revision_that_answers_no_more_is_said_to_be_blind_once(workspace, rng):
    log_predictions(workspace, 3, "stable", spread(MONDAY_US, 1, 1_500), draw(rng, 1_500))
    watch = PredictionWatch(workspace, "churn", SETTINGS)
    day_us = 24 * HOUR_US
    found = [each for day in range(1, 5) for each in watch.judge_due(MONDAY_US + day * day_us + 2 * HOUR_US)]
    assert [(each.start_us, each.rows) for each in found] == [(MONDAY_US, 1_500), (MONDAY_US + HOUR_US, 0)]
    assert outcomes(found[1])["drift.training.quality"] is Outcome.INCONCLUSIVE
    assert judge(workspace, MONDAY_US + 5 * day_us) == []

    log_predictions(workspace, 3, "stable", spread(MONDAY_US + 6 * day_us, 1, 1_500), draw(rng, 1_500))
    (again,) = judge(workspace, MONDAY_US + 6 * day_us + 2 * HOUR_US)
    assert again.start_us == MONDAY_US + 6 * day_us


def test_a_version_that_another_took_the_place_of_is_no_blindness_nor_a_canary_that_is_gone(workspace, rng):
    day_us = 24 * HOUR_US
    log_predictions(workspace, 3, "stable", spread(MONDAY_US, 1, 1_500), draw(rng, 1_500))
    log_predictions(workspace, 4, "canary", spread(MONDAY_US, 1, 1_500), draw(rng, 1_500))
    log_predictions(workspace, 4, "stable", spread(MONDAY_US + HOUR_US, 1, 1_500), draw(rng, 1_500))
    watch = PredictionWatch(workspace, "churn", SETTINGS)
    found = [each for day in range(1, 4) for each in watch.judge_due(MONDAY_US + day * day_us + 2 * HOUR_US)]
    blind = [(each.subject, each.version) for each in found if not each.rows]
    assert blind == [("churn/stable", "4")]


def test_a_canary_is_judged_every_few_minutes(workspace, rng):
    settings = DriftSettings(joint_features=0, weeks=0)
    at_us = spread(MONDAY_US, 1, 6_000)
    log_predictions(workspace, 3, "stable", at_us, draw(rng, 6_000))
    log_predictions(workspace, 4, "canary", at_us, draw(rng, 6_000))
    watch = PredictionWatch(workspace, "churn", settings)
    first = list(watch.judge_due(MONDAY_US + 300 * S_US + GRACE_US))
    assert [(each.subject, each.reference, each.rows) for each in first] == [
        ("churn/canary", "training", 500), ("churn/canary", "stable", 500),
    ]  # fmt: skip


def test_a_process_killed_between_verdict_and_progress_writes_the_same_verdict_again(workspace, rng):
    log_predictions(workspace, 3, "stable", spread(MONDAY_US, 1, 1_500), draw(rng, 1_500))
    judge(workspace, MONDAY_US + 2 * HOUR_US)
    (path,) = workspace.drift_verdicts().glob("*.json")
    before = path.read_bytes()
    (workspace.drift_verdicts() / "progress" / "churn.json").unlink()

    judge(workspace, MONDAY_US + 2 * HOUR_US)

    assert [each.read_bytes() for each in workspace.drift_verdicts().glob("*.json")] == [before]


def test_degraded_rows_are_left_out_of_the_tests(workspace, rng):
    drawn, degraded = draw(rng, 1_500), np.arange(1_500) % 3 == 0
    drawn["sessions"][degraded] = 0
    log_predictions(workspace, 3, "stable", spread(MONDAY_US, 1, 1_500), drawn, degraded=degraded)
    (judged,) = judge(workspace, MONDAY_US + 2 * HOUR_US)
    assert outcomes(judged)["drift.training.features"] is Outcome.PASS
    assert judged.verdicts[0].evidence["rows"] == 1_000


def test_a_judged_window_is_read_as_it_was_written(workspace, rng):
    log_predictions(workspace, 3, "stable", spread(MONDAY_US, 1, 1_500), draw(rng, 1_500))
    (judged,) = judge(workspace, MONDAY_US + 2 * HOUR_US)
    (read,) = read_judged(workspace.drift_verdicts())
    assert json.dumps(read.describe(), sort_keys=True) == json.dumps(judged.describe(), sort_keys=True)
    assert list(read_judged(workspace.drift_verdicts(), since_us=judged.end_us + 1)) == []


def test_a_version_without_names_is_told_in_one_line(tmp_path):
    with pytest.raises(DriftError, match=r"^model version does not say what its features are called: [^\n]+$"):
        read_names(tmp_path)
