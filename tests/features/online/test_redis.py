"""What is Redis' own: dumps, outages, eviction, what lies under which key."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.cluster import key_slot
from services.servers import find_program, free_port, redis_answers, run_redis, stop, wait_until_it_answers

from features.errors import StoreError, StoreUnavailable
from features.online.addresses import ViewVersion, open_store
from features.online.store import CommitConflict, OnlineStore, Watermark

VERSION = ViewVersion("buyer@1", "abc", 1)


def state(value: int) -> bytes:
    return value.to_bytes(8, "little") * 4


def commit(store: OnlineStore, mark: Watermark, offset: int, **values: int) -> Watermark:
    after = Watermark(offset, offset, offset, mark.epoch)
    states = {name: state(value) for name, value in values.items()}
    store.commit(0, states, {}, after, expected_previous=mark.log_offset)
    return after


class Server:
    """A Redis that keeps dumps in a folder and can be stopped and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        words = [find_program("redis-server"), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        words += ["--save", "", "--appendonly", "no", "--dbfilename", "dump.rdb"]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        assert wait_until_it_answers(self.process, self.port, redis_answers)

    def crash(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def dump(self) -> None:
        with Redis.from_url(self.url) as client:
            client.save()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    started = Server(tmp_path)
    started.start()
    yield started
    assert started.process is not None
    stop(started.process)


def test_a_server_that_lost_its_last_second_says_where_it_stands_and_is_caught_up(server: Server) -> None:
    """Writer at offset 3; the server comes back from a dump of offset 1: counts are refolded from 2, none twice."""
    events = {0: "a", 1: "b", 2: "a", 3: "a"}
    with open_store(server.url, VERSION, create=True) as store:
        mark = store.claim(0)
        counts: dict[str, int] = {}
        for offset, name in events.items():
            counts[name] = counts.get(name, 0) + 1
            mark = commit(store, mark, offset, **{name: counts[name]})
            if offset == 1:
                server.dump()
        server.crash()
        server.start()
        with pytest.raises(CommitConflict, match="at log offset 3; got epoch 1 at log offset 1"):
            commit(store, mark, 4, a=4)
        mark = store.claim(0)
        assert mark.log_offset == 1
        known = {name: int.from_bytes(store.get_many([name]).states[0][:8], "little") for name in "ab"}
        for offset in range(mark.log_offset + 1, len(events)):
            known[events[offset]] += 1
            mark = commit(store, mark, offset, **{events[offset]: known[events[offset]]})
        assert store.get_many(["a", "b"]).states == [state(3), state(1)]
        assert store.watermark(0).log_offset == 3


def test_a_subscriber_is_told_when_the_server_lost_what_it_had_seen(server: Server) -> None:
    with open_store(server.url, VERSION, create=True) as store:
        mark = commit(store, store.claim(0), 1, a=1)
        server.dump()
        seen = store.changes(0).cursor
        mark = commit(store, mark, 2, b=1)
        lost = store.changes(0, seen).cursor
        server.crash()
        server.start()
        mark = commit(store, store.claim(0), 5, b=1, c=1)
        assert not store.changes(0, lost).complete
        assert store.changes(0, seen).entity_ids == ("b", "c")


def test_a_reader_goes_on_after_the_server_came_back(server: Server) -> None:
    with open_store(server.url, VERSION, create=True) as store:
        commit(store, store.claim(0), 1, a=1)
        server.dump()
        server.crash()
        with pytest.raises(StoreUnavailable, match="cannot be used now"):
            store.get_many(["a"])
        server.start()
        assert store.get_many(["a"]).states == [state(1)]


def test_a_server_that_hangs_costs_no_more_than_the_time_budget(server: Server) -> None:
    with open_store(server.url, VERSION, create=True, timeout_s=0.05) as store:
        commit(store, store.claim(0), 1, a=1)
        assert server.process is not None
        server.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(3):
                before = time.perf_counter()
                with pytest.raises(StoreUnavailable):
                    store.get_many(["a"])
                assert time.perf_counter() - before < 1
        finally:
            server.process.send_signal(signal.SIGCONT)
        time.sleep(0.2)
        assert store.get_many(["a"]).states == [state(1)]


def test_an_answer_that_came_too_late_is_not_taken_for_the_next_one(server: Server) -> None:
    with open_store(server.url, VERSION, create=True, timeout_s=0.05) as store:
        commit(store, store.claim(0), 1, a=1, b=2)
        assert server.process is not None
        server.process.send_signal(signal.SIGSTOP)
        with pytest.raises(StoreUnavailable):
            store.get_many(["a"])
        server.process.send_signal(signal.SIGCONT)
        time.sleep(0.2)
        assert store.get_many(["b"]).states == [state(2)]


def test_nothing_listening_is_said_in_one_line() -> None:
    with pytest.raises(StoreUnavailable, match="cannot be used now: redis 127.0.0.1:") as caught:
        open_store(f"redis://:secret@127.0.0.1:{free_port()}/0", VERSION)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_server_that_may_evict_states_is_refused() -> None:
    with (
        run_redis("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as port,
        pytest.raises(StoreError, match="may evict states.*expected maxmemory-policy noeviction; got allkeys-lru"),
    ):
        open_store(f"redis://127.0.0.1:{port}/0", VERSION, create=True)


def test_a_full_server_says_so_and_keeps_what_it_had() -> None:
    with run_redis("--maxmemory", "3mb") as port, open_store(f"redis://127.0.0.1:{port}/0", VERSION, create=True) as store:
        mark = commit(store, store.claim(0), 1, a=1)
        with pytest.raises(StoreError, match="online store is full"):
            fill_up(store, mark)
        assert store.get_many(["a"]).states == [state(1)]
        last = store.watermark(0).log_offset
        assert 1 <= last < 199
        assert store.get_many([f"u{last}-9", f"u{last + 1}-0"]).states[1] == b""


def fill_up(store: OnlineStore, mark: Watermark) -> None:
    for offset in range(2, 200):
        big = {f"u{offset}-{number}": bytes(16_000) for number in range(10)}
        after = Watermark(offset, 0, mark.as_of_us, mark.epoch)
        store.commit(0, big, {}, after, expected_previous=offset - 1)


@pytest.mark.parametrize("address", ["redis://127.0.0.1:port/0", "kafka://127.0.0.1"])
def test_an_address_that_cannot_be_read_is_said(address: str) -> None:
    with pytest.raises(StoreError, match="address of the online store"):
        open_store(address, VERSION)


def test_something_else_listening_is_no_store() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(StoreUnavailable):
        open_store(f"redis://127.0.0.1:{listener.getsockname()[1]}/0", VERSION, timeout_s=0.1)


def test_a_shard_lies_in_one_hash_slot(redis_url: str) -> None:
    with open_store(redis_url, ViewVersion("buyer@1", "abc", 3), create=True) as store, Redis.from_url(redis_url) as client:
        for shard in range(3):
            store.claim(shard)
        names = [f"{{u{number}}}" for number in range(50)]
        for shard in range(3):
            own = [name for name, place in zip(names, store.get_many(names).shards, strict=True) if place == shard]
            values, mark = dict.fromkeys(own, bytes(16)), Watermark(1, 1, 1, 1)
            store.commit(shard, values, dict.fromkeys(own, b"{}"), mark, expected_previous=-1)
            keys = list(client.scan_iter(b"{buyer@1/%d}*" % shard))
            assert len(keys) == 2 * len(own) + 2
            assert len({key_slot(key) for key in keys}) == 1
