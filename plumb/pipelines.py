"""``plumb pipelines``: compile the pipelines, and run them on this machine."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from features.workspace import Workspace
from plumb.instants import now_us, parse_instant, show_instant
from plumb.runs import coloured, render_run
from plumb.settings import Settings

if TYPE_CHECKING:
    from pipelines.records import RunRecord, StepRecord

app = typer.Typer(help="Compile pipelines, and run them on this machine.", no_args_is_help=True)
console = Console()

KNOWN_AT_HELP = (
    "Nothing that became known later enters; a date or an ISO 8601 time with its zone. The end of the log if left out."
)


@app.command("compile")
def compile_all(
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the YAML files; the one kept with the code.")] = None,
) -> None:
    """Compile every pipeline to the YAML that runs here and on a cluster."""
    from pipelines.compile import COMPILED, write_pipelines

    for path in write_pipelines(out or COMPILED):
        console.print(f"compiled {path}")


@app.command("run")
def run(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Name of a model spec, such as churn.")],
    known_at: Annotated[str | None, typer.Option("--known-at", help=KNOWN_AT_HELP)] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of weights, shuffling and bootstrap.")] = 0,
) -> None:
    """Train, evaluate and, if it is blessed, register a model. Exits with 1 if it is not blessed."""
    settings: Settings = ctx.obj
    record = launch(settings.workspace, model, known_at_us=parse_instant(known_at) if known_at else None, seed=seed)
    console.print(render_run(record))
    if record.status == "not blessed":
        raise typer.Exit(1)


def launch(workspace: Workspace, model: str, *, known_at_us: int | None = None, seed: int = 0) -> RunRecord:
    """Run the compiled training pipeline with a progress display on stderr; returns the finished record.

    Args:
        known_at_us: UTC microseconds; the newest ingest_time of the model's event log where None.
    Raises:
        PlumblineError: the model is unknown, its log is empty, the compiled pipeline is stale, or a step failed.
    """
    from components.code import code_version
    from components.training_rows import describe_data
    from pipelines.compile import pipeline_hash, read_compiled
    from pipelines.records import RunRecord
    from pipelines.run import Clocks, run_pipeline

    data = describe_data(workspace, model)
    if known_at_us is None:
        known_at_us = data.log_end_us
    text = read_compiled("training")
    started_us = now_us()
    run_id = run_id_of(started_us, model)
    parameters = {
        "model": model,
        "workspace": str(workspace.root.resolve()),
        "known_at_us": known_at_us,
        "seed": seed,
        "control_database": workspace.control_url,
    }
    record = RunRecord(
        run_id=run_id,
        pipeline="training",
        model=model,
        started_at=show_instant(started_us),
        parameters=parameters,
        code=code_version(),
        pipeline_hash=pipeline_hash(text),
        data={**data.as_record(), "known_at": show_instant(known_at_us)},
    )
    clocks = Clocks(now_text=lambda: show_instant(now_us()), seconds=time.monotonic)
    with StepDisplay(run_id) as display:
        return run_pipeline(text, record, workspace.runs() / run_id, clocks, display.show)


def run_id_of(started_us: int, model: str) -> str:
    """Sorts by start and names the model.

    Example:
        >>> run_id_of(1_307_577_600_123_456, "churn")
        '20110609T000000.123456Z-churn'
    """
    text = show_instant(started_us).removesuffix("Z")
    whole, _, part = text.partition(".")
    return f"{whole.replace('-', '').replace(':', '')}.{part or '0':0<6}Z-{model}"


class StepDisplay:
    """One line a step, with a spinner and the seconds of those that run.

    It draws on a stream of its own, because standard output and error belong to KFP while a pipeline runs.
    """

    def __init__(self, title: str) -> None:
        # A duplicate of stderr's descriptor stays the terminal whatever the name sys.stderr points to later.
        self._stream = os.fdopen(os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2), "w", encoding="utf-8")
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), TextColumn("{task.fields[status]}"))
        own = Console(file=self._stream)
        self._progress = Progress(*columns, console=own, redirect_stdout=False, redirect_stderr=False)
        self._tasks: dict[str, int] = {}
        self._title = title

    def __enter__(self) -> StepDisplay:
        self._progress.start()
        self._progress.console.print(f"run {self._title}")
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        self._stream.close()

    def show(self, steps: tuple[StepRecord, ...]) -> None:
        """Bring the lines up to date."""
        for step in steps:
            if step.name not in self._tasks:
                self._tasks[step.name] = self._progress.add_task(step.name, total=1, start=False, status="")
            task = self._progress.tasks[self._tasks[step.name]]
            if step.status != "waiting" and task.start_time is None:
                self._progress.start_task(task.id)
            self._progress.update(
                task.id,
                completed=step.status not in ("waiting", "running"),
                status=coloured(step.status),
                description=step.name if step.attempts < 2 else f"{step.name} (attempt {step.attempts})",
            )
            if step.status in ("succeeded", "failed", "skipped"):
                self._progress.stop_task(task.id)
