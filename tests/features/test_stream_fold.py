"""A stream, however it is cut and interrupted, leaves the bytes that the batch path gives."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parity.adversarial import draw_events, to_table

from features.catalogs import load_catalog
from features.codec import encode_states
from features.erasure import NONE, Markers
from features.errors import EventLogError, StoreError
from features.event_log.files import FileLog
from features.event_log.port import STAMPED
from features.events import deduplicate
from features.layout import MAX_FUTURE_S, US_PER_S
from features.online.addresses import ViewVersion
from features.online.addresses import open_store as open_store_at
from features.online.lmdb import LmdbStore
from features.online.store import CommitConflict, OnlineStore, Watermark
from features.partitions import partition_of
from features.rows import event_schema
from features.stream_fold import ShardFold
from features.tiles import fold, no_tiles, plan_fold

CATALOG = load_catalog("subscription")
VIEW = CATALOG.view("subscriber")
PARTITIONS = CATALOG.log_partitions
NOW_US = 2_000_000_000 * US_PER_S


class NoHistory:
    """That of a log which starts at offset 0 and was never compacted."""

    def __call__(self, partition: int, since_us: int, before: int) -> pa.Table:
        raise AssertionError("a log that starts at offset 0 needs no history")

    def markers(self, partition: int, before: int) -> tuple[Markers, int]:
        return NONE, 0


@pytest.fixture(scope="module")
def table() -> pa.Table:
    """Awkward events of 60 users, those dated too far ahead included."""
    events = draw_events(60, 3, partitions=PARTITIONS, admissible=False)
    return to_table(events, event_schema(CATALOG.attributes_of("user")))


@pytest.fixture(scope="module")
def log(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileLog]:
    """The same events, appended when they arrived."""
    with FileLog.create(tmp_path_factory.mktemp("stream") / "log", [0] * PARTITIONS, durability="process") as log:
        ingest_us = table["ingest_time"].cast(pa.int64()).to_pylist()
        places = table["log_partition"].to_pylist()
        sent = table.drop_columns([*STAMPED, "log_partition", "ingest_day"])
        for (now_us, partition), rows in groupby(range(table.num_rows), key=lambda row: (ingest_us[row], places[row])):
            chosen = list(rows)
            log.append(partition, sent.slice(chosen[0], len(chosen)), now_us=now_us)
        yield log


@pytest.fixture(scope="module")
def expected(table: pa.Table) -> dict[str, bytes]:
    """States by one batch fold of all admissible events, each repeat dropped."""
    ahead_us = table["event_time"].cast(pa.int64()).to_numpy() - table["ingest_time"].cast(pa.int64()).to_numpy()
    events = deduplicate(table.filter(pa.array(ahead_us <= MAX_FUTURE_S * US_PER_S)))
    encoded = events["entity_id"].combine_chunks().dictionary_encode()
    owner = encoded.indices.to_numpy().astype(np.int64)
    names = encoded.dictionary.to_pylist()
    offsets = np.zeros(len(names), np.int64)
    np.maximum.at(offsets, owner, events["log_offset"].to_numpy())
    tiles = fold(no_tiles(), events, owner, plan_fold(CATALOG.signals_of(VIEW)))
    states = encode_states(tiles, partition_of(names, PARTITIONS).astype(np.int64), offsets)
    return dict(zip(names, states.to_pylist(), strict=True))


def open_store(folder: Path) -> LmdbStore:
    return LmdbStore.open(
        folder / "store", view_key=VIEW.key, view_hash=CATALOG.view_hash(VIEW), partitions=PARTITIONS, create=True
    )


def start(log: FileLog, store: OnlineStore, partition: int) -> ShardFold:
    return ShardFold(log, store, CATALOG, VIEW, partition, NoHistory())


@settings(max_examples=16, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    partition=st.integers(0, PARTITIONS - 1),
    limits=st.lists(st.integers(15, 500), min_size=1, max_size=8),
    restarts=st.sets(st.integers(0, 8), max_size=3),
)
def test_any_batching_and_any_restarts_give_the_bytes_of_the_batch(
    log: FileLog, expected: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, partition: int, limits: list[int],
    restarts: set[int],
) -> None:  # fmt: skip
    with open_store(tmp_path_factory.mktemp("any")) as store:
        writer, turn = start(log, store, partition), 0
        while writer.fold_next(limits[turn % len(limits)] + turn, NOW_US):
            turn += 1
            if turn in restarts:
                writer = start(log, store, partition)
        names = [
            name for name, place in zip(expected, partition_of(list(expected), PARTITIONS), strict=True) if place == partition
        ]
        assert dict(zip(names, store.get_many(names).states, strict=True)) == {name: expected[name] for name in names}


def test_a_shard_that_has_read_everything_is_as_of_the_time_of_asking(log: FileLog, tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        writer = start(log, store, 0)
        first = writer.fold_next(5, NOW_US)
        assert first is not None
        assert writer.position.as_of_us == first.newest_us < NOW_US
        assert not writer.advance(NOW_US)
        while writer.fold_next(10_000, NOW_US):
            pass
        assert store.watermark(0).as_of_us == NOW_US
        assert writer.advance(NOW_US + 7)
        end = log.end_offset(0) - 1
        assert (store.watermark(0).log_offset, store.watermark(0).as_of_us) == (end, NOW_US + 7)


def test_a_commit_tells_what_it_met(log: FileLog, table: pa.Table, tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        writer = start(log, store, 0)
        done = writer.fold_next(10**9, NOW_US)
        assert done is not None
        own = table.filter(pa.array(table["log_partition"].to_numpy() == 0))
        ahead_us = own["event_time"].cast(pa.int64()).to_numpy() - own["ingest_time"].cast(pa.int64()).to_numpy()
        ahead = int((ahead_us > MAX_FUTURE_S * US_PER_S).sum())
        assert (done.events, done.next_offset, done.refused) == (
            own.num_rows, own.num_rows, {"event_time is more than 300 s after ingest_time": ahead},
        )  # fmt: skip
        kept = deduplicate(own.filter(pa.array(ahead_us <= MAX_FUTURE_S * US_PER_S)))
        assert done.events - ahead - done.repeats == kept.num_rows
        assert sorted(done.entity_ids) == sorted(kept["entity_id"].unique().to_pylist())


def test_a_paused_writer_cannot_write_once_another_has_taken_over(log: FileLog, tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        paused = start(log, store, 0)
        paused.fold_next(50, NOW_US)
        heir = start(log, store, 0)
        heir.fold_next(70, NOW_US)
        before = store.watermark(0)
        with pytest.raises(CommitConflict):
            paused.fold_next(50, NOW_US)
        with pytest.raises(CommitConflict):
            paused.fold_next(50, NOW_US)
        assert store.watermark(0) == before
        assert heir.fold_next(50, NOW_US)


def test_a_store_that_lost_its_last_commits_is_caught_up_from_its_own_offset(
    log: FileLog, expected: dict[str, bytes], redis_url: str
) -> None:
    version = ViewVersion.of(CATALOG, VIEW)
    with open_store_at(redis_url, version, create=True) as store, redis.Redis.from_url(redis_url) as server:
        writer = start(log, store, 0)
        writer.fold_next(100, NOW_US)
        kept = {key: server.dump(key) for key in server.scan_iter()}
        writer.fold_next(100, NOW_US)
        ahead = writer.position
        # The server comes back with what it had saved: states and position of an earlier moment, as one.
        server.flushdb()
        for key, value in kept.items():
            server.restore(key, 0, value)
        assert writer.fold_next(100, NOW_US) is None
        assert writer.position.log_offset < ahead.log_offset
        assert writer.position.epoch > ahead.epoch
        while writer.fold_next(100, NOW_US):
            pass
        names = [name for name, place in zip(expected, partition_of(list(expected), PARTITIONS), strict=True) if place == 0]
        assert dict(zip(names, store.get_many(names).states, strict=True)) == {name: expected[name] for name in names}


def test_a_store_ahead_of_its_log_is_refused(log: FileLog, tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.commit(0, {}, {}, Watermark(log.end_offset(0), 1, 1, 0), expected_previous=-1)
        with pytest.raises(EventLogError, match="ahead of the event log"):
            start(log, store, 0)


def test_a_half_filled_shard_is_not_folded_into(log: FileLog, tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.commit(0, {}, {}, Watermark(3, 1, 1, 0, filling_to=9), expected_previous=-1)
        with pytest.raises(StoreError, match="half filled"):
            start(log, store, 0)
