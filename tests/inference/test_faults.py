"""A server under load while its store dies, slows down or grows old, and while its log's disk is full.

Every request is answered all the time, the answers say what they rest on, and what has come back is used again by the same
process.
"""

from __future__ import annotations

import contextlib
import itertools
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from services.proxy import Proxy, run_proxy
from services.servers import run_redis

from features import layout
from features.catalogs import load_catalog
from features.online.addresses import ViewVersion, open_store
from features.online.store import Watermark
from features.workspace import Workspace

CATALOG = load_catalog("subscription")
VIEW = CATALOG.view("subscriber")
VERSION = ViewVersion.of(CATALOG, VIEW)
NOW_US = 1_740_830_400_000_000  # 2025-03-01T12:00:00Z
STALE_US = NOW_US + (VIEW.freshness_sla_s + 60) * layout.US_PER_S
BUDGET_MS = 50
CLIENTS = 4
USERS = [f"u{number}" for number in range(20)]


def move_store(url: str, offset: int, as_of_us: int) -> None:
    """Bring every shard of a store to a position, as a stream would that has caught up to it."""
    with open_store(url, VERSION, create=True) as store:
        for shard in range(VERSION.partitions):
            known = store.watermark(shard)
            store.commit(shard, {}, {}, Watermark(offset, as_of_us, as_of_us, known.epoch), expected_previous=known.log_offset)


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with run_redis() as port:
        url = f"redis://127.0.0.1:{port}/0"
        move_store(url, 9, NOW_US)
        yield url


@pytest.fixture(scope="module")
def proxy(redis_url: str) -> Iterator[Proxy]:
    with run_proxy(int(redis_url.rpartition(":")[2].partition("/")[0])) as running:
        yield running


@pytest.fixture(scope="module")
def served(proxy: Proxy, serve_again: Callable[..., AbstractContextManager[Any]]) -> Iterator[Any]:
    store = f"redis://127.0.0.1:{proxy.port}/0"
    with serve_again("--store", store, "--lookup-budget-ms", str(BUDGET_MS), "--whole-rate", "1") as running:
        yield running


@dataclass
class Traffic:
    """What clients saw: how often each degraded reason, and the longest answer in seconds."""

    reasons: Counter[str | None] = field(default_factory=Counter)
    slowest_s: float = 0.0
    failures: list[str] = field(default_factory=list)

    def forget(self) -> None:
        self.reasons, self.slowest_s = Counter(), 0.0

    def wait_for(self, wanted: Callable[[Counter[str | None]], bool], timeout_s: float = 90) -> None:
        """Until the reasons seen from now on are as wanted."""
        self.forget()
        deadline = time.monotonic() + timeout_s
        while not wanted(self.reasons):
            assert time.monotonic() < deadline, f"saw only {dict(self.reasons)}"
            time.sleep(0.05)


@contextlib.contextmanager
def traffic(served: Any, now_us: int = NOW_US) -> Iterator[Traffic]:
    """Clients that ask without a pause; leaving insists that every request was answered."""
    seen, stop = Traffic(), threading.Event()

    def ask(users: Iterator[str]) -> None:
        with httpx.Client(base_url=served.url, timeout=30) as client:
            while not stop.is_set():
                started = time.perf_counter()
                body = {"instances": [{"entity_id": next(users), "now": now_us}]}
                reply = client.post("/v1/models/churn:predict", json=body)
                seen.slowest_s = max(seen.slowest_s, time.perf_counter() - started)
                if reply.status_code == httpx.codes.OK:
                    seen.reasons[reply.json()["predictions"][0]["degraded"]] += 1
                else:
                    seen.failures.append(reply.text)
                time.sleep(0.005)

    threads = [threading.Thread(target=ask, args=(itertools.cycle(USERS[part::CLIENTS]),)) for part in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert seen.failures == []


def has_degraded(prefix: str, least: int = 40) -> Callable[[Counter[str | None]], bool]:
    # A snapshot: the clients go on counting.
    return lambda reasons: sum(reasons[reason] for reason in [*reasons] if (reason or "").startswith(prefix)) >= least


def recovers(seen: Traffic, timeout_s: float = 90) -> None:
    """Some answers may still be degraded, when a fault has just ended or the machine is busy; soon none is for a while."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        seen.forget()
        time.sleep(0.5)
        if seen.reasons[None] and set(seen.reasons) == {None}:
            return
    raise AssertionError(f"still {dict(seen.reasons)}")


def test_it_answers_while_its_store_is_gone_and_uses_it_again(served: Any, proxy: Proxy) -> None:
    with traffic(served) as seen:
        recovers(seen)
        proxy.cut()
        try:
            seen.wait_for(has_degraded("breaker_open_local_copy"))
            seen.wait_for(has_degraded("breaker_open_local_copy"))
            assert None not in seen.reasons
            assert httpx.get(f"{served.url}/v2/health/ready", timeout=10).status_code == httpx.codes.OK
        finally:
            proxy.restore()
        recovers(seen)


def test_a_store_a_hundred_milliseconds_slow_costs_an_answer_its_budget_at_most(served: Any, proxy: Proxy) -> None:
    with traffic(served) as seen:
        recovers(seen)
        proxy.delay_s = 0.1
        try:
            seen.wait_for(lambda reasons: has_degraded("breaker_open")(reasons) and has_degraded("store_un", 1)(reasons))
            # A single answer waits for a trial of the store; all others are those of an open breaker.
            assert seen.slowest_s < 2, "far below what waiting for the store each time would add up to"
        finally:
            proxy.delay_s = 0
        recovers(seen)


def test_a_stream_that_stopped_is_said_until_it_goes_on(served: Any, redis_url: str) -> None:
    with traffic(served, STALE_US) as seen:
        seen.wait_for(has_degraded("stale_state"))
        assert None not in seen.reasons  # nobody is answered as if the state were fresh
        assert counted(served, 'plumb_degraded_entities_total{model="churn",reason="stale_state') > 0
        move_store(redis_url, 10, STALE_US)
        recovers(seen)
        assert not [reason for reason in seen.reasons if (reason or "").startswith("stale_state")]
    assert sum(seen.reasons.values()) > 0


def counted(served: Any, name: str) -> float:
    lines = httpx.get(f"{served.url}/metrics", timeout=10).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def logged_bytes(workspace: Workspace) -> int:
    return sum(path.stat().st_size for path in workspace.predictions("churn").rglob("*") if path.is_file())


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_a_full_disk_costs_rows_of_the_log_and_no_answer(served: Any, workspace: Workspace) -> None:
    """The kernel refuses to let the server's files grow, as it does on a full disk, until it is told otherwise."""
    dropped = 'plumb_prediction_log_dropped_total{model="churn",reason="disk"'
    pid, (_, most) = served.process.pid, resource.getrlimit(resource.RLIMIT_FSIZE)
    with traffic(served, STALE_US) as seen:
        wait_until(lambda: logged_bytes(workspace) > 0, "nothing was logged")
        assert counted(served, dropped) == 0
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, most))
        try:
            wait_until(lambda: counted(served, dropped) > 0, "no row was dropped")
            seen.forget()
            wait_until(lambda: seen.reasons.total() >= 40, "answers have stopped")
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))
        # A batch that was refused while the disk was full may still be on its way to the count.
        time.sleep(2)
        lost, size = counted(served, dropped), logged_bytes(workspace)
        wait_until(lambda: logged_bytes(workspace) > size, "the log did not go on")
        assert counted(served, dropped) == lost
