"""``plumb models retrainings``: training runs that drift has opened, why, and what came of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from plumb.instants import show_instant
from plumb.settings import Settings

if TYPE_CHECKING:
    from monitoring.retraining import Retraining

console = Console()


def retrainings(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Argument(help="Name of a model; all where not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Show training runs that drift has opened, the newest first: for which verdict, and how they ended.

    What such a run registers is a candidate; it reaches users by a rollout alone.
    """
    from monitoring.retraining import list_retrainings

    settings: Settings = ctx.obj
    found = list_retrainings(settings.workspace, model)
    if as_json:
        typer.echo(json.dumps([describe(each) for each in found], indent=2))
        return
    if not found:
        console.print("Drift has opened no training run.")
    for each in found:
        console.print(
            f"[bold]retraining {each.id}[/bold] of {each.model}: [bold]{each.status}[/bold], opened at"
            f" {show_instant(each.opened_at_us)} by {escape(each.who)}" + (f", run {each.run_id}" if each.run_id else "")
        )
        console.print(f"  {escape(each.why)}", highlight=False)
        if each.result:
            console.print(f"  {escape(each.result)}", highlight=False)


def describe(one: Retraining) -> dict[str, Any]:
    """A retraining with its times as text."""
    times = {"drifts_since": one.drifts_since_us, "opened_at": one.opened_at_us, "finished_at": one.finished_at_us,
             "episode_ended_at": one.episode_ended_at_us}  # fmt: skip
    return {**asdict(one), **{name: None if us is None else show_instant(us) for name, us in times.items()}}
