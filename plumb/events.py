"""``plumb events``: bring files into the event log, simulate some, see what the log holds."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from plumb.instants import now_us, parse_instant
from plumb.settings import Settings

if TYPE_CHECKING:
    from features.importing import Import, Report
    from features.inventory import LogSummary

app = typer.Typer(help="The event log: import files, simulate, count.", no_args_is_help=True)
console = Console()
status = Console(stderr=True)

JSON_HELP = "Print JSON instead of a table."
MAPPING_HELP = "A mapping file, or the name of a shipped one, such as online_retail_ii or complete_journey."
CATALOG_HELP = "Catalog to check against, where it is not the one that the mapping names: a shipped name or a dotted module."
DECLARED_HELP = "A shipped catalog's name, or a dotted module that defines CATALOG."
LATE_HELP = "Take events older than the log: they count as known from the log's last ingest time on."


@app.command("import")
def import_command(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="CSV, JSON lines or Parquet; .gz for the first two.")],
    mapping: Annotated[str, typer.Option(help=MAPPING_HELP)],
    catalog: Annotated[str | None, typer.Option(help=CATALOG_HELP)] = None,
    late: Annotated[bool, typer.Option("--late", help=LATE_HELP)] = False,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Import files into the event log; bad rows go to the dead letters, a file that is there already adds nothing."""
    from features.importing import prepare_import

    settings: Settings = ctx.obj
    started_s = time.monotonic()
    task = prepare_import(settings.workspace, mapping, catalog=catalog, now_us=now_us(), late=late)
    report = _import_with_progress(task, files)
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=2, sort_keys=True))
        return
    console.print(_report_table(report, time.monotonic() - started_s))


def _import_with_progress(task: Import, files: list[Path]) -> Report:
    from features.extraction import extract
    from features.importing import import_sources
    from features.source_files import read_source

    extracted = []
    with _progress() as progress:
        bar = progress.add_task("reading", total=2 * len(files) + 1)
        for path in files:
            progress.update(bar, description=f"reading {path.name}")
            source = read_source(path)
            progress.update(bar, advance=1, description=f"mapping {path.name}")
            extracted.append((source, extract(source, task.mapping, task.catalog)))
            progress.advance(bar)
        progress.update(bar, description="writing")
        report = import_sources(task, extracted)
        progress.advance(bar)
    return report


def _report_table(report: Report, seconds: float) -> Table:
    there = f", {report.files_already_there} already there" if report.files_already_there else ""
    table = Table(
        "what", "which", "count", title=f"{report.files} file(s) imported{there} in {seconds:.1f} s", title_justify="left"
    )
    table.columns[2].justify = "right"
    for name, count in sorted(report.events.items()):
        table.add_row("events", name, f"{count:,}")
    for name, count in sorted(report.profiles.items()):
        table.add_row("profile rows", name, f"{count:,}")
    table.add_section()
    table.add_row("rows read", "", f"{report.rows:,}")
    table.add_row("rows filtered", "asked for by no block of the mapping", f"{report.filtered:,}")
    if report.erased:
        table.add_row("erased", "of before their entity was erased; left out", f"{report.erased:,}")
    table.add_row("duplicates", "event_id seen before; kept in the log, folded once", f"{report.duplicates:,}")
    for reason, count in sorted(report.bad.items(), key=lambda entry: -entry[1]):
        table.add_row("[red]bad rows[/red]", reason, f"{count:,}")
    return table


@app.command()
def simulate(  # noqa: PLR0913 - one argument an option
    users: Annotated[int, typer.Option(min=1, help="How many users sign up.")],
    days: Annotated[int, typer.Option(min=1, help="How many days are played.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for events.parquet, accounts.parquet and the truth files.")],
    drift_day: Annotated[int | None, typer.Option(help="Day from which behaviour drifts.")] = None,
    drift_kind: Annotated[str, typer.Option(help="What drifts: engagement, unit, churn or conversion.")] = "engagement",
    sending_hours: Annotated[
        str, typer.Option(help="When messages are sent: uniform, or biased 10:1 to some hours.")
    ] = "uniform",
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Play a subscription app and write its events, its accounts and the truth behind them."""
    from simulation.simulate import simulate as play

    with _progress() as progress:
        bar = progress.add_task("playing", total=days)
        summary = play(
            users=users, days=days, seed=seed, out_dir=out, drift_day=drift_day, drift_kind=drift_kind,
            sending_hours=sending_hours,
            progress=lambda played, total: progress.update(bar, completed=played, total=total),
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(asdict(summary), indent=2, sort_keys=True, default=str))
        return
    table = Table("what", "count", title=f"{summary.users:,} users over {summary.days} days in {out}", title_justify="left")
    table.columns[1].justify = "right"
    for name, count in summary.event_types.items():
        table.add_row(name, f"{count:,}")
    table.add_section()
    for name, count in summary.deliveries.items():
        table.add_row(f"delivered {name}", f"{count:,}")
    table.add_row("duplicates", f"{summary.duplicates:,}")
    table.add_row("users who upgraded", f"{summary.upgraded_users:,}")
    table.add_row("users who cancelled", f"{summary.cancelled_users:,}")
    table.add_row("rows of events.parquet", f"{summary.rows:,}")
    console.print(table)


@app.command()
def expire(
    ctx: typer.Context,
    catalog: Annotated[
        str, typer.Option("--catalog", help="A shipped catalog's name, or a dotted module that defines CATALOG.")
    ],
    now: Annotated[str | None, typer.Option("--now", help="The time from which ages count; now if left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Drop raw events older than their region's retention, predictions older than the shortest; snapshots keep the states."""
    from features.catalogs import load_catalog
    from features.retention import expire_events

    settings: Settings = ctx.obj
    declared = load_catalog(catalog)
    at_us = parse_instant(now) if now else now_us()
    done = [expire_events(settings.workspace, declared, entity, now_us=at_us) for entity in declared.entities]
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in done], indent=2, sort_keys=True, default=str))
        return
    table = Table("log", "events dropped", "live files dropped", "prediction files dropped", "kept from")
    for each in done:
        kept = (
            ", ".join(f"{region}: {day}" for region, day in each.first_days.items()) or "the beginning: no retention declared"
        )
        served = f"{sum(each.prediction_files.values()):,}"
        table.add_row(each.entity, f"{each.events:,}", f"{each.live_files:,}", served, kept)
    console.print(table)


@app.command()
def stats(ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False) -> None:
    """Count what the event log holds: events by type, times, partitions, dead letters by reason."""
    from features.inventory import summarize_logs

    settings: Settings = ctx.obj
    summaries = summarize_logs(settings.workspace)
    if as_json:
        typer.echo(json.dumps([asdict(summary) for summary in summaries], indent=2, sort_keys=True))
        return
    if not summaries:
        console.print(f"No events in {settings.workspace.root} yet; `plumb events import` brings some.")
    for summary in summaries:
        console.print(_log_table(summary))


def _log_table(summary: LogSummary) -> Table:
    table = Table("what", "which", "count", title=f"log of {summary.entity}: {summary.events:,} events", title_justify="left")
    table.columns[2].justify = "right"
    for name, count in summary.event_types.items():
        table.add_row("events", name, f"{count:,}")
    table.add_section()
    for partition, count in summary.partitions.items():
        table.add_row("partition", f"{partition} by {summary.partition_hash}", f"{count:,}")
    table.add_section()
    table.add_row("event times", f"{summary.first_event_time} .. {summary.last_event_time}", "")
    table.add_row("known until", summary.last_ingest_time, "")
    table.add_row("files", "", f"{summary.files:,}")
    for reason, count in summary.dead_letters.items():
        table.add_row("[red]dead letters[/red]", reason, f"{count:,}")
    return table


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=status, transient=True, disable=not status.is_terminal)
