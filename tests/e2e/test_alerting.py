"""Prometheus and Alertmanager as ``plumb up`` starts them, over a real plane, server and controller.

What is scraped, what every rule and panel gives, and what on-call reads when a process is killed. The monitors and the stream
need environments and logs of their own; their metrics are served here by the code that serves them there.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from alerting.expressions import expressions, recorded, selectors
from e2e.rollouts.harness import PLUMB, Stage, start_controller
from e2e.rollouts.small_model import make_workspace
from planes.harness import ROOT, plumb_up, service
from prometheus_client import CollectorRegistry, start_http_server
from services.servers import free_port, process_environment

from features.catalogs import load_catalog
from features.event_log.compaction import open_live_log
from features.event_log.port import append_by_entity
from features.workspace import Workspace
from monitoring.drift.metrics import DriftMetrics
from monitoring.drift.records import JudgedWindow
from monitoring.monitor_metrics import MonitorMetrics
from monitoring.runner import Monitor, Runner
from monitoring.verdict_log import read_standing, record_verdicts
from monitoring.verdicts import Outcome, Severity, Verdict
from plumb.scrape_targets import MONITORS, announced
from plumb.stream_metrics import exporting

JOBS = {"plane", "server", "controller", "monitors", "stream", "prometheus", "alertmanager"}
WAIT_S = 300
NEEDS_TROUBLE = {"plumb_plane_retries_total", "plumb_plane_unrouted_requests_total", "plumb_plane_events_dropped_total"}
"""Have no series until something goes wrong."""


@dataclass
class Watched:
    """A plane with what watches it."""

    place: Stage
    prometheus: str
    alertmanager: str
    controller: subprocess.Popen[str]
    say: Callable[[Outcome], None]
    """Lets the drift monitor give this verdict of churn/stable."""

    def ask(self, path: str, **query: str) -> Any:
        with urllib.request.urlopen(f"{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=30) as reply:
            return json.load(reply)["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        return list(self.ask("query", query=expression)["result"])

    def alerts(self) -> dict[str, dict[str, Any]]:
        """By name and what it is about, as ``plumb alerts list --json`` says."""
        found = json.loads(self.place.plumb("alerts", "list", "--json"))
        return {f"{entry['name']} {entry['subject']}": entry for entry in found}

    def until(self, holds: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < deadline, f"{what} did not come true"
            time.sleep(0.5)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    workspace, port, path = make_workspace(folder / "workspace", users=60, versions=1), free_port(), folder / "churn.yaml"
    path.write_text(json.dumps(service(1, logger={"mode": "all", "url": f"http://127.0.0.1:{port}/events"})))  # JSON is YAML
    free = ("--prometheus-port", "0", "--alertmanager-port", "0")
    with contextlib.ExitStack() as stack:
        say = stack.enter_context(monitors_of(workspace))
        stack.enter_context(stream_of(workspace))
        plane = stack.enter_context(plumb_up(workspace.root, "--service", str(path), *free))
        place = Stage(workspace.root, plane, port, folder / "controller.log")
        controller = start_controller(place)
        stack.callback(end, controller)
        facts = json.loads((workspace.services() / "plane.lock").read_text())
        plane.until_ready("stable", timeout_s=WAIT_S)
        place.plumb("rollouts", "list")
        yield Watched(place, facts["prometheus"], facts["alertmanager"], controller, say)


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@contextlib.contextmanager
def monitors_of(workspace: Workspace) -> Iterator[Callable[[Outcome], None]]:
    """What ``plumb monitors run`` exports, by its runner, log and metrics; gives what sets the drift monitor's verdict."""
    registry, us = CollectorRegistry(), lambda: time.time_ns() // 1_000
    metrics, said = MonitorMetrics(registry, us), [Outcome.PASS]
    feature = {"name": "sessions_7d", "effect": 0.31, "p_value": 1e-9, "q_value": 1e-8, "threshold": 1e-6, "importance": 0.2}
    drift = Verdict("drift.training.features", "churn/stable", Outcome.PASS, Severity.PAGE, {}, "as it was", us())
    window = ("churn", "predictions", "churn/stable", "1", "training", us() - 1, us(), 500, (drift,), (feature,))
    DriftMetrics(registry, 5).show(JudgedWindow("id", *window))
    delays = {"delay_s_p50": 3_600.0, "delay_s_p90": 86_400.0, "delay_s_p99": 172_800.0, "matured_share": 0.4}
    ended = {"status": "succeeded", "finished_us": us(), "seconds": 60.0}
    others = [
        ("maturity", "model:churn", delays),
        ("runs", "run:training", ended),
        ("freshness", "view:subscriber@1", {"age_s": 4.0}),
    ]

    def judge_drift(now_us: int) -> list[Verdict]:
        evidence = {"worst": "sessions_7d", "effect": 0.31}
        return [Verdict(drift.monitor, drift.subject, said[0], Severity.PAGE, evidence, "sessions_7d has moved", now_us)]

    def judge_other(name: str, subject: str, evidence: dict[str, Any], now_us: int) -> list[Verdict]:
        return [Verdict(name, subject, Outcome.PASS, Severity.PAGE, evidence, "well", now_us)]

    asked = [Monitor(name, subject, 1, partial(judge_other, name, subject, evidence)) for name, subject, evidence in others]
    runner = Runner([*asked, Monitor(drift.monitor, drift.subject, 0, judge_drift)], partial(record_verdicts, workspace))

    def say(outcome: Outcome) -> None:
        said[0] = outcome
        began = us()
        done = runner.call_due(began)
        metrics.show(done, read_standing(workspace, now_us=us()), (began, us()))

    server, thread = start_http_server(0, "127.0.0.1", registry)
    with announced(workspace, MONITORS, f"127.0.0.1:{server.server_port}"):
        say(Outcome.PASS)
        yield say
    server.shutdown()
    thread.join()
    server.server_close()


@contextlib.contextmanager
def stream_of(workspace: Workspace) -> Iterator[None]:
    """What ``plumb stream`` exports, of a log with ten events and a worker that has folded one partition."""
    catalog = load_catalog("subscription")
    now_us = time.time_ns() // 1_000
    events = pa.table({
        "event_id": [f"e{number}" for number in range(10)], "entity_id": [f"u{number}" for number in range(10)],
        "event_type": ["session"] * 10, "event_time": pa.array([now_us] * 10, pa.timestamp("us", "UTC")), "region": ["eu"] * 10,
    })  # fmt: skip
    with open_live_log(workspace, catalog, "user") as log:
        append_by_entity(log, events, now_us=now_us)
    status = workspace.stream_status("subscriber@1")
    status.mkdir(parents=True)
    done = {"commits": 1, "events": 3, "next_offsets": {"0": 3}, "newest_us": {"0": now_us}}
    (status / "worker-000.json").write_text(json.dumps(done))
    with exporting(workspace, "subscriber@1", lambda: open_live_log(workspace, catalog, "user"), 0):
        yield


def test_every_process_is_found_and_every_metric_that_is_named_is_scraped(watched: Watched) -> None:
    def up() -> bool:
        return {entry["metric"]["job"] for entry in watched.query("up == 1")} == JOBS

    watched.until(up, f"{JOBS} are up")
    (target,) = [entry for entry in watched.ask("targets")["activeTargets"] if entry["labels"]["job"] == "server"]
    assert target["labels"].items() >= {"service": "churn", "version": "1"}.items()

    def is_asked_and_counted() -> bool:
        """A count's first value is no rise: requests go on until Prometheus has seen one."""
        watched.place.plane.predict(*(f"u{number:06d}" for number in range(20)))
        return bool(watched.query("service:plumb_answers:rate5m > 0") and watched.query("plumb_rollout_last_tick_seconds"))

    watched.until(is_asked_and_counted, "requests are counted")
    known = {entry["metric"] for entry in watched.ask("targets/metadata")} | {"up", "ALERTS"} | recorded()
    named = {name for expression in expressions().values() for name, _ in selectors(expression)}
    for suffix in ("_total", "_bucket", "_count", "_sum"):
        known |= {f"{name}{suffix}" for name in list(known)} if suffix != "_total" else {f"{name}{suffix}" for name in known}
    assert named - known == set()


def test_every_rule_is_evaluated_and_every_panel_answers_most_with_data(watched: Watched) -> None:
    rules = [rule for group in watched.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
    assert {rule["lastError"] for rule in rules if rule.get("lastError")} == set()
    empty = []
    boards = {where: expression for where, expression in expressions().items() if where.startswith("plumbline-")}
    for where, expression in boards.items():
        if not watched.query(expression) and not NEEDS_TROUBLE & {name for name, _ in selectors(expression)}:
            empty.append(where)
    assert len(empty) < 0.15 * len(boards), empty


def test_a_verdict_that_fails_reaches_on_call_with_its_evidence_and_an_ack_ends_with_it(watched: Watched) -> None:
    watched.say(Outcome.FAIL)
    name = "DriftFound churn/stable"
    watched.until(lambda: watched.alerts().get(name, {}).get("labels"), "Alertmanager has the verdict's alert")
    entry = watched.alerts()[name]
    assert (entry["evidence"]["worst"], entry["service"], entry["state"]) == ("sessions_7d", "churn", "new")
    watched.place.plumb("alerts", "ack", entry["id"], "--until", "1h", "--why", "a campaign began", "--who", "ann")
    assert watched.alerts()[name]["state"] == "acked"
    watched.say(Outcome.PASS)
    watched.say(Outcome.FAIL)
    assert watched.alerts()[name]["state"] == "new"
    watched.say(Outcome.PASS)


def test_a_controller_that_is_killed_is_paged_and_can_be_silenced(watched: Watched) -> None:
    watched.controller.kill()
    watched.controller.wait()
    name = "TargetDown controller"
    watched.until(lambda: name in watched.alerts(), "the killed controller is paged")
    entry = watched.alerts()[name]
    assert (entry["severity"], entry["runbook"]) == ("page", "docs/runbooks/monitors.md")
    (shown,) = json.loads(watched.place.plumb("alerts", "show", entry["id"], "--json"))
    assert shown["next"] == "plumb rollouts run"
    watched.place.plumb("alerts", "silence", entry["id"], "--until", "1h", "--why", "it is replaced")
    watched.until(lambda: watched.alerts()[name]["state"] == "silenced", "it is silenced")


def test_both_end_with_the_plane_even_if_it_is_killed(tmp_path: Path) -> None:
    words = [*PLUMB, "--workspace", str(tmp_path / "workspace"), "up", "--port", "0", "--admin-port", "0"]
    words += ["--prometheus-port", "0", "--alertmanager-port", "0"]
    for number in (signal.SIGTERM, signal.SIGKILL):
        with subprocess.Popen(words, cwd=ROOT, env=process_environment(), stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            said = [process.stderr.readline() for _ in range(3)]
            urls = [line.split()[-1] for line in said if "prometheus at" in line or "alertmanager at" in line]
            assert len(urls) == 2, said
            process.send_signal(number)
            process.wait(60)
        deadline = time.monotonic() + 30
        while any(answers(url) for url in urls):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    left = list((tmp_path / "workspace" / "monitoring" / "targets").glob("*.json"))
    assert {path.stem.partition("-")[0] for path in left} == {
        "plane",
        "server",
        "prometheus",
        "alertmanager",
    }  # of the killed one


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/-/ready", timeout=2).close()
    except OSError:
        return False
    return True
