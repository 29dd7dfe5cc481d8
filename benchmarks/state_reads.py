"""State reads beside raw redis-py MGET of the same keys on the same server, and single reads of both stores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import redis

from features.online.addresses import ViewVersion, open_store
from features.online.guarded import GuardedStore, Limits
from features.online.records import group_by_shard
from features.online.store import OnlineStore, Watermark

VERSION: Final = ViewVersion("bench@1", "bench", 8)
USERS: Final = 20_000
SIZES_BYTES: Final = (400, 1_024, 3_072)
BATCHES: Final = (1, 100, 500)
ROUNDS: Final = 6
ROUND_S: Final = 0.4


@dataclass(frozen=True)
class Reads:
    """Of one call in seconds: wall time at p50 and p99 and on average, processor time of client and of server."""

    p50_s: float
    p99_s: float
    mean_s: float
    cpu_s: float
    server_cpu_s: float


def measure_together(calls: dict[str, Callable[[], object]], server: redis.Redis | None) -> dict[str, Reads]:
    """Time several calls in turns of ``ROUND_S`` seconds, so that whatever else the machine does meets them alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    cpu, server_cpu = dict.fromkeys(calls, 0.0), dict.fromkeys(calls, 0.0)
    for call in calls.values():
        call()
    for _ in range(ROUNDS):
        for name, call in calls.items():
            cpu_before, server_before = time.process_time(), server_seconds(server)
            until = time.perf_counter() + ROUND_S
            while (before := time.perf_counter()) < until:
                call()
                times[name].append(time.perf_counter() - before)
            cpu[name] += time.process_time() - cpu_before
            server_cpu[name] += server_seconds(server) - server_before
    return {
        name: Reads(
            float(np.percentile(taken, 50)), float(np.percentile(taken, 99)), float(np.mean(taken)),
            cpu[name] / len(taken), server_cpu[name] / len(taken),
        )
        for name, taken in times.items()
    }  # fmt: skip


def server_seconds(server: redis.Redis | None) -> float:
    """Processor seconds that a Redis server has used so far."""
    if server is None:
        return 0.0
    used: Any = server.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


def fill(store: OnlineStore, size_bytes: int, seed: int) -> dict[str, bytes]:
    """Random states of one size for every user, committed shard by shard; gives them by user."""
    rng = np.random.default_rng(seed)
    size = size_bytes // 16 * 16
    states = {f"user-{number:09d}": rng.bytes(size) for number in range(USERS)}
    for shard, keys in group_by_shard(list(states), store.partitions).items():
        mark = store.claim(shard)
        own = {key.decode(): states[key.decode()] for key in keys}
        after = Watermark(mark.log_offset + 1, 1, 1, mark.epoch)
        store.commit(shard, own, {}, after, expected_previous=mark.log_offset)
    return states


def run_redis_reads(url: str) -> Iterator[tuple[int, int, dict[str, Reads]]]:
    """State size, batch size, and timings of ``ours``, ``guarded`` (breaker and local copies around it) and ``raw``.

    Raises:
        AssertionError: ours and raw give different bytes.
    """
    rng = np.random.default_rng(7)
    with redis.Redis.from_url(url) as raw:
        for size in SIZES_BYTES:
            raw.flushdb()
            with open_store(url, VERSION, create=True) as store:
                states = fill(store, size, seed=size)
                guarded = GuardedStore(store, Limits(), lambda: 0)
                for batch in BATCHES:
                    names = [f"user-{number:09d}" for number in rng.integers(0, USERS, batch)]
                    keys = [
                        f"{{bench@1/{shard}}}s{name}" for name, shard in zip(names, store.get_many(names).shards, strict=True)
                    ]
                    calls: dict[str, Callable[[], object]] = {
                        "ours": lambda ids=names: store.get_many(ids, profiles=False),
                        "guarded": lambda ids=names, reader=guarded: reader.get_many(ids, profiles=False),
                        "raw": lambda wanted=keys: raw.mget(wanted),
                    }
                    expected = [states[name] for name in names]
                    assert store.get_many(names, profiles=False).states == expected == raw.mget(keys)
                    assert guarded.get_many(names, profiles=False).states == expected
                    yield size, batch, measure_together(calls, raw)


def run_lmdb_reads(folder: Path) -> Iterator[tuple[int, int, Reads]]:
    """State size, batch size and timings of LMDB; raises where a state is not what was written."""
    rng = np.random.default_rng(7)
    for size in SIZES_BYTES:
        with open_store(str(folder / str(size)), VERSION, create=True) as store:
            states = fill(store, size, seed=size)
            for batch in BATCHES:
                names = [f"user-{number:09d}" for number in rng.integers(0, USERS, batch)]
                assert store.get_many(names).states == [states[name] for name in names]
                found = measure_together({"ours": lambda ids=names: store.get_many(ids, profiles=False)}, None)
                yield size, batch, found["ours"]


def run_commits(url: str, folder: Path) -> Iterator[tuple[str, int, dict[str, Reads]]]:
    """Store, values and timings of commits of 400-byte states beside a bare MSET of the same on the same server."""
    rng = np.random.default_rng(9)
    with redis.Redis.from_url(url) as raw:
        for address in (url, str(folder / "commits")):
            raw.flushdb()
            with open_store(address, ViewVersion("bench@1", "bench", 1), create=True) as store:
                for count in (500, 5_000):
                    values = {f"user-{number:09d}": rng.bytes(400) for number in range(count)}
                    mark = [store.claim(0)]

                    def commit(values: dict[str, bytes] = values, mark: list[Watermark] = mark) -> None:
                        before = mark[0]
                        mark[0] = Watermark(before.log_offset + 1, 1, 1, before.epoch)
                        store.commit(0, values, {}, mark[0], expected_previous=before.log_offset)

                    calls: dict[str, Callable[[], object]] = {"ours": commit}
                    if address == url:
                        calls["raw"] = lambda wanted=values: raw.mset(wanted)
                    timings = measure_together(calls, raw if address == url else None)
                    assert store.get_many(list(values)).states == list(values.values())
                    yield "Redis" if address == url else "LMDB, synced", count, timings
