"""The process behind ``plumb drift serve``."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import typer
from prometheus_client import CollectorRegistry

from monitoring.drift.detector import Detector
from monitoring.drift.detectors import load_detectors
from monitoring.drift.metrics import DriftMetrics
from monitoring.drift.records import JudgedWindow
from monitoring.drift.server import DetectorServer, Sink, keep_ticking
from monitoring.drift.settings import read_settings
from monitoring.drift.watch import PredictionWatch
from plumb.instants import now_us
from plumb.scrape_targets import DRIFT, announced
from plumb.settings import Settings

LOOPBACK = "127.0.0.1"


def run(
    settings: Settings, port: int, models: Sequence[str], sink_url: str | None, settings_file: Path | None, tick_s: float
) -> None:  # fmt: skip
    """Serve until SIGTERM or SIGINT; windows stay on disk and are taken up by the next process."""
    drift, registry = read_settings(settings_file).heard_every(tick_s), CollectorRegistry()
    metrics = DriftMetrics(registry, drift.top)
    sink = Sink(sink_url) if sink_url else None

    def report(judged: JudgedWindow) -> None:
        metrics.show(judged)
        if sink:
            sink.offer(judged)

    def report_error(path: Path, error: Exception) -> None:
        metrics.count_error()
        typer.echo(f"window {path} could not be judged: {error}", err=True)

    watches = [PredictionWatch(settings.workspace, model, drift) for model in models]

    def judge_predictions(at_us: int) -> None:
        for watch in watches:
            for judged in watch.judge_due(at_us):
                report(judged)

    load_detectors()
    detector = Detector(settings.workspace, drift, report=report, report_error=report_error)
    server = DetectorServer((LOOPBACK, port), detector, metrics, registry, now_us)
    stop = threading.Event()
    ticker = threading.Thread(target=keep_ticking, args=(server, judge_predictions, tick_s, stop), name="ticks")
    ticker.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Shutting down waits for the serving loop, which is this thread's: another must ask.
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    address = f"{LOOPBACK}:{server.server_address[1]}"
    typer.echo(f"drift detector on http://{address}/")
    with announced(settings.workspace, DRIFT, address):
        server.serve_forever()
    stop.set()
    ticker.join()
    server.server_close()
    detector.close()
