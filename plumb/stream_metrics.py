"""What ``plumb stream`` exports: its workers' progress and the end of the log they read, gathered anew at each scrape."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from features.errors import PlumblineError, explain
from features.layout import US_PER_S
from features.workspace import Workspace
from plumb.errors import CommandError
from plumb.scrape_targets import STREAM, announced
from plumb.stream_progress import read_progress

if TYPE_CHECKING:
    from features.event_log.port import EventLog

LOOPBACK = "127.0.0.1"


class StreamCollector(Collector):
    """Reads the workers' files when Prometheus asks, so that nothing has to be told to this process."""

    def __init__(self, view_key: str, status: Path, open_log: Callable[[], EventLog]) -> None:
        self._view, self._status, self._open_log = view_key, status, open_log
        self._log: EventLog | None = None
        self._asked = threading.Lock()
        """Two may scrape at once; a log's reader is for one."""

    def collect(self) -> Iterator[Metric]:
        """The metrics of one scrape."""
        with self._asked:
            yield from self._progress()
            yield from self._ends()

    def close(self) -> None:
        """Close the log."""
        with self._asked:
            if self._log is not None:
                self._log.close()

    def describe(self) -> list[Metric]:
        """Nothing before the first scrape."""
        return []

    def _progress(self) -> Iterator[Metric]:
        done = read_progress(self._status)
        for name, text, value in (
            ("commits", "Commits into the online store since the start.", done.commits),
            ("events", "Events of the log read since the start.", done.events),
            ("repeats", "Of them, dropped as repeats.", done.repeats),
            ("refused", "Of them, refused: they are dead letters.", sum(done.refused.values())),
        ):
            counter = CounterMetricFamily(f"plumb_stream_{name}", text, labels=["view"])
            counter.add_metric([self._view], value)
            yield counter
        labels = ["view", "partition"]
        newest = GaugeMetricFamily(
            "plumb_stream_newest_seconds", "Ingest time of the last event folded, seconds since 1970.", labels=labels
        )
        following = GaugeMetricFamily("plumb_stream_next_offset", "Offset of the log that is read next.", labels=labels)
        for partition, us in done.newest_us.items():
            newest.add_metric([self._view, partition], us / US_PER_S)
        for partition, offset in done.next_offsets.items():
            following.add_metric([self._view, partition], offset)
        yield from (newest, following)

    def _ends(self) -> Iterator[Metric]:
        """The log's end, or that it cannot be asked: the scrape goes on, the stream may live."""
        labels = ["view", "partition"]
        ends = GaugeMetricFamily("plumb_stream_log_end_offset", "Offset that the next event will get.", labels=labels)
        readable = GaugeMetricFamily("plumb_stream_log_readable", "Whether the log says where it ends.", labels=["view"])
        try:
            if self._log is None:
                self._log = self._open_log()
            found = [self._log.end_offset(partition) for partition in range(self._log.partitions)]
        except PlumblineError:
            readable.add_metric([self._view], 0)
        else:
            readable.add_metric([self._view], 1)
            for partition, offset in enumerate(found):
                ends.add_metric([self._view, str(partition)], offset)
        yield from (ends, readable)


@contextmanager
def exporting(workspace: Workspace, view_key: str, open_log: Callable[[], EventLog], port: int) -> Iterator[int]:
    """Serve ``/metrics`` of a view's stream on 127.0.0.1 for as long as the block runs; gives the port.

    Raises:
        CommandError: the port is taken.
    """
    registry = CollectorRegistry()
    collector = StreamCollector(view_key, workspace.stream_status(view_key), open_log)
    registry.register(collector)
    with ExitStack() as stack:
        stack.callback(collector.close)
        try:
            server, thread = start_http_server(port, LOOPBACK, registry)
        except OSError as error:
            raise CommandError(
                explain("port cannot be bound", which=f"{LOOPBACK}:{port}", expected="a free port", got=str(error),
                        next_step="stop what uses it, or pass another --metrics-port")
            ) from error  # fmt: skip
        stack.callback(thread.join)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        stack.enter_context(announced(workspace, STREAM, f"{LOOPBACK}:{server.server_port}"))
        yield server.server_port
