"""Run a compiled pipeline on this machine, each step in a process of its own, and keep its record up to date."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml
from kfp import components, dsl, local

from features.errors import explain
from pipelines.errors import StepFailed
from pipelines.records import RunRecord, StepRecord, write_record
from pipelines.reports import keep_report
from pipelines.steps import StepWatch, failed_step

LOG_FILE: Final = "run.log"
STEPS_FOLDER: Final = "steps"


@dataclass(frozen=True)
class Clocks:
    """The clocks of the entry point: the rest of the code reads none.

    Attributes:
        now_text: current time, ISO 8601 in UTC.
        seconds: monotonic seconds.
    """

    now_text: Callable[[], str]
    seconds: Callable[[], float]


@dataclass(frozen=True)
class StepResult:
    """What a step left behind: its output parameters, and path and metadata of its output artifacts."""

    parameters: Mapping[str, Any]
    paths: Mapping[str, str]
    metadata: Mapping[str, Mapping[str, Any]]


def run_pipeline(
    text: str, record: RunRecord, folder: Path, clocks: Clocks, show: Callable[[tuple[StepRecord, ...]], None]
) -> RunRecord:
    """Run a compiled pipeline with ``record.parameters`` and return the finished record, which is also on disk.

    Args:
        text: the compiled YAML.
        record: how the run starts.
        folder: the run's folder; receives ``run.json``, ``run.log``, ``report.html`` and the steps' artifacts.
        clocks: see ``Clocks``.
        show: called with all steps whenever one changes.
    Raises:
        StepFailed: a step failed; the record on disk says so.
    """
    current = [record]

    def update(steps: tuple[StepRecord, ...]) -> None:
        current[0] = replace(current[0], steps=steps)
        write_record(folder, current[0])
        show(steps)

    write_record(folder, record)
    with (folder / LOG_FILE).open("w", encoding="utf-8") as log:
        watch = StepWatch(step_names(text), log, clock=clocks.seconds, notify=update)
        error = _execute(name_run(text, record), record.parameters, folder / STEPS_FOLDER, watch)
    finished = replace(conclude(current[0], folder / STEPS_FOLDER, error), finished_at=clocks.now_text())
    write_record(folder, finished)
    keep_report(finished, folder)
    if finished.status == "failed":
        raise StepFailed(finished.error)
    return finished


def fail_run(record: RunRecord, folder: Path, error: str, clocks: Clocks) -> None:
    """Write the record and the report of a run that failed before its first step."""
    failed = replace(record, status="failed", error=error, finished_at=clocks.now_text())
    write_record(folder, failed)
    keep_report(failed, folder)


def name_run(text: str, record: RunRecord) -> str:
    """The compiled pipeline with the run's name and start where a cluster would put its own."""
    return text.replace(dsl.PIPELINE_JOB_ID_PLACEHOLDER, record.run_id).replace(
        dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER, record.started_at
    )


def _execute(text: str, parameters: Mapping[str, Any], root: Path, watch: StepWatch) -> str:
    """Run the pipeline with KFP's text going to ``watch``; returns KFP's error line, empty if there was none."""
    error = ""
    with contextlib.redirect_stdout(watch), contextlib.redirect_stderr(watch):
        # The workspace_root that KFP makes by default is a temporary folder. It deletes that folder after the run, so
        # it must never be pointed at real data.
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root))
        try:
            components.load_component_from_text(text)(**parameters)
        except RuntimeError as failure:  # the one exception by which KFP reports a failed step
            error = " ".join(str(failure).split())
        finally:
            watch.end()
    return error


def conclude(record: RunRecord, root: Path, error: str) -> RunRecord:
    """The record after the last step: evaluation, decision, registered version and artifacts as the steps left them."""
    results = read_results(root)
    record = replace(
        record,
        data={**record.data, **_metadata(results, "training-rows", "rows")},
        evaluation=_evaluation(results),
        artifacts={f"{step}/{name}": path for step, result in results.items() for name, path in result.paths.items()},
    )
    if "gate" in results:
        decision = results["gate"].parameters["Output"]
        record = replace(record, decision=decision, reason=_metadata(results, "gate", "report").get("reason", ""))
    failed = failed_step(record.steps)
    if failed is not None or error:
        return replace(record, status="failed", error=_explain_failure(record, root, failed, error))
    if all(step.name != "gate" for step in record.steps):
        return replace(record, status="succeeded")
    if record.decision != "blessed":
        return replace(record, status="not blessed")
    if "register" not in results:
        # KFP's local runner takes a condition that it cannot read for a false one, and says so in its log alone.
        return replace(record, status="failed", error=_explain_failure(record, root, StepRecord("register"), "it was skipped"))
    return replace(record, status="succeeded", registered_version=int(results["register"].parameters["Output"]))


def _explain_failure(record: RunRecord, root: Path, step: StepRecord | None, error: str) -> str:
    return explain(
        "pipeline step failed", which=f"{step.name if step else record.pipeline} of run {record.run_id}", expected="success",
        got=step.reason if step and step.reason else error, next_step=f"read {root.parent / LOG_FILE}",
    )  # fmt: skip


def read_results(root: Path) -> dict[str, StepResult]:
    """Results of the steps that ended well, from the files that KFP's executor writes, by step name."""
    results = {}
    for path in sorted(root.rglob("executor_output.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        artifacts = {name: entry["artifacts"][0] for name, entry in content.get("artifacts", {}).items()}
        results[path.parent.name] = StepResult(
            parameters=content.get("parameterValues", {}),
            paths={name: artifact["uri"] for name, artifact in artifacts.items()},
            metadata={name: artifact.get("metadata", {}) for name, artifact in artifacts.items()},
        )
    return results


def step_names(text: str) -> tuple[str, ...]:
    """The steps of a compiled pipeline in an order in which they can run."""
    pipeline = next(document for document in yaml.safe_load_all(text) if "root" in document)
    return tuple(_walk(pipeline["root"]["dag"]["tasks"], pipeline["components"]))


def _walk(tasks: Mapping[str, Any], parts: Mapping[str, Any]) -> list[str]:
    names: list[str] = []
    done: set[str] = set()
    while len(done) < len(tasks):
        ready = sorted(name for name in tasks if name not in done and done.issuperset(tasks[name].get("dependentTasks", [])))
        for name in ready:
            part = parts[tasks[name]["componentRef"]["name"]]
            names += _walk(part["dag"]["tasks"], parts) if "dag" in part else [name]
        done.update(ready)
    return names


def _metadata(results: Mapping[str, StepResult], step: str, output: str) -> Mapping[str, Any]:
    return results[step].metadata.get(output, {}) if step in results else {}


def _evaluation(results: Mapping[str, StepResult]) -> Mapping[str, Any]:
    path = results["evaluate"].paths.get("evaluation") if "evaluate" in results else None
    content: Mapping[str, Any] = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
    return content
