"""``plumb features``: fill the online store from the log, and look at one entity's finished features."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from plumb.instants import now_us, parse_instant
from plumb.settings import Settings

app = typer.Typer(help="Fill the online store and look into it.", no_args_is_help=True)
console = Console()

CATALOG_HELP = "A shipped catalog's name, or a dotted module that defines CATALOG."
AS_OF_HELP = "The store holds what was known at this time; a date or an ISO 8601 time with its zone. Now if left out."
STORE_HELP = "redis://HOST:PORT/DATABASE, or a folder, with one for each view. PLUMB_STORE or the workspace's if left out."


def store_of(settings: Settings, view_key: str, given: str | None) -> str:
    """Address of a view version's online store: a server holds all views, a folder has one folder for each."""
    from features.online.addresses import is_url

    address = given or settings.store
    if address is None:
        return str(settings.workspace.online(view_key))
    return address if is_url(address) else str(Path(address) / view_key)


@app.command("materialize")
def materialize(
    ctx: typer.Context,
    catalog: Annotated[str, typer.Option("--catalog", help=CATALOG_HELP)],
    view: Annotated[str | None, typer.Option("--view", help="One view; all of the catalog's if left out.")] = None,
    as_of: Annotated[str | None, typer.Option("--as-of", help=AS_OF_HELP)] = None,
    runner: Annotated[str, typer.Option("--runner", help="Name of the Beam runner.")] = "FnApiRunner",
    store: Annotated[str | None, typer.Option("--store", help=STORE_HELP)] = None,
) -> None:
    """Fold the event log into the online store."""
    from features.catalogs import load_catalog
    from transforms.materialize import materialize as fill

    settings: Settings = ctx.obj
    declared = load_catalog(catalog)
    views = [declared.view(view)] if view else declared.views
    as_of_us = parse_instant(as_of) if as_of else now_us()
    table = Table("view", "events", "entities", "state bytes", "bytes an entity")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for entry in views:
            task = progress.add_task(f"materialize {entry.key}", total=None)
            address = store_of(settings, entry.key, store)
            shards = fill(settings.workspace, declared, entry, as_of_us=as_of_us, runner=runner, store=address)
            progress.update(task, total=1, completed=1)
            entities, size = sum(shard.entities for shard in shards), sum(shard.state_bytes for shard in shards)
            table.add_row(
                entry.key,
                f"{sum(shard.events for shard in shards):,}",
                f"{entities:,}",
                f"{size:,}",
                f"{size / max(entities, 1):,.0f}",
            )
    console.print(table)
