"""A real server on a real Redis that hangs and comes back: it answers all the time, and says what its answers rest on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import httpx
import pytest
from redis import Redis
from services.servers import free_port, run_redis

from features import layout
from features.catalogs import load_catalog
from features.online.addresses import ViewVersion, open_store
from features.online.store import Watermark
from features.partitions import partition_of

CATALOG = load_catalog("subscription")
VERSION = ViewVersion.of(CATALOG, CATALOG.view("subscriber"))
NOW = "2025-03-01T12:00:00Z"
NOW_US = 1_740_830_400_000_000
KNOWN, UNKNOWN = "u1", "u2"
BUDGET_MS = 100


def fill(url: str) -> None:
    shard = int(partition_of([KNOWN], VERSION.partitions)[0])
    with open_store(url, VERSION, create=True) as store:
        for number in range(VERSION.partitions):
            header = layout.header_key(shard).to_bytes(8, "little") + (7).to_bytes(8, "little")
            values = {KNOWN: header + bytes([64]) + bytes(15)} if number == shard else {}
            store.commit(number, values, {}, Watermark(9, NOW_US, NOW_US, 0), expected_previous=-1)


@pytest.fixture(scope="module")
def redis_port() -> Iterator[int]:
    with run_redis() as port:
        fill(f"redis://127.0.0.1:{port}/0")
        yield port


def predict(served: object, *names: str) -> list[dict[str, object]]:
    response: httpx.Response = served.predict(*({"entity_id": name, "now": NOW} for name in names))  # type: ignore[attr-defined]
    assert response.status_code == 200, response.text
    predictions: list[dict[str, object]] = response.json()["predictions"]
    return predictions


def test_a_server_answers_while_its_store_hangs_and_takes_it_back_when_it_does_not(
    redis_port: int, serve_again: Callable[..., AbstractContextManager[object]]
) -> None:
    url = f"redis://127.0.0.1:{redis_port}/0"
    with Redis.from_url(url) as client:
        pid = int(client.info("server")["process_id"])
    with serve_again("--store", url, "--lookup-budget-ms", str(BUDGET_MS)) as served:
        (before,) = predict(served, KNOWN)
        assert (before["degraded"], before["cold"], before["log_offset"]) == (None, False, 7)
        os.kill(pid, signal.SIGSTOP)
        try:
            known, unknown = predict(served, KNOWN, UNKNOWN)
            assert known == {**before, "degraded": "store_unavailable_local_copy"}
            assert (unknown["degraded"], unknown["cold"]) == ("store_unavailable_defaults", True)
            for _ in range(4):
                predict(served, KNOWN)
            taken_s = []
            for _ in range(10):
                started = time.perf_counter()
                assert predict(served, KNOWN)[0]["degraded"] == "breaker_open_local_copy"
                taken_s.append(time.perf_counter() - started)
            assert min(taken_s) < BUDGET_MS / 1_000, "an open breaker waits for nobody"
            counted = httpx.get(f"{served.url}/metrics").text  # type: ignore[attr-defined]
            assert httpx.get(f"{served.url}/v2/health/ready").status_code == 200  # type: ignore[attr-defined]
        finally:
            os.kill(pid, signal.SIGCONT)
        for line in (
            'plumb_degraded_entities_total{model="churn",reason="store_unavailable_local_copy",revision="stable"} 5.0',
            'plumb_degraded_entities_total{model="churn",reason="store_unavailable_defaults",revision="stable"} 1.0',
            'plumb_degraded_entities_total{model="churn",reason="breaker_open_local_copy",revision="stable"} 10.0',
            'plumb_lookup_entities_total{model="churn",revision="stable",source="local_copy"} 15.0',
            'plumb_store_breaker{model="churn",revision="stable",state="open"} 1.0',
            'plumb_store_breaker{model="churn",revision="stable",state="closed"} 0.0',
        ):
            assert line in counted
        deadline = time.monotonic() + 20
        while predict(served, KNOWN)[0]["degraded"] is not None and time.monotonic() < deadline:
            time.sleep(0.2)
        assert predict(served, KNOWN) == [before]


def test_a_server_does_not_start_without_its_store_and_says_that_it_may_later(
    plumb: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = plumb("serve", "churn", "--port", "0", "--grpc-port", "0", "--store", f"redis://:secret@127.0.0.1:{free_port()}/0")
    assert done.returncode == 75
    assert "online store cannot be used now: redis 127.0.0.1:" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr
