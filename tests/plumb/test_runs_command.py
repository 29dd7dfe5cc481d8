"""``plumb runs``: what a run did, and where its report lies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from features.workspace import Workspace
from models.errors import SpecError, TrainingError
from pipelines.errors import RunNotFound
from pipelines.records import RunRecord, StepRecord, list_records, write_record
from pipelines.reports import PAGE, REPORT_FILE, keep_report
from plumb import app
from plumb.pipelines import launch

STARTED = RunRecord(
    run_id="20260101T000000.000000Z-churn", pipeline="training", model="churn", started_at="2026-01-01T00:00:00Z",
    parameters={"seed": 3}, code={"package": "0.1.0", "git_sha": "abc", "git_dirty": True}, pipeline_hash="ab" * 32,
    data={"catalog": "subscription", "events/user": 4, "known_at_us": 1_767_225_600_000_000},
)  # fmt: skip


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def end(workspace: Workspace, record: RunRecord) -> Path:
    """Write a record and keep its report, as the end of a run does; returns the run's folder."""
    folder = workspace.runs() / record.run_id
    write_record(folder, record)
    keep_report(record, folder)
    return folder


def call(workspace: Workspace, *arguments: str) -> str:
    done = CliRunner().invoke(app.root, ["--workspace", str(workspace.root), "runs", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_failed_run_has_a_report_from_its_record_alone(workspace: Workspace) -> None:
    steps = (
        StepRecord("training-rows", "failed", 1.5, 2, "EventLogError: table cannot be read"),
        StepRecord("train", "skipped"),
    )
    folder = end(workspace, replace(STARTED, status="failed", error="pipeline step failed: training-rows", steps=steps))
    html = (folder / REPORT_FILE).read_text(encoding="utf-8")
    for text in (
        "✕ Failed",
        "EventLogError: table cannot be read",
        "Delta version 4",
        "2026-01-01T00:00:00Z",
        "abc (files differed)",
    ):
        assert text in html
    assert sorted(path.name for path in folder.iterdir()) == [REPORT_FILE, "run.json"]


def test_the_report_of_a_run_that_was_judged_is_the_page_that_its_step_drew(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "page").write_text("<p>drawn</p>")
    drawn = replace(STARTED, status="not blessed", decision="not blessed", artifacts={PAGE: str(tmp_path / "page")})
    folder = end(workspace, drawn)
    assert (folder / REPORT_FILE).read_text() == "<p>drawn</p>"
    # A run that failed afterwards must not keep a page that calls it blessed.
    end(workspace, replace(drawn, status="failed", error="registration failed"))
    assert "✕ Failed" in (folder / REPORT_FILE).read_text()


def test_the_command_prints_the_path_and_showing_a_run_mentions_it(workspace: Workspace) -> None:
    folder = end(workspace, replace(STARTED, status="failed", error="it failed", reason="one; two"))
    assert call(workspace, "report", STARTED.run_id).strip() == str(folder / REPORT_FILE)
    assert call(workspace, "report", "latest").strip() == str(folder / REPORT_FILE)
    assert f"plumb runs report {STARTED.run_id}" in call(workspace, "show", "latest")
    assert json.loads(call(workspace, "show", "latest", "--json"))["reason"] == "one; two"


def test_a_log_that_cannot_be_read_fails_the_run_before_its_first_step_and_a_mistyped_model_starts_none(
    workspace: Workspace,
) -> None:
    with pytest.raises(SpecError, match="unknown model: 'chrun'"):
        launch(workspace, "chrun")
    assert not list_records(workspace)
    with pytest.raises(TrainingError, match="event log is empty"):
        launch(workspace, "churn")
    (record,) = list_records(workspace)
    assert (record.status, record.steps) == ("failed", ())
    html = Path(call(workspace, "report", "latest").strip()).read_text(encoding="utf-8")
    assert "✕ Failed" in html
    assert "event log is empty" in html
    assert "ended before its first step" in html


def test_a_run_that_goes_on_and_a_run_that_never_was_have_no_report(workspace: Workspace) -> None:
    end(workspace, STARTED)
    with pytest.raises(RunNotFound, match="run has no report: .* got a run that is running; next: wait"):
        call(workspace, "report", STARTED.run_id)
    with pytest.raises(RunNotFound, match="run is not known: nothing"):
        call(workspace, "report", "nothing")
