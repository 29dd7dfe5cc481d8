"""What the stream's benchmarks run on: drawn events in a log of their own, a store beside it, and the job between."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from features.catalogs import load_catalog
from features.declarations import Catalog, View
from features.event_log.compaction import BatchHistory, open_live_log
from features.event_log.port import append_by_entity
from features.layout import US_PER_S
from features.online.addresses import ViewVersion, open_store
from features.stream_fold import Folded
from features.workspace import Workspace
from transforms.stream import StreamJob

SIGNALS: Final = (
    "sessions", "session_time", "offers_shown", "offers_clicked", "messages_sent", "messages_opened", "revenue", "refunds",
    "signups", "mobile_sessions", "session_times", "click_times",
)  # fmt: skip
SHARES: Final = {"session": 0.45, "offer_shown": 0.2, "message_sent": 0.15, "message_opened": 0.1, "offer_clicked": 0.05,
                 "payment": 0.05}  # fmt: skip
START_US: Final = 1_735_689_600 * US_PER_S
HISTORY_DAYS: Final = 30
APPEND: Final = 20_000
APPEND_EVERY_S: Final = 0.1
PROCESSES: Final = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["benchmarks.stream_runs"])  # a worker's time is folding, not importing


@dataclass(frozen=True)
class Case:
    """One measurement: how many users and signals, events of history for each user, how many events are timed."""

    users: int = 1_000_000
    signals: int = len(SIGNALS)
    history: int = 3
    events: int = 2_000_000
    micro_batch: int = 200_000


@dataclass(frozen=True)
class Site:
    """Where a case's log and store lie."""

    root: Path
    store: str
    case: Case

    @property
    def catalog(self) -> Catalog:
        shipped = load_catalog("subscription")
        view = replace(shipped.view("subscriber"), signals=SIGNALS[: self.case.signals], elapsed=(), ratios=(), bucketed=())
        return replace(shipped, views=(view,))

    @property
    def view(self) -> View:
        return self.catalog.views[0]

    def open_log(self) -> Any:
        return open_live_log(Workspace(self.root), self.catalog, "user", durability="process")

    def open_store(self) -> Any:
        return open_store(self.store, ViewVersion.of(self.catalog, self.view), create=True)


def draw(rng: np.random.Generator, case: Case, first: int, count: int, from_us: int, to_us: int) -> pa.Table:
    """Events in the order of time; ``first`` numbers their ids."""
    kinds = rng.choice(len(SHARES), count, p=list(SHARES.values()))
    user = rng.integers(0, case.users, count)
    texts = {
        "event_id": np.char.add("e", np.arange(first, first + count).astype(str)),
        "entity_id": np.char.add("u", user.astype(str)),
        "event_type": np.array(list(SHARES))[kinds],
        "region": np.full(count, "eu"),
        "platform": np.array(["ios", "web", "android"])[user % 3],
        "channel": np.array(["email", "push", "in_app"])[rng.integers(0, 3, count)],
    }
    columns = {name: pa.array(values, pa.string()) for name, values in texts.items()}
    columns["event_time"] = pa.array(np.sort(rng.integers(from_us, to_us, count)), pa.timestamp("us", "UTC"))
    columns["duration_ms"] = pa.array(rng.integers(1, 10**6, count))
    columns["amount_cents"] = pa.array(rng.integers(1, 5_000, count))
    return pa.table(columns)


def append(site: Site, first: int, count: int, from_us: int, to_us: int) -> None:
    """Append drawn events, ``APPEND`` at a time, known when they happen."""
    rng = np.random.default_rng(first)
    steps = -(-count // APPEND)
    with site.open_log() as log:
        for step in range(steps):
            low, high = (from_us + (to_us - from_us) * (step + edge) // steps for edge in (0, 1))
            size = min(APPEND, count - step * APPEND)
            append_by_entity(log, draw(rng, site.case, first + step * APPEND, size, low, high), now_us=high)


def never() -> bool:
    """A stream that ends by itself."""
    return False


def now_us() -> int:
    """The wall clock, UTC microseconds."""
    return time.time_ns() // 1_000


def job_of(site: Site, report: Callable[[Folded], None], stop_requested: Callable[[], bool] = never) -> StreamJob:
    """The same job as ``plumb stream`` runs."""
    return StreamJob(
        catalog=site.catalog, view=site.view, open_log=site.open_log, open_store=site.open_store,
        history=BatchHistory(site.root, site.catalog, "user"), now_us=now_us, stop_requested=stop_requested, report=report,
        micro_batch=site.case.micro_batch,
    )  # fmt: skip


def append_live(site: Site, rate: int, seconds: float) -> None:
    """Append ``rate`` events a second, those of ``APPEND_EVERY_S`` together, each time to all partitions."""
    count = int(rate * APPEND_EVERY_S)
    rng = np.random.default_rng(7)
    made = [draw(rng, site.case, 10**9 + step * count, count, 0, 1) for step in range(int(seconds / APPEND_EVERY_S))]
    began = time.perf_counter()
    with site.open_log() as log:
        for step, events in enumerate(made):
            time.sleep(max(0.0, began + step * APPEND_EVERY_S - time.perf_counter()))
            at_us = now_us()
            times = pa.array(np.full(count, at_us), pa.timestamp("us", "UTC"))
            append_by_entity(log, events.set_column(events.column_names.index("event_time"), "event_time", times), now_us=at_us)
