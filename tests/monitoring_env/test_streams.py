"""Value by value, and labels as they mature: each value once whatever is killed, and the same answers as alibi-detect's own."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from alibi_detect.cd import FETDrift
from serving import HOUR_US, MONDAY_US, draw, log_predictions, spread, write_version

from features import served_labels
from features.rows import SERVED_LABEL, TIME
from features.workspace import Workspace
from monitoring.drift.judge import Window, judge_window
from monitoring.drift.labelled import MONITOR, judge_matured_labels
from monitoring.drift.online import OnlineSettings
from monitoring.drift.reference import WEEKS, Reference
from monitoring.drift.sample import concatenate
from monitoring.drift.settings import DriftSettings
from monitoring.drift.streams import OnlineDrift
from monitoring.verdicts import Outcome, Severity

DAY_US = 24 * HOUR_US
ONLINE = OnlineSettings(values_between_alarms=200, windows=(20, 40), simulations=400)


@pytest.fixture
def workspace(tmp_path, rng):
    workspace = Workspace(tmp_path)
    write_version(workspace, 3, rng)
    return workspace


def label(workspace, labels, matured_us, known_us, revision="stable", version=3):
    """Served labels that matured together and became known together."""
    rows = len(labels)
    fixed = {"model": "churn", "model_version": version, "revision": revision, "score": 0.1}
    times = {"answered_at": matured_us - DAY_US, "now": matured_us - DAY_US, "matured_at": matured_us, "known_at": known_us}
    columns = {name: pa.array([value] * rows) for name, value in fixed.items()}
    columns |= {name: pa.array([value] * rows).cast(TIME) for name, value in times.items()}
    columns |= {name: pa.array([f"{known_us}-{number}" for number in range(rows)]) for name in ("request_id", "entity_id")}
    columns["label"] = pa.array(np.asarray(labels).astype(np.int8))
    table = pa.table([columns[field.name].cast(field.type) for field in SERVED_LABEL], schema=SERVED_LABEL)
    folder = workspace.served_labels("churn")
    with served_labels.writing(folder):
        served_labels.append(folder, table, {})


def test_labels_that_matured_are_held_against_training_by_fishers_test_and_a_fallen_rate_pages(workspace, rng):
    # Training has 400 positives of 4,000. Of 3,000 labels that matured on Monday 120 are: 4 % after 10 %.
    labels = rng.permutation(np.arange(3_000) < 120)
    label(workspace, labels, MONDAY_US + HOUR_US, MONDAY_US + 2 * HOUR_US)
    judge = lambda at_us: list(  # noqa: E731
        judge_matured_labels(workspace, "churn", "churn", DriftSettings(), known_at_us=at_us, horizon_us=DAY_US)
    )
    assert judge(MONDAY_US + 23 * HOUR_US) == []  # the day is not over
    (verdict,) = judge(MONDAY_US + 30 * HOUR_US)
    assert (verdict.monitor, verdict.subject, verdict.outcome) == (MONITOR, "churn/stable", Outcome.FAIL)
    assert (verdict.severity, verdict.at_us) == (Severity.PAGE, MONDAY_US + DAY_US)
    direct = FETDrift((np.arange(4_000) < 400).astype(int).reshape(-1, 1), p_val=0.05, alternative="two-sided")
    found = direct.predict(labels.astype(int).reshape(-1, 1), drift_type="feature")["data"]
    assert verdict.evidence["p_value"] == found["p_val"][0]
    assert judge(MONDAY_US + 40 * HOUR_US) == [verdict]


def test_values_are_watched_once_each_and_a_killed_process_changes_nothing(workspace, rng):
    def say(drift, at_us):
        return [(each.monitor, each.outcome, dict(each.evidence)) for each in drift.judge(at_us)]

    def serve(hour, rows):
        drawn = draw(rng, rows)
        drawn["score"] = (drawn["score"] ** 4).astype(np.float32)  # training's are uniform
        log_predictions(workspace, 3, "stable", spread(MONDAY_US + hour * HOUR_US, 1, rows), drawn)

    serve(0, 100)
    first = OnlineDrift(workspace, "churn", "churn", ONLINE)
    assert say(first, MONDAY_US + HOUR_US) == []  # it begins with what comes from now on
    serve(1, 30)
    label(workspace, np.zeros(80, bool), MONDAY_US, MONDAY_US + HOUR_US + 1)
    (score, fall, rise) = say(first, MONDAY_US + 2 * HOUR_US)
    assert (score[2]["values"], fall[2]["values"], fall[1], rise[1]) == (30, 80, Outcome.FAIL, Outcome.PASS)
    kept = (workspace.drift_verdicts() / "online" / "churn.json").read_text()
    serve(2, 60)
    lost = say(OnlineDrift(workspace, "churn", "churn", ONLINE), MONDAY_US + 3 * HOUR_US)
    assert lost[0][1] is Outcome.FAIL
    # Killed after all was taken in and before the file was replaced: the next process finds the file of before.
    (workspace.drift_verdicts() / "online" / "churn.json").write_text(kept)
    again = OnlineDrift(workspace, "churn", "churn", ONLINE)
    assert say(again, MONDAY_US + 3 * HOUR_US) == lost
    assert lost[0][2]["values"] == 90
    assert say(again, MONDAY_US + 3 * HOUR_US + 1) == lost
    assert json.loads((workspace.drift_verdicts() / "online" / "churn.json").read_text())["version"] == 3


def test_a_difference_from_earlier_weeks_is_shown_and_pages_only_once_all_weeks_have_passed(draw):
    window_sample = draw(400)
    at_us = MONDAY_US + np.arange(400)
    window = Window("churn/stable", MONDAY_US, MONDAY_US + HOUR_US, replace(window_sample, at_us=at_us), 400)
    for weeks, severity in ((1, Severity.INFO), (3, Severity.INFO), (4, Severity.PAGE)):
        parts = [replace(draw(400), at_us=at_us - week * 7 * DAY_US) for week in range(1, weeks + 1)]
        moved = [replace(part, numbers=part.numbers + 1) for part in parts]
        found = judge_window(window, Reference(WEEKS, concatenate(moved)), DriftSettings(joint_features=0))
        (verdict,) = [each for each in found.verdicts if each.monitor == "drift.weeks.features"]
        assert (verdict.outcome, verdict.severity, verdict.evidence["weeks"]) == (Outcome.FAIL, severity, weeks)
