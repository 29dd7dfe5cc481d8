"""``plumb audit``: are the rows that a model has served what the batch path makes of the same events?"""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from plumb.instants import now_us, parse_instant, show_instant
from plumb.settings import Settings

if TYPE_CHECKING:
    from components.skew_audit import SkewAudit

app = typer.Typer(help="Compare what was served with what the batch path makes of the same events.", no_args_is_help=True)
console = Console()

SINCE_HELP = "Rows answered from here on: a date or an ISO 8601 time with its zone. All if left out."
UNTIL_HELP = "Rows answered before this time. All if left out."
RATE_HELP = "Share of users that are audited, drawn by a hash of their id."
OUT_HELP = "Also write one row a comparison and signal to this Parquet file, for monitors."
MOST_SIGNALS = 12
"""Signals shown by their share against the training kernel; --json shows all."""


@app.callback()
def audit() -> None:
    """Compare what was served with what the batch path makes of the same events."""


@app.command("skew")
def audit_served_rows(  # noqa: PLR0913 - one argument an option
    ctx: typer.Context,
    model: Annotated[str, typer.Option("--model", help="Name of a registered model.")],
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help=SINCE_HELP)] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help=UNTIL_HELP)] = None,
    rate: Annotated[float, typer.Option("--rate", min=0, max=1, help=RATE_HELP)] = 1.0,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help=OUT_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Make a model's served rows again from the log and compare. Exits with 1 if any differs."""
    import pyarrow.parquet as pq

    from components.served_rows import Selection
    from components.skew_audit import audit_skew
    from plumb.native_log import native_log

    settings: Settings = ctx.obj
    selection = Selection(parse_instant(since) if since else None, parse_instant(until) if until else None, rate)
    with native_log(Path(os.devnull)):
        found = audit_skew(settings.workspace, model, selection, measured_at_us=now_us())
    if out is not None:
        partial = out.with_name(f"{out.name}.partial")
        pq.write_table(found.differences, partial)
        partial.replace(out)
    if as_json:
        typer.echo(json.dumps(found.describe(), indent=2, default=_as_text))
    else:
        console.print(render(found))
    if found.mismatches:
        raise typer.Exit(1)


def render(found: SkewAudit) -> Group:
    """What was compared, what differs, and how far served features were from training's."""
    return Group(summary_table(found), kinds_table(found), training_table(found))


def summary_table(found: SkewAudit) -> Table:
    """How many rows there were, what kept some from being checked, and the first differing signal."""
    from components.skew_audit import tell_first

    table = Table(show_header=False, title=f"audit of {found.model}", title_justify="left")
    table.add_row("versions", ", ".join(map(str, found.versions)))
    table.add_row("answered", f"{show_instant(found.start_us)} to {show_instant(found.end_us)}")
    table.add_row("rows", f"{found.rows:,}, {found.whole:,} of them whole")
    for status, count in found.statuses.items():
        if count or status == "checked":
            table.add_row(status.replace("_", " "), f"{count:,}")
    colour = "red" if found.mismatches else "green"
    table.add_row("mismatches", f"[{colour}]{found.mismatches:,}[/{colour}]")
    if found.first is not None:
        table.add_row("first differing", f"[red]{escape(tell_first(found.describe()))}[/red]")
    return table


def kinds_table(found: SkewAudit) -> Table:
    """Rows compared and rows that differ, by what was compared."""
    table = Table("against the batch path", "rows compared", "rows that differ", "signals that differ")
    rows = [row for row in found.differences.to_pylist() if row["comparison"] == "replay" and row["differing"]]
    for kind, count in found.checked.items():
        signals = dict.fromkeys(row["signal"] for row in rows if row["kind"] == kind)
        table.add_row(kind, f"{count:,}", f"{found.mismatched[kind]:,}", ", ".join(signals))
    return table


def training_table(found: SkewAudit) -> Table:
    """Signals by the share of their values that a training row of the same user and time would have had otherwise."""
    table = Table("against training at the same time", "values", "differ", "share", title_justify="left")
    rows = [row for row in found.differences.to_pylist() if row["comparison"] == "training"]
    for row in sorted(rows, key=lambda row: -(row["share"] or 0))[:MOST_SIGNALS]:
        share = "" if row["share"] is None else f"{row['share']:.3%}"
        table.add_row(row["signal"], f"{row['values']:,}", f"{row['differing']:,}", share)
    return table


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
