"""The detector over HTTP: ``POST /`` takes a CloudEvent in binary mode, ``GET /metrics`` and ``GET /healthz`` answer.

An event that closes a window is answered with 200 and a CloudEvent whose body holds the verdicts; any other that was taken with
202 and no body. 400: no event, or a body of no known protocol; 413: too long; 503: the disk is full, come again.
Verdicts also go to a sink, where one is named, one POST a judged window.
"""

from __future__ import annotations

import json
import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from features.errors import PlumblineError
from monitoring.drift.detector import Detector, RefusedEvent
from monitoring.drift.metrics import DriftMetrics
from monitoring.drift.records import JudgedWindow

EVENT_TYPE: Final = "org.plumbline.monitoring.verdicts"
MOST_BYTES: Final = 64 << 20
TIMEOUT_S: Final = 10.0
_log = logging.getLogger(__name__)


class DetectorServer(ThreadingHTTPServer):
    """Serves one detector; ``clock`` gives UTC microseconds."""

    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], detector: Detector, metrics: DriftMetrics, registry: CollectorRegistry,
        clock: Callable[[], int],
    ) -> None:  # fmt: skip
        self.detector = detector
        self.metrics = metrics
        self.registry = registry
        self.clock = clock
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: DetectorServer
    protocol_version = "HTTP/1.1"
    # An answer is several small writes; without this each waits for the acknowledgement of the one before.
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_POST(self) -> None:
        """Take in one event."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            self.close_connection = True
            self._count_and_refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MOST_BYTES} bytes, with Content-Length")
            return
        body = self.rfile.read(int(length))
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            taken = self.server.detector.receive(headers, body, self.server.clock())
        except RefusedEvent as error:
            self._count_and_refuse(HTTPStatus.BAD_REQUEST, str(error))
            return
        except OSError as error:
            self.server.metrics.count_event("failed")
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, str(error).encode(), "text/plain")
            return
        self.server.metrics.count_event("kept" if taken.kept else "ignored")
        if taken.judged:
            content, extra = write_event(taken.judged, headers["ce-id"])
            self._answer(HTTPStatus.OK, content, "application/json", extra)
        else:
            self._answer(HTTPStatus.ACCEPTED, b"", "text/plain")

    def do_GET(self) -> None:
        """Metrics, or whether the process lives."""
        if self.path == "/metrics":
            self.server.metrics.show_open(self.server.detector.open_rows())
            self._answer(HTTPStatus.OK, generate_latest(self.server.registry), CONTENT_TYPE_LATEST)
        elif self.path == "/healthz":
            self._answer(HTTPStatus.OK, b"ok\n", "text/plain")
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"POST / takes events; GET /metrics, /healthz\n", "text/plain")

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing of each request: metrics count them."""

    def _count_and_refuse(self, status: HTTPStatus, text: str) -> None:
        self.server.metrics.count_event("refused")
        self._answer(status, text.encode(), "text/plain")

    def _answer(self, status: HTTPStatus, content: bytes, kind: str, extra: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(extra or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def write_event(judged: Sequence[JudgedWindow], event_id: str) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a CloudEvent, binary mode, that tells what was found."""
    content = json.dumps({"windows": [each.describe() for each in judged]}).encode()
    headers = {
        "ce-specversion": "1.0", "ce-type": EVENT_TYPE, "ce-source": "plumbline/drift", "ce-id": event_id,
        "ce-subject": judged[0].subject,
    }  # fmt: skip
    return content, headers


def post_to(url: str, judged: JudgedWindow) -> None:
    """Send one judged window to a sink. A sink that cannot take it is logged; the window stays on disk.

    The event's id is the window's, so that a sink knows one that comes twice.
    """
    content, headers = write_event([judged], judged.id)
    request = urllib.request.Request(url, content, {**headers, "Content-Type": "application/json"}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            answer.read()
    except (urllib.error.URLError, OSError) as error:
        _log.warning("verdict %s did not reach %s: %s", judged.id, url, error)


class Sink:
    """Sends judged windows to a URL, one after another, beside the requests."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._queue: SimpleQueue[JudgedWindow] = SimpleQueue()
        threading.Thread(target=self._send_on, name="verdict-sink", daemon=True).start()

    def offer(self, judged: JudgedWindow) -> None:
        """Queue one and return at once."""
        self._queue.put(judged)

    def _send_on(self) -> None:
        while True:
            post_to(self._url, self._queue.get())


def keep_ticking(
    server: DetectorServer, watch: Callable[[int], object], pause_s: float, stop: threading.Event
) -> None:  # fmt: skip
    """Judge what time has closed, until told to stop; ``watch`` is called with the time, too.

    What goes wrong is logged and counted as ``plumb_drift_errors``, and tried again with the next tick.
    """
    while not stop.wait(pause_s):
        now_us = server.clock()
        try:
            server.detector.tick(now_us)
            watch(now_us)
        except (PlumblineError, OSError) as error:
            server.metrics.count_error()
            _log.warning("windows could not be judged: %s", error)
