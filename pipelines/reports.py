"""Where a run's report lies, and the short one of a run that failed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from components.reporting import trace_code, trace_data
from features.errors import explain
from features.workspace import Workspace
from models.report import Step, render_failure
from models.specs import load_spec
from pipelines.errors import RunNotFound
from pipelines.records import RunRecord, read_record

REPORT_FILE: Final = "report.html"
PAGE: Final = "report/page"
"""Step and output that hold the page of a run that was evaluated."""


def keep_report(record: RunRecord, folder: Path) -> Path | None:
    """Put a finished run's report into its folder: the page that its report step drew, or one that says where it failed.

    Returns:
        the file; None where a run that did not fail has no report step.
    """
    path = folder / REPORT_FILE
    partial = path.with_suffix(".html.partial")
    if record.status == "failed":  # also one that failed after its page was drawn: the page would call it blessed
        partial.write_text(render_failed_run(record), encoding="utf-8")
    elif PAGE in record.artifacts:
        shutil.copyfile(record.artifacts[PAGE], partial)
    else:
        return None
    partial.replace(path)
    return path


def render_failed_run(record: RunRecord) -> str:
    """The short report of a run that failed, from its record alone."""
    steps = [Step(step.name, step.status, step.seconds, step.reason) for step in record.steps]
    lineage = {
        "Run": {"name": record.run_id, "started": record.started_at, "seed": str(record.parameters.get("seed", ""))},
        "Data": trace_data(record.data),
        "Code": trace_code(record.code),
    }
    return render_failure(load_spec(record.model), record.error, steps, record.run_id, lineage)


def report_of(workspace: Workspace, run_id: str) -> Path:
    """The report of a run.

    Raises:
        RunNotFound: there is no such run, or it has no report yet.
    """
    record = read_record(workspace, run_id)
    path = workspace.runs() / run_id / REPORT_FILE
    if not path.is_file():
        raise RunNotFound(
            explain("run has no report", which=run_id, expected=str(path), got=f"a run that is {record.status}",
                    next_step="wait until the run has ended, or run it again")
        )  # fmt: skip
    return path
