"""``plumb models delays``: train in every way on what was known at past cutoffs, and compare with what finally happened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from plumb.instants import parse_instant
from plumb.native_log import native_log
from plumb.runs import show_figure
from plumb.settings import Settings

console = Console()
status = Console(stderr=True)

NATIVE_LOG = "native.log"
CUTOFF_HELP = "Learn from what was known then; a date or an ISO 8601 time with its zone. Repeatable."
NAMES = {
    "hazard": "hazard, censored rows included",
    "fake_negative": "fake negatives, weighted",
    "matured": "matured rows alone",
    "naive": "naive: no outcome yet, so negative",
}


def delays(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Name of a model spec that learns by a hazard.")],
    cutoff: Annotated[list[str], typer.Option("--cutoff", metavar="TIME", help=CUTOFF_HELP)],
    days: Annotated[int, typer.Option("--days", min=1, help="Judge rows of so many days before the cutoff.")] = 60,
    history_days: Annotated[
        int | None, typer.Option("--history-days", min=1, help="Learn from rows of so many days before the cutoff alone.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of weights, shuffling and bootstrap.")] = 0,
) -> None:
    """Compare the ways to learn from labels that are still open, on rows drawn shortly before past cutoffs.

    The judged rows are held out: none of them is learned from. What finally happened is read from the whole log.
    """
    settings: Settings = ctx.obj
    cutoffs_us = [(text, parse_instant(text)) for text in cutoff]
    settings.workspace.root.mkdir(parents=True, exist_ok=True)
    with native_log(settings.workspace.root / NATIVE_LOG):
        from components.delay_study import compare, judge_ways, pool
    parts = []
    for text, cutoff_us in cutoffs_us:
        status.print(f"learning in {len(NAMES)} ways from what was known at {text}; this takes minutes")
        with TemporaryDirectory() as folder, native_log(settings.workspace.root / NATIVE_LOG):
            parts.append(
                judge_ways(settings.workspace, model, cutoff_us, Path(folder), days=days, seed=seed, history_days=history_days)
            )
        console.print(table_of(f"{model}, {days} days before {text}", compare(parts[-1], seed=seed)))
    if len(parts) > 1:
        console.print(table_of(f"{model}, all {len(parts)} cutoffs together", compare(pool(parts), seed=seed)))


def table_of(title: str, study: Mapping[str, Any]) -> Table:
    """One line a way."""
    share, counts = study["share"], f"{study['rows']:,} rows in {study['units']:,} units"
    table = Table("way to learn", "log loss", "AUC", f"mean score (share was {share:.3f})", "hazard's gain in log loss",
                  title=f"{title}: {counts}", title_justify="left")  # fmt: skip
    for way, figures in study["ways"].items():
        table.add_row(
            NAMES[way],
            show_figure(figures["log_loss"], ".4f"),
            show_figure(figures["auc"]),
            f"{figures['mean_score']:.3f}, {figures['mean_score'] - share:+.3f}",
            show_figure(figures["gain"], "+.4f") if "gain" in figures else "",
        )
    return table
