"""A small pipeline with the names that records look for, compiled and run by KFP itself."""

import itertools
import json
from pathlib import Path

import pytest
from kfp import compiler, dsl

from components.image import component
from features.workspace import Workspace
from pipelines.errors import StepFailed
from pipelines.records import RunRecord, StepRecord, read_record
from pipelines.run import LOG_FILE, Clocks, run_pipeline


@component
def evaluate(auc: float, evaluation: dsl.Output[dsl.Metrics]) -> None:
    import json
    from pathlib import Path

    if auc < 0:
        raise ValueError(f"AUC is {auc}")
    Path(evaluation.path).write_text(json.dumps({"auc": auc}))
    evaluation.log_metric("auc", auc)


@component
def gate(evaluation: dsl.Input[dsl.Metrics], report: dsl.Output[dsl.Markdown]) -> str:
    auc = evaluation.metadata["auc"]
    report.metadata["reason"] = f"AUC {auc}"
    return "blessed" if auc > 0.5 else "not blessed"


@component
def register(run_id: str, created_at: str) -> int:
    return 7 if (run_id, created_at) == ("r", "2026-01-01T00:00:00Z") else 0


@dsl.pipeline(name="small")
def small(auc: float) -> None:
    evaluation = evaluate(auc=auc)
    decision = gate(evaluation=evaluation.outputs["evaluation"])
    with dsl.If(decision.outputs["Output"] == "blessed", name="blessed"):
        register(run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER, created_at=dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("compiled") / "small.yaml"
    compiler.Compiler().compile(small, str(path))
    return path.read_text(encoding="utf-8")


def run(text: str, folder: Path, auc: float) -> tuple[RunRecord, list[tuple[StepRecord, ...]]]:
    seconds = itertools.count()
    clocks = Clocks(now_text=lambda: "2026-01-01T00:01:00Z", seconds=lambda: float(next(seconds)))
    start = RunRecord("r", "small", "churn", "2026-01-01T00:00:00Z", {"auc": auc}, {}, "ab", data={"view": "customer@1"})
    shown: list[tuple[StepRecord, ...]] = []
    return run_pipeline(text, start, folder, clocks, shown.append), shown


def test_a_blessed_run_is_recorded_with_its_version_figures_and_artifacts(text: str, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "r"
    record, shown = run(text, folder, 0.75)
    assert (record.status, record.decision, record.reason, record.registered_version) == ("succeeded", "blessed", "AUC 0.75", 7)
    assert record.evaluation == {"auc": 0.75}
    assert record.data == {"view": "customer@1"}
    assert json.loads(Path(record.artifacts["evaluate/evaluation"]).read_text()) == {"auc": 0.75}
    assert [(step.name, step.status, step.seconds) for step in record.steps] == [
        ("evaluate", "succeeded", 1.0), ("gate", "succeeded", 1.0), ("register", "succeeded", 1.0),
    ]  # fmt: skip
    assert [step.status for step in shown[0]] == ["running", "waiting", "waiting"]
    assert read_record(Workspace(tmp_path), "r") == record


def test_a_run_that_is_not_blessed_says_why_and_registers_nothing(text: str, tmp_path: Path) -> None:
    record, _ = run(text, tmp_path / "runs" / "r", 0.25)
    assert (record.status, record.reason, record.registered_version) == ("not blessed", "AUC 0.25", None)
    assert record.steps[-1] == StepRecord("register", "skipped")


def test_a_run_has_its_name_and_start_filled_in_where_a_cluster_would_put_its_own(text: str, tmp_path: Path) -> None:
    assert dsl.PIPELINE_JOB_ID_PLACEHOLDER in text
    assert dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER in text
    record, _ = run(text, tmp_path / "runs" / "r", 0.75)
    assert record.registered_version == 7


def test_a_failed_step_is_named_with_its_last_error_line_and_the_record_says_failed(
    text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs" / "r"
    with pytest.raises(
        StepFailed, match=r"pipeline step failed: evaluate of run r; .*got ValueError: AUC is -1\.0; next: read"
    ) as failure:
        run(text, folder, -1.0)
    record = read_record(Workspace(tmp_path), "r")
    assert (record.status, record.error) == ("failed", str(failure.value))
    assert [step.status for step in record.steps] == ["failed", "skipped", "skipped"]
    assert "Traceback" in (folder / LOG_FILE).read_text(encoding="utf-8")
    assert capfd.readouterr() == ("", "")


def test_a_run_writes_only_into_its_own_folder(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    _, _ = run(text, tmp_path / "runs" / "r", 0.75)
    assert list(elsewhere.iterdir()) == []
    assert {path.name for path in (tmp_path / "runs" / "r").iterdir()} == {"run.json", "run.log", "steps"}
