"""``plumb alerts`` as on-call types it, with a real Alertmanager and without."""

from __future__ import annotations

import json
import os
import pwd
import re
import socket
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from services.prometheus import run_alertmanager
from typer.testing import CliRunner, Result

from features.errors import PlumblineError, StoreUnavailable
from features.workspace import Workspace
from monitoring.verdict_log import record_verdicts
from monitoring.verdicts import Outcome, Severity, Verdict
from plumb import alert_view, app

WHO = pwd.getpwuid(os.getuid()).pw_name
DRIFT = {"monitor": "drift.training.features", "subject": "churn/stable", "service": "churn"}


@pytest.fixture(scope="module")
def alertmanager() -> Iterator[str]:
    with run_alertmanager() as url:
        yield url


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_view.console, "width", 300)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A monitor has found drift a minute ago."""
    made, now_us = Workspace(tmp_path / "workspace"), time.time_ns() // 1_000
    verdict = Verdict(DRIFT["monitor"], DRIFT["subject"], Outcome.FAIL, Severity.PAGE, {"worst": "sessions_7d", "effect": 0.31},
                      "sessions_7d has moved by 0.31", now_us - 60_000_000)  # fmt: skip
    record_verdicts(made, [verdict], valid_for_s=3_600, now_us=now_us)
    return made


def fire(url: str, name: str, severity: str = "page", **labels: str) -> None:
    """As Prometheus sends an alert."""
    alert = {
        "labels": {"alertname": name, "severity": severity, **labels},
        "annotations": {"summary": f"{name} it is", "description": "So.", "runbook_url": "docs/runbooks/latency.md"},
        "startsAt": datetime.now(UTC).isoformat(),
    }
    request = urllib.request.Request(
        f"{url}/api/v2/alerts", data=json.dumps([alert]).encode(), headers={"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=5).close()


def call(workspace: Workspace, *words: str) -> Result:
    command = ["--workspace", str(workspace.root), "alerts", *words]
    return CliRunner().invoke(app.root, command, catch_exceptions=False)


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def listed(workspace: Workspace, url: str) -> list[dict[str, Any]]:
    done = call(workspace, "list", "--json", "--alertmanager", url)
    assert done.exit_code == 0, done.output
    return list(json.loads(done.stdout))


def test_without_alertmanager_it_says_so_in_a_line_and_shows_what_monitors_say(workspace: Workspace) -> None:
    done = call(workspace, "list")
    assert done.stderr == "plumb: without Alertmanager, only what monitors say: no plane runs on this workspace\n"
    first, second = done.stdout.splitlines()
    assert re.fullmatch(r"\w{8}  page  DriftFound  churn/stable  1 min( \d+ s)?, new", first)
    assert second.strip() == "drift.training.features: sessions_7d has moved by 0.31"
    gone = call(workspace, "list", "--alertmanager", "http://127.0.0.1:1")
    assert gone.stderr.startswith("plumb: without Alertmanager, only what monitors say: Alertmanager does not answer")
    assert "DriftFound" in gone.stdout


def test_where_neither_side_answers_nobody_is_told_that_all_is_well(workspace: Workspace) -> None:
    nobody = f"postgresql://nobody@127.0.0.1:{closed_port()}/none"
    command = ["--workspace", str(workspace.root), "--control-database", nobody, "alerts", "list"]
    done = CliRunner().invoke(app.root, command)
    assert isinstance(done.exception, StoreUnavailable)
    assert "nothing calls for anybody" not in done.stdout


@pytest.mark.parametrize("url", ["nonsense", "http://127.0.0.1:1"])
def test_an_address_that_is_no_alertmanagers_is_said_in_a_line(workspace: Workspace, url: str) -> None:
    done = call(workspace, "list", "--alertmanager", url)
    assert done.stderr.count("\n") == 1
    assert f"Alertmanager does not answer: {url}; expected its API" in done.stderr


def test_an_alert_is_shown_with_evidence_runbook_and_what_to_type(workspace: Workspace) -> None:
    shown = call(workspace, "show", "DriftFound").stdout
    for line in (
        "sessions_7d has moved by 0.31", "1 min", "worst = sessions_7d", "effect = 0.31", "docs/runbooks/drift.md",
        "plumb monitors check --service churn=MODEL",
    ):  # fmt: skip
        assert line in shown
    (facts,) = json.loads(call(workspace, "show", "DriftFound", "--json").stdout)
    assert facts["evidence"] == {"worst": "sessions_7d", "effect": 0.31}
    assert facts["rollout"] is None
    with pytest.raises(PlumblineError, match="alert does not stand: 'Other'"):
        call(workspace, "show", "Other")


def test_an_ack_is_kept_with_who_and_why_and_ends_with_the_episode(workspace: Workspace) -> None:
    done = call(workspace, "ack", "DriftFound", "--until", "2h", "--why", "a campaign began")
    assert f"is acknowledged by {WHO} until " in done.stdout
    assert f"acked by {WHO} until" in call(workspace, "list").stdout
    assert "a campaign began" in call(workspace, "show", "DriftFound").stdout
    now_us = time.time_ns() // 1_000
    for outcome, at_us in ((Outcome.PASS, now_us), (Outcome.FAIL, now_us + 1)):
        again = Verdict(DRIFT["monitor"], DRIFT["subject"], outcome, Severity.PAGE, {}, "again", at_us)
        record_verdicts(workspace, [again], valid_for_s=3_600, now_us=now_us)
    assert "acked" not in call(workspace, "list").stdout
    with pytest.raises(PlumblineError, match=r"ack refused: DriftFound; expected somebody, a reason.* --why ''"):
        call(workspace, "ack", "DriftFound", "--until", "2h", "--why", "")
    with pytest.raises(PlumblineError, match="time cannot be read: --until; expected 30m, 2h, 7d"):
        call(workspace, "ack", "DriftFound", "--until", "soon", "--why", "x")


def test_alertmanagers_alerts_and_verdicts_are_one_list(workspace: Workspace, alertmanager: str) -> None:
    fire(alertmanager, "DriftFound", kind="drift", **DRIFT)
    fire(alertmanager, "ServiceSlow", kind="latency", service="audience")
    found = {entry["name"]: entry for entry in listed(workspace, alertmanager)}
    assert set(found) == {"DriftFound", "ServiceSlow"}
    assert found["DriftFound"]["evidence"]["worst"] == "sessions_7d"
    assert found["DriftFound"]["labels"]["kind"] == "drift"
    assert (found["ServiceSlow"]["subject"], found["ServiceSlow"]["runbook"]) == ("audience", "docs/runbooks/latency.md")


def test_a_service_that_is_down_inhibits_its_latency_and_drift_and_no_other(workspace: Workspace, alertmanager: str) -> None:
    fire(alertmanager, "DriftFound", kind="drift", **DRIFT)
    fire(alertmanager, "ServiceSlow", kind="latency", service="churn")
    fire(alertmanager, "ServiceSlow", kind="latency", service="audience")
    fire(alertmanager, "ServiceDown", kind="down", service="churn")
    deadline = time.monotonic() + 30
    while (states := {(entry["name"], entry["service"]): entry["state"] for entry in listed(workspace, alertmanager)}) != {
        ("ServiceDown", "churn"): "new",
        ("ServiceSlow", "audience"): "new",
        ("ServiceSlow", "churn"): "inhibited",
        ("DriftFound", "churn"): "inhibited",
    }:
        assert time.monotonic() < deadline, states
        time.sleep(0.2)


def test_a_silence_needs_alertmanager_a_reason_and_an_end_and_is_its_own(workspace: Workspace, alertmanager: str) -> None:
    words = ("silence", "ServiceSlow", "--why", "load test", "--until", "30m")
    with pytest.raises(PlumblineError, match="alert cannot be silenced: ServiceSlow; expected an Alertmanager"):
        call(workspace, *words)
    fire(alertmanager, "ServiceSlow", kind="latency", service="propensity")
    said = call(workspace, *words, "--alertmanager", alertmanager).stdout
    assert f"ServiceSlow is silenced by {WHO} until" in said
    with urllib.request.urlopen(f"{alertmanager}/api/v2/silences") as reply:
        (silence,) = json.load(reply)
    assert (silence["createdBy"], silence["comment"]) == (WHO, "load test")
    assert silence["matchers"] == [{"isEqual": True, "isRegex": False, "name": "alertname", "value": "ServiceSlow"}]
    deadline = time.monotonic() + 30
    while {entry["state"] for entry in listed(workspace, alertmanager) if entry["service"] == "propensity"} != {"silenced"}:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    refused = (("DriftFound", "2h", "", "a reason"), ("DriftFound", "2001-01-01", "x", "an instant to come"))
    for name, until, why, expected in refused:
        with pytest.raises(PlumblineError, match=expected):
            call(workspace, "silence", name, "--until", until, "--why", why, "--alertmanager", alertmanager)
