from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from features.workspace import Workspace
from pipelines.errors import RunNotFound
from pipelines.records import RunRecord, StepRecord, list_records, read_record, write_record


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def record(run_id: str) -> RunRecord:
    return RunRecord(
        run_id=run_id, pipeline="training", model="churn", started_at="2026-01-01T00:00:00Z", parameters={"seed": 3},
        code={"git_sha": None}, pipeline_hash="ab", steps=(StepRecord("train", "running"),),
    )  # fmt: skip


def test_a_record_reads_back_as_it_was_written(workspace: Workspace) -> None:
    written = replace(record("a"), registered_version=2, evaluation={"auc": 0.5}, status="succeeded")
    write_record(workspace.runs() / "a", written)
    assert read_record(workspace, "a") == written


def test_writing_leaves_nothing_but_the_record(workspace: Workspace) -> None:
    write_record(workspace.runs() / "a", record("a"))
    write_record(workspace.runs() / "a", replace(record("a"), status="failed"))
    assert [path.name for path in (workspace.runs() / "a").iterdir()] == ["run.json"]


def test_runs_are_listed_newest_first(workspace: Workspace) -> None:
    for run_id in ("20260101T000000.000000Z-churn", "20260201T000000.000000Z-churn"):
        write_record(workspace.runs() / run_id, record(run_id))
    assert [entry.run_id[:6] for entry in list_records(workspace)] == ["202602", "202601"]


def test_an_unknown_run_and_a_damaged_record_are_one_line_errors(workspace: Workspace) -> None:
    with pytest.raises(RunNotFound, match="run is not known: a; expected"):
        read_record(workspace, "a")
    write_record(workspace.runs() / "a", record("a"))
    for damage in ('{"format_version": 1', '{"format_version": 7}', "[]"):
        (workspace.runs() / "a" / "run.json").write_text(damage, encoding="utf-8")
        with pytest.raises(RunNotFound, match="cannot be read"):
            read_record(workspace, "a")
