"""``plumb features``: fill the online store from the log, and look at one entity's finished features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from plumb.instants import now_us, parse_instant
from plumb.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

app = typer.Typer(help="Fill the online store and look into it.", no_args_is_help=True)
console = Console()

CATALOG_HELP = "A shipped catalog's name, or a dotted module that defines CATALOG."
AS_OF_HELP = "The store holds what was known at this time; a date or an ISO 8601 time with its zone. Now if left out."
OUTPUT_HELP = "Write the rows to this Parquet file too."
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


@app.command("freshness")
def freshness(
    ctx: typer.Context,
    catalog: Annotated[str, typer.Option("--catalog", help=CATALOG_HELP)],
    view: Annotated[str | None, typer.Option("--view", help="One view; all of the catalog's if left out.")] = None,
    store: Annotated[str | None, typer.Option("--store", help=STORE_HELP)] = None,
    output: Annotated[Path | None, typer.Option("--output", help=OUTPUT_HELP)] = None,
) -> None:
    """Show how old each view's online store is against its promise."""
    import pyarrow as pa

    from features.catalogs import load_catalog
    from features.freshness import measure_freshness
    from features.online.addresses import ViewVersion, open_store

    settings: Settings = ctx.obj
    declared, measured_us = load_catalog(catalog), now_us()
    tables: list[pa.Table] = []
    shown = Table("view", "shard", "log offset", "age", "promise", "")
    for entry in [declared.view(view)] if view else declared.views:
        with open_store(store_of(settings, entry.key, store), ViewVersion.of(declared, entry), readonly=True) as opened:
            tables.append(measure_freshness(opened, entry, now_us=measured_us))
    rows = pa.concat_tables(tables)
    for row in rows.to_pylist():
        age = "never filled" if row["age_s"] is None else f"{row['age_s']:,.0f} s"
        remark = "half filled" if row["half_filled"] else "late" if row["late"] else ""
        shown.add_row(
            row["view_key"], str(row["shard"]), f"{row['log_offset']:,}", age, f"{row['freshness_sla_s']:,} s", remark
        )
    finish(rows, shown, output)


@app.command("quality")
def quality(
    ctx: typer.Context,
    catalog: Annotated[str, typer.Option("--catalog", help=CATALOG_HELP)],
    hour: Annotated[str, typer.Option("--hour", help="The start of an hour of ingest time, ISO 8601 with its zone.")],
    weeks: Annotated[int, typer.Option("--weeks", min=1, help="How many earlier weeks it stands beside.")] = 4,
    output: Annotated[Path | None, typer.Option("--output", help=OUTPUT_HELP)] = None,
) -> None:
    """Show volume, null rates and unseen values of one hour of the event logs beside earlier weeks."""
    import pyarrow as pa

    from features.catalogs import load_catalog
    from features.quality import measure_quality

    settings: Settings = ctx.obj
    declared, hour_us = load_catalog(catalog), parse_instant(hour)
    rows = pa.concat_tables(
        [measure_quality(settings.workspace, declared, entity, hour_us=hour_us, weeks=weeks) for entity in declared.entities]
    )
    shown = Table("entity", "event type", "attribute", "measure", "value", "reference", "low", "high", "unseen")
    for row in rows.to_pylist():
        numbers = (row["value"], row["reference"], row["reference_low"], row["reference_high"])
        words = ["" if number is None else f"{number:,.4g}" for number in numbers]
        shown.add_row(row["entity"], row["event_type"], row["attribute"] or "", row["metric"], *words, row["detail"] or "")
    finish(rows, shown, output)


def finish(rows: pa.Table, shown: Table, output: Path | None) -> None:
    """Print a table, and write its rows where that was asked for, whole or not at all."""
    import pyarrow.parquet as pq

    console.print(shown)
    if output is not None:
        partial = output.with_name(f"{output.name}.partial")
        pq.write_table(rows, partial)
        partial.rename(output)
