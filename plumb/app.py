"""The ``plumb`` command: its sub-commands, its global options, and what its errors look like.

Errors that Plumbline raises on purpose become one line on stderr and an exit code that a scheduler can read: 2 when trying
again cannot help, 75 (EX_TEMPFAIL) when it may. Anything else is a bug and keeps its traceback.

Sub-command modules import heavy libraries inside their functions, so that ``plumb --help`` answers at once.
"""

from __future__ import annotations

import itertools
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from features.errors import PlumblineError, TemporaryError
from plumb import (
    alerts,
    audience,
    audit,
    demo,
    drift,
    events,
    features,
    models,
    monitors,
    pipelines,
    rollouts,
    runs,
    serving,
    stream,
    up,
    users,
)
from plumb.settings import prepare_native_libraries, read_settings

EXIT_PERMANENT = 2
EXIT_TEMPORARY = 75

WORKSPACE_HELP = "Folder of the event log, stores, runs and models; PLUMB_WORKSPACE, else ./workspace, where not given."
CONTROL_DATABASE_HELP = (
    "URL of the database of versions and aliases, without its password; PLUMB_CONTROL_DATABASE, else a SQLite file in the"
    " workspace, where not given."
)
GLOBAL_OPTIONS = ("--workspace", "--control-database")

root = typer.Typer(
    name="plumb",
    help="Train and deploy growth models with no skew between training and serving.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def show_version(wanted: bool) -> None:
    """Print the version and stop, where it was asked for."""
    if wanted:
        typer.echo(f"plumb {version('plumbline')}")
        raise typer.Exit


@root.callback()
def configure(
    ctx: typer.Context,
    workspace: Annotated[Path | None, typer.Option("--workspace", metavar="DIR", help=WORKSPACE_HELP)] = None,
    control_database: Annotated[
        str | None, typer.Option("--control-database", metavar="URL", help=CONTROL_DATABASE_HELP)
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Train and deploy growth models with no skew between training and serving."""
    ctx.obj = read_settings(os.environ, workspace=workspace, control_database=control_database)


def register_commands() -> None:
    """Hang every sub-command onto the root, once."""
    for group in (events, features, pipelines, runs, models, stream, audience, audit, users, rollouts, alerts, drift, monitors):
        root.add_typer(group.app, name=group.__name__.rpartition(".")[2])
    root.command("serve")(serving.serve)
    root.command("score")(serving.score)
    root.command("up")(up.up)
    root.command("down")(up.down)
    root.command("demo")(demo.demo)


def hoist_global_options(arguments: list[str]) -> list[str]:
    """Move ``--workspace DIR`` and its like to the front, so that they may also stand after the sub-command, as most people
    type them.

    Sub-commands therefore do not declare them; they read ``ctx.obj``. Nothing after ``--`` is touched.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    front: list[str] = []
    rest: list[str] = []
    words = iter(arguments[:end])
    for word in words:
        if word in GLOBAL_OPTIONS:
            front += [word, *itertools.islice(words, 1)]
        elif word.startswith(tuple(f"{option}=" for option in GLOBAL_OPTIONS)):
            front.append(word)
        else:
            rest.append(word)
    return [*front, *rest, *arguments[end:]]


register_commands()


def main() -> None:
    """Run ``plumb`` as a process: environment first, then the command, then its exit code."""
    prepare_native_libraries(os.environ)
    try:
        root(args=hoist_global_options(sys.argv[1:]), prog_name="plumb")
    except PlumblineError as error:
        line = " ".join(str(error).split())
        print(f"plumb: {line}", file=sys.stderr)  # noqa: T201 - the one place where an error reaches the operator
        sys.exit(EXIT_TEMPORARY if isinstance(error, TemporaryError) else EXIT_PERMANENT)
