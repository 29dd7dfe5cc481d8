"""Which drift opens a training run, and that an episode opens one, over SQLite and PostgreSQL alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DatabaseError

from features.control_database import control_url as url_of
from features.workspace import Workspace
from monitoring.retraining import (
    FAILED,
    ServingDrift,
    Wanted,
    end_episode,
    find_drift,
    judge_retrainings,
    list_retrainings,
    open_retraining,
    record_progress,
)
from monitoring.revisions import Revisions
from monitoring.verdict_log import Standing
from monitoring.verdicts import Outcome, Severity, Verdict

S = 1_000_000
NOW_US = 1_700_000_000 * S
HOUR_S = 3_600
REVISIONS = Revisions("canary-3", "canary-7", frozenset({"stable", "canary-3"}), are_known=True)
WANTED = Wanted("training", {"model": "churn", "seed": 7, "known_at_us": NOW_US}, "run-1")


@pytest.fixture
def workspace(tmp_path: Path, control_url: str) -> Workspace:
    return Workspace(tmp_path, control_url)


def stands(monitor: str, revision: str, outcome: Outcome, *, since_s: int = 0, severity: Severity = Severity.PAGE) -> Standing:
    verdict = Verdict(monitor, f"churn/{revision}", outcome, severity, {"model": "churn"}, f"said by {monitor}", NOW_US)
    return Standing(verdict, NOW_US - since_s * S, NOW_US + 300 * S, NOW_US)


def find(*standing: Standing, now_us: int = NOW_US) -> tuple[ServingDrift, ...]:
    return find_drift(standing, lambda service: REVISIONS, now_us)


def test_drift_of_what_is_stable_now_is_serving_drift_and_features_are_named_first() -> None:
    (drift,) = find(
        stands("drift.training.score", "canary-3", Outcome.FAIL, since_s=50),
        stands("drift.training.features", "canary-3", Outcome.FAIL, since_s=50),
        stands("drift.weeks.features.requests", "canary-3", Outcome.FAIL, since_s=20),
        stands("drift.training.joint", "canary-3", Outcome.PASS),
        stands("drift.training.features", "canary-7", Outcome.FAIL),
    )
    assert [verdict.monitor for verdict in drift.failing] == [
        "drift.training.features", "drift.training.score", "drift.weeks.features.requests",
    ]  # fmt: skip
    assert (drift.model, drift.service, drift.since_us) == ("churn", "churn", NOW_US - 50 * S)
    assert not drift.is_over


@pytest.mark.parametrize(
    "standing",
    [
        stands("drift.training.features", "canary-7", Outcome.FAIL),
        stands("drift.stable.features", "canary-7", Outcome.FAIL, severity=Severity.ROLL_BACK),
        stands("drift.training.features", "stable", Outcome.FAIL),
        stands("freshness", "canary-3", Outcome.FAIL),
    ],
)
def test_what_a_canary_or_a_former_revision_does_is_no_serving_drift(standing: Standing) -> None:
    assert find(standing) == ()


def test_bad_data_are_told_apart_from_drift() -> None:
    (drift,) = find(
        stands("drift.training.features", "canary-3", Outcome.FAIL), stands("drift.training.quality", "canary-3", Outcome.FAIL)
    )
    assert [verdict.monitor for verdict in drift.faulty] == ["drift.training.quality"]


def test_drift_is_over_when_all_have_passed_and_not_when_nobody_looks() -> None:
    passed = stands("drift.training.features", "canary-3", Outcome.PASS)
    young = stands("drift.weeks.quality", "canary-3", Outcome.INCONCLUSIVE, severity=Severity.INFO)
    assert find(passed, young)[0].is_over
    assert not find(passed, now_us=NOW_US + 301 * S)[0].is_over
    assert not find(passed, stands("drift.training.score", "canary-3", Outcome.INCONCLUSIVE))[0].is_over


def test_an_episode_opens_one_run_however_many_windows_drift_and_the_next_waits_for_the_cool_down(workspace: Workspace) -> None:
    (drift,) = find(stands("drift.training.features", "canary-3", Outcome.FAIL, since_s=50))

    def open_at(hours: float) -> int | None:
        made = open_retraining(workspace, drift, WANTED, 24 * HOUR_S, NOW_US + round(hours * HOUR_S * S))
        return made.id if made else None

    assert open_at(0) == 1
    assert [open_at(hours) for hours in (1, 2, 30)] == [None] * 3
    record_progress(workspace, 1, "succeeded", run_id="run-2", finished_at_us=NOW_US + HOUR_S * S)
    assert open_at(48) is None  # the drift goes on, and a candidate waits for its rollout
    end_episode(workspace, "churn", NOW_US + 3 * HOUR_S * S)
    end_episode(workspace, "churn", NOW_US + 4 * HOUR_S * S)
    assert open_at(23.9) is None
    assert open_at(24) == 2
    (second, first) = list_retrainings(workspace, "churn")
    assert (first.status, first.run_id, first.like_run, first.episode_ended_at_us) == (
        "succeeded", "run-2", "run-1", NOW_US + 3 * HOUR_S * S,
    )  # fmt: skip
    assert (second.why, second.who) == (
        "drift.training.features of churn/canary-3: said by drift.training.features", "controller",
    )  # fmt: skip
    assert second.verdicts[0]["monitor"] == "drift.training.features"
    assert second.parameters == WANTED.parameters
    assert list_retrainings(workspace, "redemption") == []


def test_another_model_is_not_held_up_and_no_run_is_opened_beside_one(workspace: Workspace) -> None:
    (drift,) = find(stands("drift.training.features", "canary-3", Outcome.FAIL))
    assert open_retraining(workspace, drift, WANTED, 0, NOW_US)
    assert open_retraining(workspace, replace(drift, model="redemption"), WANTED, 0, NOW_US)
    end_episode(workspace, "churn", NOW_US + S)
    assert open_retraining(workspace, drift, WANTED, 0, NOW_US + 2 * S) is None
    record_progress(workspace, 1, FAILED, result="no log", finished_at_us=NOW_US + 3 * S)
    record_progress(workspace, 1, "succeeded", finished_at_us=NOW_US + 9 * S)  # what has ended, has ended
    assert open_retraining(workspace, drift, WANTED, 0, NOW_US + 4 * S)
    assert [each.status for each in list_retrainings(workspace, "churn")] == ["opened", FAILED]


def test_why_a_run_was_opened_never_changes(workspace: Workspace) -> None:
    (drift,) = find(stands("drift.training.features", "canary-3", Outcome.FAIL))
    open_retraining(workspace, drift, WANTED, 0, NOW_US)
    engine = create_engine(url_of(workspace))
    for statement in ("UPDATE retrainings SET why = 'none'", "DELETE FROM retrainings"):
        with pytest.raises(DatabaseError, match="history and never changes"), engine.begin() as connection:
            connection.execute(text(statement))
    engine.dispose()


def test_a_run_that_failed_calls_somebody_until_a_later_one_ended_well(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    (drift,) = find(stands("drift.training.features", "canary-3", Outcome.FAIL))
    open_retraining(workspace, drift, WANTED, 0, NOW_US)
    (under_way,) = judge_retrainings(list_retrainings(workspace), lambda one: False, NOW_US)
    assert under_way.outcome is Outcome.PASS
    record_progress(workspace, 1, FAILED, run_id="run-2", result="log is empty", finished_at_us=NOW_US)
    (failed,) = judge_retrainings(list_retrainings(workspace), lambda one: False, NOW_US)
    assert (failed.monitor, failed.subject, failed.outcome, failed.severity) == (
        "retraining.churn", "run:training", Outcome.FAIL, Severity.PAGE,
    )  # fmt: skip
    assert failed.text == "retraining 1 of churn: failed, log is empty"
    (mended,) = judge_retrainings(list_retrainings(workspace), lambda one: True, NOW_US)
    assert mended.outcome is Outcome.PASS
