"""Drift that opens a training run: as a process of its own here, or on a cluster; once, whoever looks."""

from __future__ import annotations

import json
import time
from pathlib import Path

from services.kfp import State, run_kfp_server
from typer.testing import CliRunner

from features.workspace import Workspace
from monitoring.retraining import list_retrainings
from monitoring.verdict_log import read_standing, record_verdicts
from monitoring.verdicts import Outcome, Severity, Verdict
from pipelines.cluster import Address
from pipelines.records import RunRecord, list_records, write_record
from plumb import app
from plumb.instants import now_us, show_instant
from plumb.retraining import Course, Retrainer
from plumb.settings import Settings

S = 1_000_000
TEXT = "1 of 4 features drifted: hours (effect 0.90)"


def drift(workspace: Workspace, outcome: Outcome, at_us: int, family: str = "features") -> None:
    """A drift verdict on churn's stable revision, which has no document: so it is called stable."""
    verdict = Verdict(
        f"drift.training.{family}", "churn/stable", outcome, Severity.PAGE, {"model": "churn"}, TEXT, at_us
    )  # fmt: skip
    record_verdicts(workspace, [verdict], valid_for_s=3_600, now_us=at_us)


def has_run(workspace: Workspace) -> RunRecord:
    """An earlier run of churn that registered a version."""
    record = RunRecord(
        "20260101T000000.000000Z-churn", "training", "churn", "2026-01-01T00:00:00Z", {"seed": 7, "known_at_us": 5}, {}, "h",
        status="succeeded", finished_at="2026-01-01T00:10:00Z",
    )  # fmt: skip
    write_record(workspace.runs() / record.run_id, record)
    return record


def test_a_run_is_really_started_once_and_one_that_fails_is_a_verdict(tmp_path: Path) -> None:
    settings, lines = Settings(tmp_path), list[str]()
    workspace = settings.workspace
    earlier, at_us = has_run(workspace), now_us()
    drift(workspace, Outcome.FAIL, at_us)

    # Each look is that of a controller that has just taken over.
    controllers = [Retrainer(settings, Course(), lines.append) for _ in range(3)]
    for second, controller in enumerate(controllers):
        controller.look(at_us + second * S)
    (opened,) = list_retrainings(workspace)
    assert (opened.status, opened.like_run, opened.parameters) == (
        "under way", earlier.run_id, {"model": "churn", "seed": 7, "known_at_us": at_us, "may_promote": False},
    )  # fmt: skip
    assert opened.why == f"drift.training.features of churn/stable: {TEXT}"
    assert [line.partition(",")[0] for line in lines][1:] == ["retraining 1 of churn is started"]

    deadline = time.monotonic() + 120
    while (done := list_retrainings(workspace)[0]).finished_at_us is None:
        assert time.monotonic() < deadline, lines
        time.sleep(0.5)
        controllers[2].look(now_us())

    (record,) = [each for each in list_records(workspace) if each.run_id != earlier.run_id]
    assert (record.parameters["known_at_us"], record.parameters["seed"], record.status) == (at_us, 7, "failed")
    assert record.parameters["may_promote"] is False
    assert (done.status, done.run_id, done.result) == ("failed", record.run_id, record.error)
    (standing,) = read_standing(workspace, subjects=["run:training"], now_us=now_us())
    assert (standing.verdict.outcome, standing.verdict.severity) == (Outcome.FAIL, Severity.PAGE)
    assert record.error in standing.verdict.text
    said = CliRunner().invoke(app.root, ["--workspace", str(tmp_path), "models", "retrainings", "--json"])
    (shown,) = json.loads(said.stdout)
    assert (shown["opened_at"], shown["status"], shown["verdicts"][0]["text"]) == (show_instant(at_us), "failed", TEXT)
    assert (
        TEXT.partition(":")[0] in CliRunner().invoke(app.root, ["--workspace", str(tmp_path), "models", "retrainings"]).stdout
    )


def test_bad_data_are_not_learned(tmp_path: Path) -> None:
    settings, lines, at_us = Settings(tmp_path), list[str](), now_us()
    drift(settings.workspace, Outcome.FAIL, at_us)
    drift(settings.workspace, Outcome.FAIL, at_us, "quality")
    retrainer = Retrainer(settings, Course(), lines.append)
    for second in range(0, 60, 20):
        retrainer.look(at_us + second * S)
    assert list_retrainings(settings.workspace) == []
    assert lines == [f"churn drifts, but is not trained again on bad data: {TEXT}"]


def test_a_cluster_gets_one_run_once_it_answers_and_the_next_episode_another(tmp_path: Path) -> None:
    settings, lines, at_us, state = Settings(tmp_path), list[str](), now_us(), State()
    workspace = settings.workspace
    has_run(workspace)
    drift(workspace, Outcome.FAIL, at_us)
    with run_kfp_server(state) as url:
        state.failures["POST", "/runs"] = 503
        retrainer = Retrainer(settings, Course(cool_down_s=60, cluster=Address(url)), lines.append)
        retrainer.look(at_us)
        assert (list_retrainings(workspace)[0].status, len(lines)) == ("opened", 2)
        state.failures.clear()
        for second in range(10, 40, 10):
            retrainer.look(at_us + second * S)
        (sent,) = state.runs
        assert sent["runtime_config"]["parameters"]["known_at_us"] == at_us
        assert sent["runtime_config"]["parameters"]["seed"] == 7
        (done,) = list_retrainings(workspace)
        assert (done.status, done.place, done.run_id) == ("submitted", "cluster", sent["run_id"])

        drift(workspace, Outcome.PASS, at_us + 50 * S)
        retrainer.look(at_us + 50 * S)
        drift(workspace, Outcome.FAIL, at_us + 55 * S)
        retrainer.look(at_us + 57 * S)
        assert len(state.runs) == 1
        retrainer.look(at_us + 65 * S)
        assert len(state.runs) == 2
