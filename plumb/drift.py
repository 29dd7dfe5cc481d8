"""``plumb drift``: judge windows of what was served beside training, earlier weeks and stable; serve the drift detector.

Runs in the monitoring environment, which has alibi-detect: ``.venv-monitoring/bin/plumb drift``.
"""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from features.errors import explain
from plumb.errors import CommandError
from plumb.instants import now_us, parse_instant
from plumb.settings import Settings

if TYPE_CHECKING:
    from monitoring.drift.records import JudgedWindow

app = typer.Typer(help="Drift of what is asked and answered.", no_args_is_help=True)

SETTINGS_HELP = "YAML file of drift settings; the defaults if left out."
SINCE_HELP = "Show windows that ended since then, ISO 8601 with its zone; the last 24 hours if left out."
DAY_US = 86_400_000_000


@app.command("check")
def check(
    ctx: typer.Context,
    model: Annotated[str, typer.Option("--model", help="Model whose prediction log is judged.")],
    since: Annotated[str | None, typer.Option("--since", help=SINCE_HELP)] = None,
    settings_file: Annotated[Path | None, typer.Option("--settings", help=SETTINGS_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Judged windows as JSON lines.")] = False,
) -> None:
    """Judge the windows of a model's prediction log whose time has come, and show what was found."""
    require_environment()
    from monitoring.drift.records import read_judged
    from monitoring.drift.settings import read_settings
    from monitoring.drift.watch import PredictionWatch

    settings: Settings = ctx.obj
    at_us = now_us()
    since_us = parse_instant(since) if since else at_us - DAY_US
    watch = PredictionWatch(settings.workspace, model, read_settings(settings_file))
    for _ in watch.judge_due(at_us):
        pass
    found = [each for each in read_judged(settings.workspace.drift_verdicts(), since_us=since_us) if each.model == model]
    if as_json:
        for judged in found:
            typer.echo(json.dumps(judged.describe()))
    else:
        show(found)


@app.command("serve")
def serve(
    ctx: typer.Context,
    port: Annotated[int, typer.Option("--port", help="Port on 127.0.0.1 for events and metrics; 0 takes a free one.")] = 8010,
    model: Annotated[list[str] | None, typer.Option("--model", help="Watch this model's prediction log too.")] = None,
    sink: Annotated[str | None, typer.Option("--reply-url", help="Also POST judged windows here.")] = None,
    settings_file: Annotated[Path | None, typer.Option("--settings", help=SETTINGS_HELP)] = None,
    tick_s: Annotated[float, typer.Option("--tick-s", min=0.1, help="Seconds between looks for windows to close.")] = 10.0,
) -> None:
    """Take KServe's CloudEvents, judge windows of them, and export metrics, until stopped."""
    require_environment()
    from plumb.drift_server import run

    run(ctx.obj, port, tuple(model or ()), sink, settings_file, tick_s)


def require_environment(command: str = "drift") -> None:
    """Refuse, in one line, where alibi-detect is not installed."""
    try:
        version("alibi-detect")
    except PackageNotFoundError as error:
        raise CommandError(
            explain("monitors run in the monitoring environment", which=f"plumb {command}", expected="alibi-detect 0.11.4",
                    got="an environment without it",
                    next_step=f"run .venv-monitoring/bin/plumb {command}; `make setup` builds it")
        ) from error  # fmt: skip


def show(found: list[JudgedWindow]) -> None:
    """Two lines a verdict, the newest window last."""
    from datetime import UTC, datetime

    for judged in found:
        ends = datetime.fromtimestamp(judged.end_us // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M")
        for verdict in judged.verdicts:
            typer.echo(f"{ends}  {judged.subject} version {judged.version}  {verdict.monitor}  {verdict.outcome.upper()}")
            typer.echo(f"    {verdict.text}")
    if not found:
        typer.echo("No window has been judged: rows that were logged whole are too few or too young.")
