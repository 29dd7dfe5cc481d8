"""``plumb models labels``: what became of served predictions, brought in as they mature, and how far that is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from plumb.instants import now_us, parse_instant, show_instant
from plumb.settings import Settings

if TYPE_CHECKING:
    from components.label_maturity import Maturity

console = Console()

SINCE_HELP = "Leave out files of the prediction log that end before this time: a date or an ISO 8601 time with its zone."
NOW_HELP = "Labels as known then; now if left out, and never later than the event log's end."
SUMMARY_HELP = "Bring nothing in; show for each version what is open, due and labelled, and how true its scores turned out."


def labels(
    ctx: typer.Context,
    model: Annotated[str, typer.Option("--model", help="Name of a served model.")],
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help=SINCE_HELP)] = None,
    now: Annotated[str | None, typer.Option("--now", metavar="TIME", help=NOW_HELP)] = None,
    summary: Annotated[bool, typer.Option("--summary", help=SUMMARY_HELP)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Write down what became of served predictions whose horizon and label delay have passed, each once.

    Rollouts judge canaries by these labels. Run it regularly; what a run that was stopped left undone, the next one does.
    """
    from components.label_maturity import summarize_labels
    from components.served_labels import label_served

    settings: Settings = ctx.obj
    at_us = parse_instant(now) if now else now_us()
    if summary:
        found = summarize_labels(settings.workspace, model, now_us=at_us)
        if as_json:
            typer.echo(json.dumps([entry.describe() for entry in found], indent=2))
        else:
            console.print(*map(summary_table, found) if found else [f"{model} has logged no predictions"])
        return
    done = label_served(settings.workspace, model, now_us=at_us, since_us=parse_instant(since) if since else None)
    if as_json:
        typer.echo(json.dumps(done.describe(), indent=2))
        return
    if not done.known_at_us:
        console.print(f"{model}: the event log is empty, so nothing is known")
        return
    table = Table(show_header=False, title=f"{model}, as known at {show_instant(done.known_at_us)}", title_justify="left")
    for status, count in done.statuses.items():
        if count or status == "labelled":
            table.add_row(status, f"{count:,}")
    table.add_row("positive", f"{done.positives:,}")
    table.add_row("open, of the files read", f"{done.open:,}")
    console.print(table)


def summary_table(entry: Maturity) -> Table:
    """One version as one revision."""
    title = f"{entry.model} version {entry.model_version} as {entry.revision}, known at {show_instant(entry.known_at_us)}"
    table = Table(show_header=False, title=title, title_justify="left")
    table.add_row("open", f"{entry.open:,}")
    table.add_row("due, not labelled yet", f"{entry.due:,}")
    table.add_row("labelled", f"{entry.labelled:,} of {entry.users:,} users")
    if entry.labelled:
        table.add_row("positive", f"{entry.positives:,} ({entry.positives / entry.labelled:.1%})")
        table.add_row("mean score", f"{entry.mean_score:.1%}")
    for name, figure in (("AUC", entry.auc), ("log loss", entry.log_loss)):
        if figure is not None:
            table.add_row(name, _show(figure))
    return table


def _show(figure: dict[str, float]) -> str:
    interval = f" [{figure['low']:.3f}, {figure['high']:.3f}]" if "low" in figure else ""
    return f"{figure['value']:.3f}{interval}"
