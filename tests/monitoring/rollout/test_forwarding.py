"""Events sent on: as they came, in their order, none waiting for who is away, and what is lost is counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prometheus_client import CollectorRegistry
from services.servers import free_port

from monitoring.errors import ForwardingError
from monitoring.rollout.forwarding import Forwarder, Limits

LIMITS = Limits(events=20, pause_s=0.02, longest_pause_s=0.05)


class Taker:
    """A server that takes events: what it got, and what it answers."""

    def __init__(self) -> None:
        self.got: list[tuple[str, str, bytes]] = []
        self.status = 202

    @contextmanager
    def on(self, port: int) -> Iterator[None]:
        taker = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if taker.status < 500:
                    taker.got.append((self.headers["ce-id"], self.headers["Content-Type"], body))
                self.send_response(taker.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def forwarder(port: int, registry: CollectorRegistry) -> Iterator[Forwarder]:
    made = Forwarder(f"http://127.0.0.1:{port}/events", registry, LIMITS)
    yield made
    made.close(grace_s=0)


def offer(forwarder: Forwarder, numbers: range) -> None:
    for number in numbers:
        headers = {"ce-id": f"e{number}", "content-type": "application/json", "host": "elsewhere", "content-length": "99"}
        forwarder.offer(headers, b"{%d}" % number)


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_events_arrive_as_they_came_and_in_their_order(forwarder: Forwarder, port: int, registry: CollectorRegistry) -> None:
    taker = Taker()
    with taker.on(port):
        offer(forwarder, range(10))
        until(lambda: registry.get_sample_value("plumb_rollout_events_forwarded_total") == 10)
    assert taker.got == [(f"e{number}", "application/json", b"{%d}" % number) for number in range(10)]


def test_who_comes_back_gets_the_newest_and_the_rest_is_counted(
    forwarder: Forwarder, port: int, registry: CollectorRegistry
) -> None:
    offer(forwarder, range(50))
    taker = Taker()
    taker.status = 503  # it is there, and its disk is full: that passes
    with taker.on(port):
        time.sleep(0.1)
        taker.status = 202
        until(lambda: len(taker.got) == 20)
    assert [name for name, _, _ in taker.got] == [f"e{number}" for number in range(30, 50)]
    assert registry.get_sample_value("plumb_rollout_events_not_forwarded_total", {"reason": "queue_full"}) == 30


def test_what_is_refused_is_not_tried_again(forwarder: Forwarder, port: int, registry: CollectorRegistry) -> None:
    taker = Taker()
    taker.status = 400
    with taker.on(port):
        offer(forwarder, range(3))
        until(lambda: registry.get_sample_value("plumb_rollout_events_not_forwarded_total", {"reason": "refused"}) == 3)
    assert len(taker.got) == 3


def test_what_still_waits_at_the_end_is_counted(port: int, registry: CollectorRegistry) -> None:
    forwarder = Forwarder(f"http://127.0.0.1:{port}/", registry, LIMITS)
    offer(forwarder, range(5))
    forwarder.close(grace_s=0.1)
    assert registry.get_sample_value("plumb_rollout_events_not_forwarded_total", {"reason": "stopped"}) == 5


def test_an_address_that_is_none_is_refused_in_one_line(registry: CollectorRegistry) -> None:
    with pytest.raises(ForwardingError, match="^events cannot be forwarded: [^\n]+$"):
        Forwarder("127.0.0.1:8010", registry)
