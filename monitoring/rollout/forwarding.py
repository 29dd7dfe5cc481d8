"""Events sent on to somebody else who watches: a service's logger has one URL, and the drift detector wants them, too.

Offering an event never waits: where the queue is full, those that have waited longest are dropped and counted, because whoever
comes back wants to know what happens now. An event is sent as it came; the receiver knows one that comes twice by its id.
"""

from __future__ import annotations

import http.client
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter

from features.errors import explain
from monitoring.errors import ForwardingError

KEPT: Final = ("content-type",)
ATTRIBUTE: Final = "ce-"
QUEUE_FULL, REFUSED, STOPPED = "queue_full", "refused", "stopped"


@dataclass(frozen=True)
class Limits:
    """Events and bytes that may wait, seconds for each to be taken, pauses while nobody takes them."""

    events: int = 10_000
    bytes: int = 64 << 20
    timeout_s: float = 5.0
    pause_s: float = 0.1
    longest_pause_s: float = 2.0


@dataclass(frozen=True)
class _Event:
    headers: Mapping[str, str]
    body: bytes


class Forwarder:
    """Sends events to one URL, one after another, from a thread of its own; ``offer`` may be called from any thread."""

    def __init__(self, url: str, registry: CollectorRegistry, limits: Limits | None = None) -> None:
        """Begin to send.

        Raises:
            ForwardingError: the URL is not one of http.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ForwardingError(
                explain("events cannot be forwarded", which=url, expected="http://HOST:PORT/", got=parts.scheme or "no scheme",
                        next_step="correct the URL")
            )  # fmt: skip
        self._host, self._port, self._path = parts.hostname, parts.port or http.client.HTTP_PORT, parts.path or "/"
        self._limits = limits or Limits()
        self._sent = Counter("plumb_rollout_events_forwarded", "Events that the next one has taken.", registry=registry)
        self._dropped = Counter(
            "plumb_rollout_events_not_forwarded", "Events that were dropped instead, by reason.", ["reason"], registry=registry
        )
        self._waiting: deque[_Event] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._send_on, name="forwarder", daemon=True)
        self._thread.start()

    def offer(self, headers: Mapping[str, str], body: bytes) -> None:
        """Queue an event as it came, its headers in lower case; the oldest make room for it."""
        kept = {name: value for name, value in headers.items() if name in KEPT or name.startswith(ATTRIBUTE)}
        with self._changed:
            self._waiting.append(_Event(kept, body))
            self._bytes += len(body)
            while len(self._waiting) > self._limits.events or self._bytes > self._limits.bytes:
                self._bytes -= len(self._waiting.popleft().body)
                self._dropped.labels(QUEUE_FULL).inc()
            self._changed.notify()

    def close(self, grace_s: float = 2.0) -> None:
        """Send what waits, for at most this long; the rest is dropped and counted."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, grace_s)
            self._stopping.set()
            self._changed.notify()
        self._thread.join(self._limits.timeout_s)
        self._dropped.labels(STOPPED).inc(len(self._waiting))

    def _send_on(self) -> None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._limits.timeout_s)
        pause_s = self._limits.pause_s
        while (event := self._next()) is not None:
            try:
                connection.request("POST", self._path, event.body, dict(event.headers))
                answer = connection.getresponse()
                answer.read()
                taken = answer.status != HTTPStatus.SERVICE_UNAVAILABLE
            except (OSError, http.client.HTTPException):
                connection.close()  # the next request opens it again
                taken = False
            if not taken:
                self._stopping.wait(pause_s)
                pause_s = min(2 * pause_s, self._limits.longest_pause_s)
                continue
            pause_s = self._limits.pause_s
            self._settle(event, answer.status < HTTPStatus.BAD_REQUEST)
        connection.close()

    def _next(self) -> _Event | None:
        """The oldest event, which goes on waiting until it is taken; None when all is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping.is_set())
            return None if self._stopping.is_set() else self._waiting[0]

    def _settle(self, event: _Event, accepted: bool) -> None:
        with self._changed:
            if self._waiting and self._waiting[0] is event:  # it may have made room meanwhile, and was counted then
                self._waiting.popleft()
                self._bytes -= len(event.body)
            if accepted:
                self._sent.inc()
            else:
                self._dropped.labels(REFUSED).inc()
            self._changed.notify()
