"""``plumb pipelines``: compile the pipelines, run them on this machine, submit them to a cluster."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from features.errors import PlumblineError, explain
from features.workspace import Workspace
from plumb.errors import CommandError
from plumb.instants import now_us, parse_instant, show_instant
from plumb.runs import coloured, render_run
from plumb.settings import Settings

if TYPE_CHECKING:
    from pipelines.records import RunRecord, StepRecord
    from pipelines.run import Clocks

app = typer.Typer(help="Compile pipelines, run them on this machine, submit them to a cluster.", no_args_is_help=True)
console = Console()

KNOWN_AT_HELP = (
    "Nothing that became known later enters; a date or an ISO 8601 time with its zone. The end of the log if left out."
)
PROMOTE_HELP = "Whether a version that beats the champion becomes it; else it is left to a rollout."
EVERY_HELP = "Schedule: six fields from seconds to day of week, UTC, such as '0 30 4 * * *'. One run now if left out."


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
    may_promote: Annotated[bool, typer.Option("--promote/--no-promote", help=PROMOTE_HELP)] = True,
) -> None:
    """Train, evaluate and, if it is blessed, register a model. Exits with 1 if it is not blessed."""
    from pipelines.reports import report_of

    settings: Settings = ctx.obj
    known_at_us = parse_instant(known_at) if known_at else None
    record = launch(settings.workspace, model, known_at_us=known_at_us, seed=seed, may_promote=may_promote)
    console.print(render_run(record))
    console.print(f"report: {report_of(settings.workspace, record.run_id)}", soft_wrap=True)
    if record.status == "not blessed":
        raise typer.Exit(1)


@app.command("submit")
def submit_run(  # noqa: PLR0913 - one argument an option
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Name of a model spec, such as churn.")],
    host: Annotated[str, typer.Option("--host", metavar="URL", help="Where the cluster's KFP API is.")],
    every: Annotated[str | None, typer.Option("--every", metavar="CRON", help=EVERY_HELP)] = None,
    token_file: Annotated[Path | None, typer.Option("--token-file", help="File with a bearer token.")] = None,
    namespace: Annotated[str, typer.Option("--namespace", help="Of a cluster with several users.")] = "",
    service_account: Annotated[str, typer.Option("--service-account", help="Kubernetes account of the steps.")] = "",
    seed: Annotated[int, typer.Option("--seed", help="Seed of weights, shuffling and bootstrap.")] = 0,
    replace: Annotated[bool, typer.Option("--replace", help="End another schedule of this model.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a sentence.")] = False,
) -> None:
    """Run a model's training on a cluster, once now or on a schedule, on the snapshot that is the latest when a run starts."""
    from components.code import code_version
    from models.specs import load_spec
    from pipelines.cluster import Address
    from pipelines.compile import read_compiled
    from pipelines.profile import WORKSPACE_MOUNT
    from pipelines.schedules import check_cron
    from pipelines.submit import Submission, submit

    settings: Settings = ctx.obj
    load_spec(model)
    parameters = {
        "model": model, "workspace": WORKSPACE_MOUNT, "known_at_us": 0, "seed": seed,
        "control_database": settings.control_database,
    }  # fmt: skip
    submission = Submission(
        model, read_compiled("training"), code_version(), parameters, check_cron(every) if every is not None else "",
        show_instant(now_us()), service_account,
    )  # fmt: skip
    done = submit(Address(host, read_token(token_file), namespace), submission, replace=replace)
    if as_json:
        typer.echo(json.dumps(asdict(done), indent=2))
        return
    uploaded = "uploaded" if done.uploaded else "already there"
    console.print(f"pipeline version {done.version_name} {uploaded}; {done.kind} {done.name} {done.action} ({done.id})")


def read_token(path: Path | None) -> str:
    """The bearer token in a file, without the line's end; empty where no file is named.

    Raises:
        CommandError: the file cannot be read or is empty.
    """
    if path is None:
        return ""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        got = error.strerror or "no text" if isinstance(error, OSError) else "no text"
        raise CommandError(
            explain("token cannot be read", which=str(path), expected="a file with a token", got=got,
                    next_step="correct --token-file")
        ) from error  # fmt: skip
    if not token:
        raise CommandError(
            explain("token is empty", which=str(path), expected="a file with a token", got="nothing",
                    next_step="correct --token-file")
        )  # fmt: skip
    return token


def launch(
    workspace: Workspace, model: str, *, known_at_us: int | None = None, seed: int = 0, may_promote: bool = True
) -> RunRecord:  # fmt: skip
    """Run the compiled training pipeline with a progress display on stderr; returns the finished record.

    Args:
        known_at_us: UTC microseconds; the newest ingest_time of the model's event log where None or 0.
        may_promote: whether a version that beats the champion becomes it; else it waits for a rollout.
    Raises:
        PlumblineError: the model is unknown, its log is empty, the compiled pipeline is stale, or a step failed.
    """
    from components.code import code_version
    from models.specs import load_spec
    from pipelines.compile import pipeline_hash, read_compiled
    from pipelines.records import RunRecord
    from pipelines.run import Clocks, run_pipeline

    load_spec(model)  # a mistyped name starts no run
    text = read_compiled("training")
    started_us = now_us()
    run_id = run_id_of(started_us, model)
    parameters = {
        "model": model,
        "workspace": str(workspace.root.resolve()),
        "known_at_us": known_at_us or 0,
        "seed": seed,
        "control_database": workspace.control_url,
        "may_promote": may_promote,
    }
    started = RunRecord(
        run_id=run_id,
        pipeline="training",
        model=model,
        started_at=show_instant(started_us),
        parameters=parameters,
        code=code_version(),
        pipeline_hash=pipeline_hash(text),
    )
    folder = workspace.runs() / run_id
    clocks = Clocks(now_text=lambda: show_instant(now_us()), seconds=time.monotonic)
    record = with_data(started, workspace, folder, clocks)
    with StepDisplay(run_id) as display:
        return run_pipeline(text, record, folder, clocks, display.show)


def launch_blessed(workspace: Workspace, model: str, *, known_at_us: int | None = None, seed: int = 0) -> tuple[RunRecord, int]:
    """Launch a run and return its record with the version that it registered.

    Raises:
        CommandError: the gate did not bless the model, so there is nothing to serve.
    """
    record = launch(workspace, model, known_at_us=known_at_us, seed=seed)
    if record.registered_version is None:
        raise CommandError(
            explain(
                "model was not blessed",
                which=f"run {record.run_id}",
                expected="a blessed version to serve",
                got=record.reason,
                next_step=f"see `plumb --workspace {workspace.root} runs show {record.run_id}`",
            )
        )
    return record, record.registered_version


def with_data(record: RunRecord, workspace: Workspace, folder: Path, clocks: Clocks) -> RunRecord:
    """The record with the data that the run will read, and its end where no ``known_at_us`` was asked for.

    Where the data cannot be read the run has failed already: its record and report say so.
    """
    from components.training_rows import describe_data
    from pipelines.run import fail_run

    try:
        data = describe_data(workspace, record.model)
    except PlumblineError as error:
        fail_run(record, folder, str(error), clocks)
        raise
    known_at_us = record.parameters["known_at_us"] or data.log_end_us
    return replace(
        record,
        parameters={**record.parameters, "known_at_us": known_at_us},
        data={**data.as_record(), "known_at": show_instant(known_at_us)},
    )


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
