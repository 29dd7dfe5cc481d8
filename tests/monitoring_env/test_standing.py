"""Drift verdicts in the log of verdicts: what stands of a canary and of stable, before and after a promotion."""

from __future__ import annotations

import json

import numpy as np
import pytest
from serving import HOUR_US, MONDAY_US, S_US, draw, log_predictions, spread, write_version

from features.workspace import Workspace
from monitoring.drift.detector import Detector
from monitoring.drift.settings import DriftSettings
from monitoring.drift.watch import PredictionWatch
from monitoring.errors import TrafficError
from monitoring.monitor_settings import MonitorSettings
from monitoring.revisions import Revisions, read_revisions
from monitoring.verdict_log import read_history, read_standing
from monitoring.verdicts import Outcome, Severity
from plumb.monitor_set import Watched, make_monitors
from plumb.settings import Settings

SETTINGS = DriftSettings(joint_features=0, weeks=1, canary_window_s=600)
DAY_US = 24 * HOUR_US


@pytest.fixture
def workspace(tmp_path, rng):
    workspace = Workspace(tmp_path)
    write_version(workspace, 3, rng)
    write_version(workspace, 4, rng)
    return workspace


def say_what_is_stable(workspace, stable, canary=None):
    """The plane's document, as it keeps it."""
    predictor = {"model": {"storageUri": "pvc://plumb-models/churn/3"}} | ({"name": stable} if stable != "stable" else {})
    spec = {"predictor": predictor} | ({"canary": [{"predictor": {"name": canary}, "trafficPercent": 5}]} if canary else {})
    workspace.services().mkdir(parents=True, exist_ok=True)
    record = {"document": {"metadata": {"name": "churn"}, "spec": spec}, "applied": None}
    (workspace.services() / "churn.json").write_text(json.dumps(record))


def standing(workspace, now_us):
    """Outcome and severity by subject and monitor, as judged now."""
    return {
        (each.verdict.subject, each.verdict.monitor): (each.judged(now_us).outcome, each.judged(now_us).severity)
        for each in read_standing(workspace, now_us=now_us)
    }


def look(workspace, now_us, settings=SETTINGS):
    return list(PredictionWatch(workspace, "churn", settings).judge_due(now_us))


def test_a_canarys_own_drift_stands_to_roll_it_back_and_that_of_both_only_to_page(workspace, rng):
    say_what_is_stable(workspace, "stable", "canary-7")
    at_us, both = spread(MONDAY_US, 1, 6_000), [draw(rng, 6_000) for _ in range(2)]
    both[1]["sessions"] += 2
    for drawn in both:
        drawn["plan"] = np.full(6_000, "pro")
    log_predictions(workspace, 3, "stable", at_us, both[0])
    log_predictions(workspace, 4, "canary-7", at_us, both[1])

    now_us = MONDAY_US + HOUR_US + 10 * S_US
    look(workspace, now_us)

    found = standing(workspace, now_us)
    assert found["churn/canary-7", "drift.stable.features"] == (Outcome.FAIL, Severity.ROLL_BACK)
    assert found["churn/canary-7", "drift.training.features"] == (Outcome.FAIL, Severity.PAGE)
    assert found["churn/stable", "drift.training.features"] == (Outcome.FAIL, Severity.PAGE)
    (blame,) = [each.verdict for each in read_standing(workspace, subjects=["churn/canary-7"], now_us=now_us)
                if each.verdict.monitor == "drift.stable.features"]  # fmt: skip
    # The plan has moved for both alike, and beside stable only what the canary alone gets wrong is named.
    assert (blame.evidence["feature_1"], blame.evidence["drifted"]) == ("sessions", 1)


def test_a_promoted_canary_is_judged_as_stable_and_the_old_one_is_not_missed(workspace, rng):
    week_us = 7 * DAY_US
    log_predictions(workspace, 3, "stable", spread(MONDAY_US, 1, 1_500), draw(rng, 1_500))
    say_what_is_stable(workspace, "stable", "canary-7")
    began_us = MONDAY_US + week_us - HOUR_US
    for version, revision in ((3, "stable"), (4, "canary-7")):
        log_predictions(workspace, version, revision, spread(began_us, 1, 3_000), draw(rng, 3_000))
    watch = PredictionWatch(workspace, "churn", SETTINGS)
    promoted_us = began_us + HOUR_US + 10 * S_US
    assert {each.reference for each in watch.judge_due(promoted_us) if each.subject == "churn/canary-7"} == {
        "training", "stable"
    }  # fmt: skip

    say_what_is_stable(workspace, "canary-7")
    log_predictions(workspace, 4, "canary-7", spread(promoted_us, 2, 3_000), draw(rng, 3_000))
    found = list(watch.judge_due(promoted_us + HOUR_US))

    # The hour of the week before, when the revision called stable answered, is its reference.
    assert [(each.subject, each.reference, each.end_us - each.start_us) for each in found] == [
        ("churn/canary-7", "training", HOUR_US), ("churn/canary-7", "weeks", HOUR_US),
    ]  # fmt: skip
    assert {verdict.monitor: verdict.outcome for verdict in found[1].verdicts}["drift.weeks.features"] is Outcome.PASS
    for now_us in (promoted_us + HOUR_US, promoted_us + HOUR_US + 250 * S_US):
        stands = standing(workspace, now_us)
        assert {subject for subject, _ in stands} == {"churn/canary-7"}
        assert not any(monitor.startswith("drift.stable.") for _, monitor in stands)
    for day in range(1, 4):
        found = list(watch.judge_due(promoted_us + day * DAY_US))
        assert not [each for each in found if each.subject == "churn/stable"]
        assert not [subject for subject, _ in standing(workspace, promoted_us + day * DAY_US) if subject == "churn/stable"]


def test_a_monitor_that_looks_every_hour_is_not_blind_before_it_has_missed_three_looks(workspace, rng):
    log_predictions(workspace, 3, "stable", spread(MONDAY_US, 1, 600), draw(rng, 600))
    hourly = MonitorSettings(drift_s=3_600, drift=SETTINGS)
    site = Settings(workspace.root)
    monitors = make_monitors(site, Watched({"churn": "churn"}), hourly, lambda judged: None)
    (watch,) = [each for each in monitors if (each.name, each.subject) == ("drift", "churn")]
    now_us = MONDAY_US + HOUR_US + 10 * S_US
    list(watch.judge(now_us))

    for later_us, outcome in ((3 * HOUR_US, Outcome.PASS), (3 * HOUR_US + 1, Outcome.INCONCLUSIVE)):
        assert standing(workspace, now_us + later_us)["churn/stable", "drift.training.features"][0] is outcome
    # Looks that are as frequent as they are by default leave it at the five minutes that are set.
    assert SETTINGS.heard_every(30).heard_within_s == 300


def test_the_planes_document_says_what_is_stable_and_a_damaged_one_is_refused(workspace):
    say_what_is_stable(workspace, "canary-7")
    assert read_revisions(workspace, "churn") == Revisions(
        "canary-7", None, frozenset({"stable", "canary-7"}), are_known=True
    )  # fmt: skip
    (workspace.services() / "churn.json").write_text("{")
    with pytest.raises(TrafficError, match="^service's document cannot be read: [^\n]+$"):
        read_revisions(workspace, "churn")


def test_on_a_cluster_without_documents_the_revision_called_stable_is(tmp_path):
    known = read_revisions(Workspace(tmp_path), "churn")
    assert (known.was_stable("stable"), known.was_stable("canary"), known.is_gone("canary")) == (True, False, False)


def test_what_stands_goes_on_while_somebody_looks_and_is_blind_when_nobody_does(workspace, rng):
    say_what_is_stable(workspace, "stable")
    log_predictions(workspace, 3, "stable", spread(MONDAY_US, 1, 1_500), draw(rng, 1_500))
    at_us = MONDAY_US + HOUR_US + 10 * S_US
    look(workspace, at_us)
    features = ("churn/stable", "drift.training.features")
    # Each look is that of a process that has just been started.
    for now_us in range(at_us, at_us + 1_800 * S_US, 250 * S_US):
        assert look(workspace, now_us + 1) == [] or now_us == at_us
        assert standing(workspace, now_us + 250 * S_US)[features] == (Outcome.PASS, Severity.PAGE)
    assert standing(workspace, at_us + 3_000 * S_US)[features] == (Outcome.INCONCLUSIVE, Severity.PAGE)


def test_what_the_newest_window_does_not_say_stands_no_more(workspace, rng):
    say_what_is_stable(workspace, "stable")
    log_predictions(workspace, 3, "stable", spread(MONDAY_US, 1, 1_500), draw(rng, 1_500))
    log_predictions(workspace, 3, "stable", spread(MONDAY_US + HOUR_US, 1, 50), draw(rng, 50))
    settings = DriftSettings(joint_features=0, weeks=0)
    look(workspace, MONDAY_US + HOUR_US + 10 * S_US, settings)
    now_us = MONDAY_US + 26 * HOUR_US
    look(workspace, now_us, settings)
    assert standing(workspace, now_us) == {
        ("churn/stable", "drift.training.quality"): (Outcome.INCONCLUSIVE, Severity.PAGE),
    }  # fmt: skip
    assert [verdict.outcome for verdict in read_history(workspace, since_us=0)][-1] is Outcome.INCONCLUSIVE


def test_a_canary_that_was_taken_off_stands_no_more_and_its_last_rows_accuse_nobody(workspace, rng):
    say_what_is_stable(workspace, "stable", "canary-7")
    at_us = spread(MONDAY_US, 1, 6_000)
    shifted = draw(rng, 6_000)
    shifted["sessions"] += 2
    log_predictions(workspace, 3, "stable", at_us, draw(rng, 6_000))
    log_predictions(workspace, 4, "canary-7", at_us, shifted)
    watch = PredictionWatch(workspace, "churn", SETTINGS)
    now_us = MONDAY_US + 620 * S_US
    list(watch.judge_due(now_us))
    assert standing(workspace, now_us)["churn/canary-7", "drift.stable.features"] == (Outcome.FAIL, Severity.ROLL_BACK)

    say_what_is_stable(workspace, "stable")
    later_us = MONDAY_US + 2 * HOUR_US
    assert [each for each in watch.judge_due(later_us) if each.subject == "churn/canary-7"]
    assert {subject for subject, _ in standing(workspace, later_us)} == {"churn/stable"}
    assert [each for each in read_history(workspace, since_us=0, subjects=["churn/canary-7"]) if each.outcome is Outcome.FAIL]


def test_the_detectors_verdicts_stand_beside_the_watchs_under_their_sides_name(workspace, rng):
    say_what_is_stable(workspace, "canary-7")
    settings = DriftSettings(least_rows=100, most_rows=400, shortest_window_s=0, joint_features=0)
    detector = Detector(workspace, settings)
    detector.tick(MONDAY_US)
    for number in range(40):
        scores = [{"entity_id": f"u{number * 10 + n}", "score": float(rng.random()), "cold": False} for n in range(10)]
        body = json.dumps({"predictions": scores, "model_version": "3"}).encode()
        headers = {"ce-type": "org.kubeflow.serving.inference.response", "ce-id": f"e{number}",
                   "ce-inferenceservicename": "churn", "ce-endpoint": "canary-7"}  # fmt: skip
        taken = detector.receive(headers, body, MONDAY_US + number * S_US)
    # It is stable, so there is nothing to hold it beside.
    assert [judged.reference for judged in taken.judged] == ["training"]
    now_us = MONDAY_US + 40 * S_US
    names = {("churn/canary-7", f"drift.training.{family}.replies") for family in ("quality", "score")}
    assert set(standing(workspace, now_us)) == names
    for seconds in range(200, 1_000, 200):
        detector.tick(now_us + seconds * S_US)
    assert set(standing(workspace, now_us + 1_000 * S_US).values()) == {(Outcome.PASS, Severity.PAGE)}
    detector.close()
