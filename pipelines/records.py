"""Run records: what went into a pipeline run, what it did step by step, and what came out.

A record is one JSON file, ``runs/<run_id>/run.json``, rewritten whole at every change of state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from features.errors import explain
from features.workspace import Workspace
from pipelines.errors import RunNotFound

Status = Literal["running", "succeeded", "not blessed", "failed"]
StepStatus = Literal["waiting", "running", "succeeded", "failed", "skipped"]
FILE: Final = "run.json"
FORMAT_VERSION: Final = 1


@dataclass(frozen=True)
class StepRecord:
    """One step of a run. ``seconds`` counts all attempts; ``reason`` is the last error line of a failed step."""

    name: str
    status: StepStatus = "waiting"
    seconds: float = 0.0
    attempts: int = 0
    reason: str = ""


@dataclass(frozen=True)
class RunRecord:
    """One run of a pipeline.

    Attributes:
        run_id: sorts by time and ends with the model's name.
        parameters: what the pipeline was called with.
        code: package version, git commit and whether files differed from it.
        data: catalog, view, its hash, and the version of every table that was read.
        pipeline_hash: SHA-256 of the compiled pipeline.
        evaluation: the evaluate step's report.
        decision, reason: what the gate said and why; empty before it spoke.
        registered_version: the version that this run registered, if any.
        artifacts: step and output name to path.
        error: one line, of a failed run.
        started_at, finished_at: ISO 8601, UTC; ``finished_at`` is empty while it runs.
    """

    run_id: str
    pipeline: str
    model: str
    started_at: str
    parameters: Mapping[str, Any]
    code: Mapping[str, Any]
    pipeline_hash: str
    status: Status = "running"
    finished_at: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[StepRecord, ...] = ()
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    decision: str = ""
    reason: str = ""
    registered_version: int | None = None
    artifacts: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    format_version: int = FORMAT_VERSION

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def write_record(folder: Path, record: RunRecord) -> None:
    """Put the record into its run's folder; a reader sees the old text or the new one, never a part."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{FILE}.partial"
    partial.write_text(record.as_json(), encoding="utf-8")
    partial.replace(folder / FILE)


def read_record(workspace: Workspace, run_id: str) -> RunRecord:
    """The record of one run.

    Raises:
        RunNotFound: there is none, or its file is no record of this format.
    """
    path = workspace.runs() / run_id / FILE
    if not path.is_file():
        raise RunNotFound(
            explain("run is not known", which=run_id, expected=f"a record at {path}", got="no file",
                    next_step="see `plumb runs list`")
        )  # fmt: skip
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("format_version") != FORMAT_VERSION:
            raise ValueError(f"format version {content.get('format_version')}")
        content["steps"] = tuple(StepRecord(**step) for step in content["steps"])
        return RunRecord(**content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunNotFound(
            explain("run record cannot be read", which=str(path), expected=f"JSON of format version {FORMAT_VERSION}",
                    got=str(error), next_step="restore the file or delete the run's folder")
        ) from error  # fmt: skip


def list_records(workspace: Workspace) -> list[RunRecord]:
    """Every run's record, the newest first."""
    folder = workspace.runs()
    names = sorted((path.parent.name for path in folder.glob(f"*/{FILE}")), reverse=True)
    return [read_record(workspace, name) for name in names]
