"""CloudEvents about requests and responses, as KServe's logger sends them, from a bounded queue beside the requests.

CloudEvents 1.0 over HTTP, binary mode: one POST an event. Types and extensions are those of KServe 0.21's ``pkg/logger``;
beyond it, failed responses are sent too, each response says ``responsestatus`` and ``latencyms``, and one whose process failed
says in ``retriedon`` which revision answered instead. ``endpoint`` names the revision that the request was assigned to. A
request that is divided between revisions is one pair of events a part, with ids ``ID.0`` and ``ID.1``. ``lostanswers`` says how
many responses the sender named by ``sender`` has dropped so far, so that whoever judges by events knows what is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import aiohttp
from cloudevents.conversion import to_binary
from cloudevents.http import CloudEvent

from inference.plane.document import NAMESPACE

REQUEST: Final = "request"
RESPONSE: Final = "response"
TYPE: Final = "org.kubeflow.serving.inference."
QUEUE_FULL: Final = "queue_full"
REFUSED: Final = "refused"
TIMEOUT: Final = "timeout"
STOPPED: Final = "stopped"
UNWRITABLE: Final = "unwritable"
FAILED: Final = "failed"
DROPPED: Final = (QUEUE_FULL, REFUSED, TIMEOUT, STOPPED, UNWRITABLE, FAILED)
"""Why an event was not sent."""


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event before it is written out.

    Attributes:
        kind: ``request`` or ``response``.
        id: the same for a request and its response.
        at_us: arrival of the request, or of the response, UTC microseconds.
        service, revision: who was asked.
        content_type: the request's, for responses too, as KServe has it.
        body: as it came.
        status, latency_ms: of a response.
        retried_on: the revision that answered where the assigned one's process failed.
    """

    kind: str
    id: str
    at_us: int
    service: str
    revision: str
    content_type: str
    body: bytes
    status: int | None = None
    latency_ms: float | None = None
    retried_on: str | None = None


@dataclass(frozen=True)
class SenderLimits:
    """Bounds of one sender: events and bytes that may wait, how many are sent at a time, seconds for each, pauses while the
    sink is not there."""

    events: int = 10_000
    bytes: int = 64 * 1024 * 1024
    workers: int = 4
    timeout_s: float = 5.0
    pause_s: float = 0.1
    longest_pause_s: float = 2.0


class EventSender:
    """Sends events to one sink. Offering one never waits and never fails: where it does not fit, those that have waited
    longest are dropped and counted, because a sink that comes back wants to know what happens now.

    A sink that refuses connections is tried again while the queue holds what comes; one that answers an error or not in time
    loses that event.
    """

    def __init__(
        self, url: str, source: str, count_sent: Callable[[], None], count_dropped: Callable[[str], None],
        limits: SenderLimits | None = None, tell: Callable[[str], None] = lambda line: None,
    ) -> None:  # fmt: skip
        self.url = url
        self._source = source
        self._count_sent = count_sent
        self._count_dropped = count_dropped
        self._limits = limits or SenderLimits()
        self._tell = tell
        self._name = uuid.uuid4().hex[:12]
        self._lost = 0
        self._queue: asyncio.Queue[LoggedEvent] = asyncio.Queue(self._limits.events)
        self._waiting_bytes = 0
        self._unfinished = 0
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._limits.timeout_s))
        self._workers: set[asyncio.Task[None]] = set()
        for _ in range(self._limits.workers):
            self._start_worker()

    def offer(self, event: LoggedEvent) -> None:
        """Queue an event; the oldest make room for it."""
        while not self._queue.empty() and (self._queue.full() or self._waiting_bytes + len(event.body) > self._limits.bytes):
            self._finish(self._queue.get_nowait(), QUEUE_FULL)
        if self._waiting_bytes + len(event.body) > self._limits.bytes:
            self._lose(event, QUEUE_FULL)
            return
        self._waiting_bytes += len(event.body)
        self._unfinished += 1
        self._queue.put_nowait(event)

    async def close(self, grace_s: float = 2.0) -> None:
        """Send what is waiting, for at most this long; the rest is dropped and counted."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._queue.join(), grace_s)
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        for _ in range(self._unfinished):
            self._count_dropped(STOPPED)
        await self._session.close()

    def _start_worker(self) -> None:
        worker = asyncio.create_task(self._work())
        self._workers.add(worker)
        worker.add_done_callback(self._replace)

    def _replace(self, worker: asyncio.Task[None]) -> None:
        """A worker ends when it is told to; where one fails, another takes its place, and the operator is told."""
        self._workers.discard(worker)
        error = None if worker.cancelled() else worker.exception()
        if error is not None:
            self._tell(f"an event to {self.url} was lost: {error!r}")
            self._start_worker()

    async def _work(self) -> None:
        while True:
            event = await self._queue.get()
            reason: str | None = FAILED
            try:
                reason = await self._send(event)
            except asyncio.CancelledError:
                reason = STOPPED
                raise
            finally:
                self._finish(event, reason)

    def _finish(self, event: LoggedEvent, lost: str | None) -> None:
        """An event is out of the queue: sent, or lost for a reason."""
        self._waiting_bytes -= len(event.body)
        self._unfinished -= 1
        self._queue.task_done()
        if lost is None:
            self._count_sent()
        else:
            self._lose(event, lost)

    def _lose(self, event: LoggedEvent, reason: str) -> None:
        self._lost += event.kind == RESPONSE
        self._count_dropped(reason)

    async def _send(self, event: LoggedEvent) -> str | None:
        """Why it was dropped; None once the sink has taken it."""
        headers, body = write_event(event, self._source, (self._name, self._lost))
        pause_s = self._limits.pause_s
        while True:
            try:
                async with self._session.post(self.url, headers=headers, data=body) as response:
                    await response.read()
                    return None if response.ok else REFUSED
            except TimeoutError:
                return TIMEOUT
            except (ValueError, UnicodeError):
                return UNWRITABLE  # an id or a type, as somebody sent it, that is none for a header
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, self._limits.longest_pause_s)


def write_event(event: LoggedEvent, source: str, lost: tuple[str, int] | None = None) -> tuple[dict[str, str], bytes]:
    """Headers and body of the POST; ``lost`` is the sender's name and how many responses it has dropped."""
    attributes = {
        "type": f"{TYPE}{event.kind}",
        "source": source,
        "id": event.id,
        "time": _instant(event.at_us),
        "datacontenttype": event.content_type,
        "inferenceservicename": event.service,
        "namespace": NAMESPACE,
        "component": "predictor",
        "endpoint": event.revision,
        "recordedtime": _instant(event.at_us),
    }
    if event.status is not None:
        attributes["responsestatus"] = str(event.status)
    if event.latency_ms is not None:
        attributes["latencyms"] = f"{event.latency_ms:.3f}"
    if event.retried_on is not None:
        attributes["retriedon"] = event.retried_on
    if lost is not None:
        attributes["sender"], attributes["lostanswers"] = lost[0], str(lost[1])
    headers, body = to_binary(CloudEvent(attributes, event.body))
    return headers, body


def _instant(at_us: int) -> str:
    """RFC 3339, microseconds, UTC."""
    seconds, microseconds = divmod(at_us, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
