"""``plumb users``: delete users everywhere, and see who was deleted."""

from __future__ import annotations

import getpass
import json
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from plumb.errors import CommandError
from plumb.features import CATALOG_HELP, STORE_HELP, store_of
from plumb.instants import now_us, show_instant
from plumb.settings import Settings
from plumb.stream import FROM_HELP, KAFKA_HELP, Source

if TYPE_CHECKING:
    from collections.abc import Callable

    from features.declarations import Catalog
    from features.deletion import Deletion
    from features.deletion_records import Request
    from features.event_log.port import EventLog
    from features.online.store import OnlineStore

app = typer.Typer(help="Delete users, and see who was deleted.", no_args_is_help=True)
console = Console()
status = Console(stderr=True)

RETRY_S = 0.5
ENTITY_HELP = "Entity type of the ids; that of the catalog's first view if left out."
FILE_HELP = "A text file with one id a line, instead of or beside those on the command line."
REASON_HELP = "Why; it is kept with the record."
WAIT_HELP = "How long to wait for a running stream to pass the deletion, seconds; the command can be run again."
ALSO_HELP = f"{STORE_HELP} May be given more than once."
JSON_HELP = "Print JSON instead of a table."


@app.command()
def erase(  # noqa: PLR0913 - one argument an option
    ctx: typer.Context,
    catalog: Annotated[str, typer.Option("--catalog", help=CATALOG_HELP)],
    reason: Annotated[str, typer.Option("--reason", help=REASON_HELP)],
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Whom to delete.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help=FILE_HELP)] = None,
    entity: Annotated[str | None, typer.Option("--entity", help=ENTITY_HELP)] = None,
    store: Annotated[list[str] | None, typer.Option("--store", help=ALSO_HELP)] = None,
    source: Annotated[Source, typer.Option("--from", help=FROM_HELP)] = Source.FILES,
    kafka: Annotated[str, typer.Option("--kafka", help=KAFKA_HELP)] = "localhost:9092",
    wait_s: Annotated[float, typer.Option("--wait-s", min=0, help=WAIT_HELP)] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Delete users from the log, the online stores, profiles and predictions; training never sees them again.

    What could not be emptied is named, and the command ends with code 75: run it again. It does nothing twice.
    """
    from features.catalogs import load_catalog
    from features.deletion import Deletion, delete_entities
    from features.errors import TemporaryError

    settings: Settings = ctx.obj
    declared = load_catalog(catalog)
    chosen = entity or declared.views[0].entity
    opener = _log_opener(settings, declared, chosen, source, kafka)
    stores, former = _store_openers(settings, declared, chosen, store)
    task = Deletion(settings.workspace, declared, chosen, opener, stores, former)
    delete = partial(delete_entities, task, _read_ids(ids, file), who=getpass.getuser(), reason=reason)
    request = _until_complete(delete, wait_s)
    if as_json:
        typer.echo(json.dumps(asdict(request), indent=2, sort_keys=True))
    else:
        console.print(_request_table(request, task))
    if request.waiting:
        raise TemporaryError(
            f"deletion {request.id} is not complete: {'; '.join(request.waiting)}; next: run the command again"
        )


def _until_complete(delete: Callable[..., Request], wait_s: float) -> Request:
    """Ask until everything is emptied, or for so long: a running stream passes the marker within a second or two."""
    end_s = time.monotonic() + wait_s
    while True:
        request = delete(now_us=now_us())
        if not request.waiting or time.monotonic() >= end_s:
            return request
        time.sleep(RETRY_S)


@app.command()
def erased(
    ctx: typer.Context,
    entity_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Only what concerns this user.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """List deletions: when, by whom, why, what was removed where. Ids are kept as keyed hashes."""
    from features.deletion_records import DeletionRecords

    settings: Settings = ctx.obj
    requests = list(DeletionRecords(settings.workspace.deletions).list_requests(entity_id))
    if as_json:
        typer.echo(json.dumps([asdict(request) for request in requests], indent=2, sort_keys=True))
        return
    table = Table("asked", "complete", "entity", "ids", "who", "why", "removed")
    for request in requests:
        complete = _to_the_second(request.completed_us) if request.completed_us else "[yellow]no[/yellow]"
        removed = ", ".join(f"{count:,} {place}" for place, count in sorted(request.counts.items()) if count)
        asked = _to_the_second(request.requested_us)
        table.add_row(asked, complete, request.entity, f"{len(request.hashes):,}", request.who, request.reason, removed)
    console.print(table)


def _to_the_second(time_us: int) -> str:
    return show_instant(time_us // 1_000_000 * 1_000_000)


def _request_table(request: Request, task: Deletion) -> Table:
    table = Table("where", "removed", title=f"{len(request.hashes):,} of {request.entity} deleted", title_justify="left")
    table.columns[1].justify = "right"
    for place, count in sorted(request.counts.items()):
        table.add_row(place, f"{count:,}")
    for place in request.waiting:
        table.add_row(f"[yellow]waiting[/yellow] {place}", "")
    table.add_row("copies in servers' memory", "gone after their --cache-ttl-s")
    if task.open_log is not None and not task.workspace.live_log(task.entity).exists():
        table.add_row(f"topic {task.entity}", "gone after its own retention")
    return table


def _read_ids(ids: list[str] | None, file: Path | None) -> list[str]:
    from features.errors import explain

    read = file.read_text().splitlines() if file else []
    wanted = list(dict.fromkeys([*(ids or []), *(line.strip() for line in read)]))
    wanted = [entity_id for entity_id in wanted if entity_id]
    if not wanted:
        raise CommandError(
            explain("nobody to delete", which=str(file or "command line"), expected="at least one id", got="none",
                    next_step="name ids, or a file with one id a line")
        )  # fmt: skip
    return wanted


def _log_opener(
    settings: Settings, catalog: Catalog, entity: str, source: Source, kafka: str
) -> Callable[[], EventLog] | None:  # fmt: skip
    if source is Source.KAFKA:
        from features.event_log.kafka import KafkaLog

        return partial(KafkaLog.open, kafka, entity, catalog.log_partitions)
    if not settings.workspace.live_log(entity).exists():
        return None
    from features.event_log.compaction import open_live_log

    return partial(open_live_log, settings.workspace, catalog, entity)


def _store_openers(
    settings: Settings, catalog: Catalog, entity: str, given: list[str] | None
) -> tuple[dict[str, Callable[[], OnlineStore]], dict[str, Callable[[], OnlineStore]]]:
    """Every online store of the entity's views at the addresses named, else at the settings', that was ever filled.

    Returns:
        Those of the views as declared, and those of their earlier versions.
    """
    from features.online.addresses import ViewVersion, is_url, open_store, stored_version

    declared: dict[str, Callable[[], OnlineStore]] = {}
    former: dict[str, Callable[[], OnlineStore]] = {}
    for number, address in enumerate(given or [None]):
        for view in (each for each in catalog.views if each.entity == entity):
            for key in (view.key, *view.former_keys):
                named = store_of(settings, key, address)
                name = f"{key} {'server' if is_url(named) else 'files'}{f' {number + 1}' if number else ''}"
                if key == view.key:
                    opener = partial(open_store, named, ViewVersion.of(catalog, view))
                    if _was_filled(opener):
                        declared[name] = opener
                elif version := stored_version(named, key):
                    former[name] = partial(open_store, named, version)
    return declared, former


def _was_filled(opener: Callable[[], OnlineStore]) -> bool:
    """Whether a store is there; one that does not answer may be, and is waited for."""
    from features.errors import StoreMissing, StoreUnavailable

    try:
        opener().close()
    except StoreMissing:
        return False
    except StoreUnavailable:
        return True
    return True
