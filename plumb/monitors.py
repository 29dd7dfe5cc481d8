"""``plumb monitors``: everything that watches services, in one process; one round of it; how far labels have matured.

Runs in the monitoring environment: ``.venv-monitoring/bin/plumb monitors``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from features.errors import explain
from features.layout import DAY_S
from plumb.drift import require_environment
from plumb.errors import CommandError
from plumb.instants import now_us
from plumb.settings import Settings

if TYPE_CHECKING:
    from plumb.monitor_set import Watched

app = typer.Typer(help="Drift, freshness, quality, skew, labels and estimates, as verdicts.", no_args_is_help=True)
console = Console()

SERVICE_HELP = "A service and the model that it serves, SERVICE=MODEL; may be given several times."
SETTINGS_HELP = "YAML file of monitor settings; the defaults if left out."
STORE_HELP = "redis://HOST:PORT/DATABASE, or a folder, with one for each view. PLUMB_STORE or the workspace's if left out."
JSON_HELP = "Print JSON instead of text."

ServiceOption = Annotated[list[str], typer.Option("--service", metavar="SERVICE=MODEL", help=SERVICE_HELP)]
SettingsOption = Annotated[Path | None, typer.Option("--settings", help=SETTINGS_HELP)]
StoreOption = Annotated[str | None, typer.Option("--store", help=STORE_HELP)]
JsonOption = Annotated[bool, typer.Option("--json", help=JSON_HELP)]


@app.command("run")
def run(
    ctx: typer.Context,
    service: ServiceOption,
    port: Annotated[int, typer.Option("--port", help="Port on 127.0.0.1 for metrics; 0 takes a free one.")] = 8011,
    settings_file: SettingsOption = None,
    store: StoreOption = None,
    tick_s: Annotated[float, typer.Option("--tick-s", min=0.1, help="Seconds between looks for what is due.")] = 5.0,
) -> None:
    """Call every monitor when it is due, record its verdicts and export metrics, until stopped."""
    require_environment("monitors")
    from monitoring.monitor_settings import read_monitor_settings
    from plumb import monitor_process

    monitor_process.run(ctx.obj, watched_by(service, store), read_monitor_settings(settings_file), port, tick_s)


@app.command("check")
def check(
    ctx: typer.Context,
    service: ServiceOption,
    settings_file: SettingsOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Call every monitor once, record and show what they say. Exits with 1 where any of it pages."""
    require_environment("monitors")
    from monitoring.monitor_settings import read_monitor_settings
    from monitoring.verdicts import Outcome, Severity
    from plumb import monitor_process

    done = monitor_process.check(ctx.obj, watched_by(service, store), read_monitor_settings(settings_file))
    monitor_process.print_round(done, as_json=as_json)
    if any(each.outcome is not Outcome.PASS and each.severity is not Severity.INFO for each in done.verdicts):
        raise typer.Exit(1)


@app.command("labels")
def show_labels(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Name of a served model.")],
    settings_file: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how far a model's labels have matured, by age of the predictions, and how long outcomes take to become known."""
    from monitoring.label_maturity import MOST_AGES
    from monitoring.monitor_settings import read_monitor_settings
    from plumb.model_monitors import maturity_of

    settings: Settings = ctx.obj
    found = maturity_of(settings.workspace, model, read_monitor_settings(settings_file), now_us())
    if as_json:
        typer.echo(json.dumps(found.describe()))
        return
    table = Table(
        "age, days", "predictions", "matured", "outcome known so far", title=f"labels of {model}", title_justify="left"
    )
    for row in found.ages:
        shares = [f"{count:,} ({count / row.predictions:.0%})" for count in (row.matured, row.outcomes)]
        age = f"{row.age_days} or more" if row.age_days == MOST_AGES else str(row.age_days)
        table.add_row(age, f"{row.predictions:,}", *shares)
    console.print(table)
    delays = ", ".join(f"{float(name):.0%} within {seconds / DAY_S:.1f} days" for name, seconds in found.delays_s.items())
    console.print(f"outcomes of matured predictions were known: {delays or 'none has matured'}")
    console.print(
        f"{found.matured:,} of {found.predictions:,} predictions have matured, {found.waiting:,} of them not labelled yet"
    )


def watched_by(services: list[str], store: str | None) -> Watched:
    """What ``--service`` options name.

    Raises:
        CommandError: one is no SERVICE=MODEL, or a service is named twice.
    """
    from plumb.monitor_set import Watched

    found: dict[str, str] = {}
    for text in services:
        name, _, model = text.partition("=")
        if not name or not model or "=" in model or name in found:
            raise CommandError(
                explain("service refused", which=repr(text), expected="SERVICE=MODEL, each service once", got=text,
                        next_step="write, for one, --service churn=churn")
            )  # fmt: skip
        found[name] = model
    return Watched(found, store)
