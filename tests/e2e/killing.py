"""A stream that is killed again and again while events arrive, and what the batch path makes of the same events."""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import pyarrow as pa
from parity.adversarial import draw_events, to_table

from features.catalogs import load_catalog
from features.codec import body_of
from features.erasure import ERASED
from features.event_log.compaction import BatchHistory, compact
from features.event_log.kafka import KafkaLog
from features.event_log.port import STAMPED, EventLog
from features.layout import US_PER_S
from features.online.addresses import ViewVersion, open_store
from features.online.store import OnlineStore
from features.rows import event_schema
from features.stream_fold import Folded
from features.workspace import Workspace
from transforms.materialize import materialize
from transforms.stream import StreamJob, run_stream

CATALOG = load_catalog("subscription")
VIEW = CATALOG.view("subscriber")
PARTITIONS = tuple(range(CATALOG.log_partitions))
LATER_US = 2_000_000_000 * US_PER_S
MICRO_BATCH = 60
"""Small, so that a kill often meets a commit."""
ARRIVAL_S = 0.002
"""Time from one event to the next while a stream lives."""

# A child is forked from a process that has imported what takes long: the time to the next kill is spent folding.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["transforms.materialize", "transforms.stream"])


@dataclass(frozen=True)
class Stream:
    """Where the events are and where their states go; ``kills`` times it is killed with signal 9.

    So many ``deletions`` of users stand among the events, many of them of users who come back.
    """

    workspace: Workspace
    open_log: Callable[[], EventLog]
    store: str
    kills: int
    seed: int
    users: int
    deletions: int = 0

    @property
    def commits(self) -> Path:
        return self.workspace.root / "commits"

    def open_store(self) -> OnlineStore:
        return open_store(self.store, ViewVersion.of(CATALOG, VIEW), create=True)


def run_and_kill(stream: Stream) -> int:
    """Append awkward events while the stream is killed, then let it catch up; returns in how many lives it committed."""
    events = to_table(
        draw_events(stream.users, stream.seed, partitions=len(PARTITIONS), admissible=False),
        event_schema(CATALOG.attributes_of("user")),
    )
    rng = random.Random(stream.seed)
    events = with_deletions(events, stream.deletions, rng)
    stream.open_store().close()
    share = -(-events.num_rows // stream.kills)
    with stream.open_log() as log:
        moved = sum(live_and_die(stream, log, events.slice(life * share, share), rng) for life in range(stream.kills))
    last = PROCESSES.Process(target=follow, args=(stream, True))
    last.start()
    last.join()
    assert last.exitcode == 0
    return moved


def with_deletions(events: pa.Table, count: int, rng: random.Random) -> pa.Table:
    """The events with deletion markers behind random ones, each of that event's user or of an earlier one's."""
    pieces, start = [], 0
    for number, place in enumerate(sorted(rng.sample(range(events.num_rows), count))):
        row = events.slice(rng.randrange(place + 1), 1).to_pylist()[0]
        before = events.slice(place, 1)
        (at,) = before["ingest_time"].to_pylist()
        blank = dict.fromkeys(events.column_names) | {name: row[name] for name in ("entity_id", "region", "log_partition")}
        stamp = {"event_id": f"erasure-{number}", "event_type": ERASED, "event_time": at, "ingest_time": at, "log_offset": 0}
        marker = blank | stamp | {"ingest_day": at.date()}
        pieces += [events.slice(start, place + 1 - start), pa.Table.from_pylist([marker], schema=events.schema)]
        start = place + 1
    return pa.concat_tables([*pieces, events.slice(start)])


def live_and_die(stream: Stream, log: EventLog, events: pa.Table, rng: random.Random) -> bool:
    """Start the stream, kill it at a random moment while events arrive; whether it had committed anything."""
    before = positions(stream)
    early = events.num_rows // 2
    append_as_they_came(log, events.slice(0, early), pause_s=0)
    stream.commits.unlink(missing_ok=True)
    child = PROCESSES.Process(target=follow, args=(stream, False))
    child.start()
    producer = threading.Thread(target=append_as_they_came, args=(log, events.slice(early), ARRIVAL_S))
    producer.start()
    try:
        wait_for_commits(stream, rng.randrange(len(PARTITIONS)))
        time.sleep(rng.random() * 0.05)
        assert child.exitcode is None
    finally:
        child.kill()
        child.join()
        producer.join()
    assert child.exitcode == -9
    return positions(stream) != before


def wait_for_commits(stream: Stream, count: int) -> None:
    """Until the present life has made so many; each puts a byte into a file."""
    for _ in range(6_000):
        if count == 0 or (stream.commits.exists() and stream.commits.stat().st_size >= count):
            return
        time.sleep(0.01)
    raise AssertionError(f"{count} commits did not come")


def wait_for_claims(stream: Stream, log: EventLog) -> None:
    """Until every partition that holds events has a writer: before that, anyone may rightly become it."""
    with stream.open_store() as store:
        for _ in range(6_000):
            if all(store.watermark(partition).epoch for partition in PARTITIONS if log.end_offset(partition)):
                return
            time.sleep(0.01)
    raise AssertionError("not every partition was claimed")


@dataclass(frozen=True)
class CountCommits:
    """A stream's report: one byte a commit."""

    path: Path

    def __call__(self, done: Folded) -> None:
        with self.path.open("ab") as file:
            file.write(b".")


def follow(stream: Stream, until_caught_up: bool) -> None:
    """The stream's process."""
    run_stream(
        StreamJob(
            catalog=CATALOG,
            view=VIEW,
            open_log=stream.open_log,
            open_store=stream.open_store,
            history=BatchHistory(stream.workspace.root, CATALOG, VIEW.entity),
            now_us=now_us,
            stop_requested=never,
            report=CountCommits(stream.commits),
            micro_batch=MICRO_BATCH,
        ),
        PARTITIONS,
        until_caught_up=until_caught_up,
    )


def open_kafka(servers: str, topic: str) -> EventLog:
    """A topic stamped by its writer. A function, because Beam pickles class methods by value."""
    return KafkaLog.create(servers, topic, len(PARTITIONS), stamped_by="writer")


def now_us() -> int:
    return LATER_US + time.monotonic_ns() // 1_000


def never() -> bool:
    return False


def positions(stream: Stream) -> list[int]:
    with stream.open_store() as store:
        return [store.watermark(partition).log_offset for partition in PARTITIONS]


def append_as_they_came(log: EventLog, events: pa.Table, pause_s: float) -> None:
    """Append events at their own ingest times, pausing so long for each."""
    ingest_us = events["ingest_time"].cast(pa.int64()).to_pylist()
    places = events["log_partition"].to_pylist()
    sent = events.drop_columns([*STAMPED, "log_partition", "ingest_day"])
    for (at_us, partition), rows in groupby(range(events.num_rows), key=lambda row: (ingest_us[row], places[row])):
        chosen = list(rows)
        log.append(partition, sent.slice(chosen[0], len(chosen)), now_us=at_us)
        if pause_s:
            time.sleep(pause_s * len(chosen))


def assert_equal_to_batch(stream: Stream, folder: Path, *, least_refused: int = 1) -> None:
    """Compare body bytes of every entity of the log with a fill from the batch log."""
    with stream.open_log() as log:
        moved = compact(log, stream.workspace, CATALOG, "user", now_us=LATER_US)
        batches = [batch for partition in PARTITIONS for batch in log.read(partition, 0, 10**9)]
        ends = [log.end_offset(partition) for partition in PARTITIONS]
    names = sorted({name for batch in batches for name in batch["entity_id"].to_pylist()})
    assert moved.refused >= least_refused
    assert moved.events + moved.refused + moved.erased == sum(ends)
    materialize(stream.workspace, CATALOG, VIEW, as_of_us=2 * LATER_US, store=str(folder / "batch"))
    with stream.open_store() as streamed, open_batch(str(folder / "batch")) as batch:
        assert [streamed.watermark(partition).log_offset + 1 for partition in PARTITIONS] == ends
        expected, found = batch.get_many(names).states, streamed.get_many(names).states
    assert sum(map(bool, expected)) > len(names) // 2
    different = [name for name, one, other in zip(names, expected, found, strict=True) if body_of(one) != body_of(other)]
    assert different == []


open_batch = partial(open_store, version=ViewVersion.of(CATALOG, VIEW), readonly=True)
