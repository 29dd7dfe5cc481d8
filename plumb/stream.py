"""``plumb stream``: fold events into the online store as they arrive, append some, bring the tail into the batch log."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from features.errors import TemporaryError
from plumb.instants import now_us
from plumb.settings import Settings
from plumb.stream_metrics import exporting
from plumb.stream_progress import Progress, ProgressFile, clear_progress, read_progress
from plumb.stream_workers import divide, on_stop, request_stop, run_workers, stop_requested

if TYPE_CHECKING:
    from features.declarations import Catalog, View
    from features.event_log.port import EventLog
    from features.online.store import OnlineStore

app = typer.Typer(help="Events as they arrive: fold them into the online store.", invoke_without_command=True)
status = Console(stderr=True)

CATALOG_HELP = "A shipped catalog's name, or a dotted module that defines CATALOG."
VIEW_HELP = "The view to keep fresh; the catalog's first if left out."
FROM_HELP = "Where events arrive: log files in the workspace, or Kafka."
KAFKA_HELP = "Kafka's bootstrap servers, host:port."
STORE_HELP = "Folder of an LMDB store or a redis:// address; the workspace's own store if left out."
WORKERS_HELP = "Processes among which the partitions are divided."
CAUGHT_UP_HELP = "End once everything that was in the log at the start is folded."
MICRO_BATCH_HELP = "At most about this many events a commit."
PARTITION_HELP = "Fold this partition only; may be given several times. All if left out."
COMPACT_HELP = "Seconds between compactions of log files into the batch log while the stream runs; 0 for none."
METRICS_HELP = "Port on 127.0.0.1 of /metrics; 0 takes a free one, which Prometheus finds by a file in the workspace."
PROGRESS_S = 2.0


class Source(StrEnum):
    """Adapters of the event log."""

    FILES = "files"
    KAFKA = "kafka"


@app.callback()
def stream(  # noqa: PLR0913 - a command's options
    ctx: typer.Context,
    catalog: Annotated[str | None, typer.Option("--catalog", help=CATALOG_HELP)] = None,
    view: Annotated[str | None, typer.Option("--view", help=VIEW_HELP)] = None,
    source: Annotated[Source, typer.Option("--from", help=FROM_HELP)] = Source.FILES,
    kafka: Annotated[str, typer.Option("--kafka", help=KAFKA_HELP)] = "127.0.0.1:9092",
    store: Annotated[str | None, typer.Option("--store", help=STORE_HELP)] = None,
    runner: Annotated[str, typer.Option("--runner", help="Name of the Beam runner.")] = "FnApiRunner",
    workers: Annotated[int, typer.Option("--workers", min=1, help=WORKERS_HELP)] = 1,
    until_caught_up: Annotated[bool, typer.Option("--until-caught-up", help=CAUGHT_UP_HELP)] = False,
    micro_batch: Annotated[int, typer.Option("--micro-batch", min=1, help=MICRO_BATCH_HELP)] = 200_000,
    compact_s: Annotated[float, typer.Option("--compact-every", min=0, help=COMPACT_HELP)] = 0,
    partitions: Annotated[list[int] | None, typer.Option("--partition", help=PARTITION_HELP)] = None,
    metrics_port: Annotated[int, typer.Option("--metrics-port", help=METRICS_HELP)] = 0,
) -> None:
    """Fold events into a view's online store as they arrive, until SIGTERM. Killed at any point, it goes on where it was."""
    if ctx.invoked_subcommand:
        return
    from features.catalogs import load_catalog

    if catalog is None:
        raise typer.BadParameter("name a catalog", param_hint="--catalog")
    on_stop(request_stop)
    settings: Settings = ctx.obj
    declared = load_catalog(catalog)
    entry = _view_of(declared, view)
    chosen = tuple(sorted(set(partitions or range(declared.log_partitions))))
    feed = Feed(settings, declared, entry, source, kafka, store or str(settings.workspace.online(entry.key)))
    whole = not partitions
    if whole:
        clear_progress(settings.workspace.stream_status(entry.key))
    with ExitStack() as stack:
        if whole:
            stack.enter_context(exporting(settings.workspace, entry.key, partial(_open_log, feed), metrics_port))
            stack.enter_context(_watching(feed, compact_s))
        if workers == 1:
            run(feed, chosen, runner=runner, until_caught_up=until_caught_up, micro_batch=micro_batch)
            return
        _open_log(feed).close()  # made once, before several processes look for it
        _open_store(feed).close()
        options = ["--workspace", str(settings.workspace_root), "stream", "--catalog", catalog, "--view", entry.name]
        options += ["--from", source, "--kafka", kafka, "--store", feed.store, "--runner", runner]
        options += ["--micro-batch", str(micro_batch), *(["--until-caught-up"] if until_caught_up else [])]
        shares = divide(chosen, workers)
        failed = run_workers([[*options, *(f"--partition={number}" for number in share)] for share in shares])
    if failed:
        raise typer.Exit(failed)


@app.command("append")
def append(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Parquet with the columns of an event.")],
    catalog: Annotated[str, typer.Option("--catalog", help=CATALOG_HELP)],
    entity: Annotated[str | None, typer.Option("--entity", help="Entity type; the first view's if left out.")] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Events synced to disk together.")] = 10_000,
) -> None:
    """Append events from Parquet files to the live log, known from now on."""
    import pyarrow.parquet as pq

    from features.catalogs import load_catalog
    from features.event_log.compaction import open_live_log
    from features.event_log.port import append_by_entity

    settings: Settings = ctx.obj
    declared = load_catalog(catalog)
    with open_live_log(settings.workspace, declared, entity or declared.views[0].entity) as log:
        for path in files:
            events = pq.read_table(path)
            for start in range(0, events.num_rows, batch):
                append_by_entity(log, events.slice(start, batch), now_us=now_us())
            status.print(f"{path}: {events.num_rows:,} events appended")


@app.command("compact")
def compact(
    ctx: typer.Context,
    catalog: Annotated[str, typer.Option("--catalog", help=CATALOG_HELP)],
    entity: Annotated[str | None, typer.Option("--entity", help="Entity type; the first view's if left out.")] = None,
) -> None:
    """Bring the live log's tail into the batch log and the dead letters, each event once."""
    from features.catalogs import load_catalog
    from features.event_log.compaction import compact as move
    from features.event_log.compaction import open_live_log

    settings: Settings = ctx.obj
    declared = load_catalog(catalog)
    chosen = entity or declared.views[0].entity
    with open_live_log(settings.workspace, declared, chosen) as log:
        done = move(log, settings.workspace, declared, chosen, now_us=now_us())
    status.print(f"{done.events:,} events moved to the batch log, {done.refused:,} rows to the dead letters")


@dataclass(frozen=True)
class Feed:
    """From which log into which store."""

    settings: Settings
    catalog: Catalog
    view: View
    source: Source
    kafka: str
    store: str


def run(feed: Feed, partitions: tuple[int, ...], *, runner: str, until_caught_up: bool, micro_batch: int) -> None:
    """Fold these partitions in this process; ends as ``transforms.stream.run_stream`` does."""
    from features.event_log.compaction import BatchHistory
    from transforms.stream import StreamJob, run_stream

    _open_log(feed).close()
    _open_store(feed).close()
    workspace = feed.settings.workspace
    folder = workspace.stream_status(feed.view.key)
    folder.mkdir(parents=True, exist_ok=True)
    job = StreamJob(
        catalog=feed.catalog,
        view=feed.view,
        open_log=partial(_open_log, feed),
        open_store=partial(_open_store, feed),
        history=BatchHistory(workspace.root, feed.catalog, feed.view.entity),
        now_us=now_us,
        stop_requested=stop_requested,
        report=ProgressFile(folder / f"worker-{partitions[0]:03d}.json"),
        micro_batch=micro_batch,
    )
    run_stream(job, partitions, runner=runner, until_caught_up=until_caught_up)


def _open_log(feed: Feed) -> EventLog:
    from features.event_log.compaction import open_live_log

    if feed.source is Source.KAFKA:
        from features.event_log.kafka import KafkaLog

        return KafkaLog.open(feed.kafka, feed.view.entity, feed.catalog.log_partitions)
    return open_live_log(feed.settings.workspace, feed.catalog, feed.view.entity)


def _open_store(feed: Feed) -> OnlineStore:
    from features.online.addresses import ViewVersion, open_store

    return open_store(feed.store, ViewVersion.of(feed.catalog, feed.view), create=True)


@contextmanager
def _watching(feed: Feed, compact_s: float) -> Iterator[None]:
    """Print progress, and compact, beside the work."""
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(feed, compact_s, ended), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        _show(feed, Progress())


def _watch(feed: Feed, compact_s: float, ended: threading.Event) -> None:
    from features.event_log.compaction import compact as move

    before, compacted = Progress(), time.monotonic()
    while not ended.wait(PROGRESS_S):
        before = _show(feed, before)
        if compact_s and time.monotonic() - compacted >= compact_s:
            try:
                with _open_log(feed) as log:
                    move(log, feed.settings.workspace, feed.catalog, feed.view.entity, now_us=now_us())
            except TemporaryError as error:  # held by a deletion, say: the next time will do
                status.print(f"  not compacted this time: {error}", style="yellow", highlight=False, soft_wrap=True)
            compacted = time.monotonic()


def _show(feed: Feed, before: Progress) -> Progress:
    """One line, if anything has happened since."""
    total = read_progress(feed.settings.workspace.stream_status(feed.view.key))
    if total.commits != before.commits:
        late_s = (now_us() - min(total.newest_us.values())) / 1e6
        line = f"{feed.view.key}: {total.events:,} events, {total.repeats:,} repeats, {total.commits:,} commits"
        status.print(f"{line}, last event of the slowest partition {late_s:,.1f} s ago", highlight=False)
        for reason, count in sorted(total.refused.items()):
            if reason not in before.refused:
                status.print(f"  refused {count:,}: {reason}", style="yellow", highlight=False)
        for name in sorted(set(total.new_attributes) - set(before.new_attributes)):
            status.print(f"  new attribute {name}: ignored until it is declared", highlight=False)
    return total


def _view_of(catalog: Catalog, name: str | None) -> View:
    return catalog.views[0] if name is None else catalog.view(name)
