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
            console.print(summary_table(model, found))
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


def summary_table(model: str, found: list[Maturity]) -> Table:
    """One line a version and revision."""
    known = f", as known at {show_instant(found[0].known_at_us)}" if found else ""
    table = Table("version", "revision", "open", "due", "labelled", "users", "positive", "mean score", "AUC", "log loss",
                  title=f"labels of {model}{known}", title_justify="left")  # fmt: skip
    for entry in found:
        share = f"{entry.positives:,} ({entry.positives / entry.labelled:.1%})" if entry.labelled else ""
        table.add_row(
            str(entry.model_version), entry.revision, f"{entry.open:,}", f"{entry.due:,}", f"{entry.labelled:,}",
            f"{entry.users:,}", share, "" if entry.mean_score is None else f"{entry.mean_score:.1%}",
            _show(entry.auc), _show(entry.log_loss),
        )  # fmt: skip
    return table


def _show(figure: dict[str, float] | None) -> str:
    if figure is None:
        return ""
    interval = f" [{figure['low']:.3f}, {figure['high']:.3f}]" if "low" in figure else ""
    return f"{figure['value']:.3f}{interval}"
