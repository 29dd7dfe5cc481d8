"""The process behind ``plumb monitors run``: one loop, one ``/metrics``."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Sequence

import typer
from prometheus_client import CollectorRegistry, start_http_server

from features.errors import TemporaryError
from monitoring.drift.metrics import DriftMetrics
from monitoring.monitor_metrics import MonitorMetrics
from monitoring.monitor_settings import MonitorSettings
from monitoring.runner import Round, Runner
from monitoring.verdict_log import Standing, read_standing, record_verdicts
from monitoring.verdicts import Verdict
from plumb.instants import now_us
from plumb.monitor_set import Watched, make_monitors
from plumb.scrape_targets import MONITORS, announced
from plumb.settings import Settings

LOOPBACK = "127.0.0.1"


def run(settings: Settings, watched: Watched, monitors: MonitorSettings, port: int, tick_s: float) -> None:
    """Look, record and export until SIGTERM or SIGINT; what a round has begun it ends."""
    registry = CollectorRegistry()
    drift, metrics = DriftMetrics(registry, monitors.drift.top), MonitorMetrics(registry, now_us)
    runner = make_runner(settings, watched, monitors, drift)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server, thread = start_http_server(port, LOOPBACK, registry)
    typer.echo(f"monitors of {', '.join(watched.services)} on http://{LOOPBACK}:{server.server_port}/metrics")
    with announced(settings.workspace, MONITORS, f"{LOOPBACK}:{server.server_port}"):
        while not stop.is_set():
            look(settings, runner, metrics)
            stop.wait(tick_s)
    server.shutdown()
    thread.join()
    server.server_close()


def look(settings: Settings, runner: Runner, metrics: MonitorMetrics) -> None:
    """One round of what is due, and its metrics."""
    began_us = now_us()
    done = runner.call_due(began_us, now_us)
    for monitor, error in done.errors:
        typer.echo(f"{monitor.name} of {monitor.subject}: {error}", err=True)
    if done.called:
        ended_us = now_us()
        metrics.show(done, _read_standing(settings, ended_us), (began_us, ended_us))


def _read_standing(settings: Settings, at_us: int) -> tuple[Standing, ...] | None:
    """What stands; None while the control database does not answer, which monitors' errors have said already."""
    try:
        return read_standing(settings.workspace, now_us=at_us)
    except TemporaryError:
        return None


def check(settings: Settings, watched: Watched, monitors: MonitorSettings) -> Round:
    """One round of every monitor, recorded."""
    return make_runner(settings, watched, monitors, None).call_due(now_us(), now_us)


def make_runner(settings: Settings, watched: Watched, monitors: MonitorSettings, drift: DriftMetrics | None) -> Runner:
    """The monitors with the verdict log behind them."""
    workspace = settings.workspace

    def record(verdicts: Sequence[Verdict], *, valid_for_s: float, now_us: int) -> None:
        record_verdicts(workspace, verdicts, valid_for_s=valid_for_s, now_us=now_us)

    report: Callable[..., None] = drift.show if drift else (lambda judged: None)
    return Runner(make_monitors(settings, watched, monitors, report), record)


def print_round(done: Round, *, as_json: bool) -> None:
    """Two lines a verdict, those that page first; or one JSON object a line."""
    for verdict in sorted(done.verdicts, key=lambda each: (each.outcome == "pass", each.subject, each.monitor)):
        if as_json:
            typer.echo(json.dumps(verdict.describe()))
        else:
            typer.echo(f"{verdict.subject}  {verdict.monitor}  {verdict.outcome.upper()}  ({verdict.severity})")
            typer.echo(f"    {verdict.text}")
