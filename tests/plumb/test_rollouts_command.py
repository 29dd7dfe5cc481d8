"""``plumb rollouts``: what on-call types and reads, by command and over HTTP, with the real registry."""

from __future__ import annotations

import json
import os
import pwd
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from e2e.rollouts.document_plane import START_US, DocumentPlane, document, serve_admin
from e2e.rollouts.simulated import PLAN, Town, broken_score
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from components.rollouts import RegistryAliases, choose_canary, suit_plan
from features.workspace import Workspace
from models.aliases import champion_of, history
from models.errors import SpecError, VersionError
from models.versions import NewVersion, register
from monitoring.errors import RolloutError, TrafficUnavailable
from monitoring.rollout.api import Desk, build_api
from monitoring.rollout.leader import Claim, take
from monitoring.rollout.plan import DEFAULT_PLAN, PlanError, describe_plan
from monitoring.rollout.traffic import PlaneTraffic
from plumb import app, rollout_view
from plumb.instants import now_us
from plumb.rollout_process import let_go, listen, serving

NEW = NewVersion("churn", 0, "run-1", True, "beats recency", "subscriber@1", "v", "g", {"network_auc": 0.8})
WHO = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """Version 1 is served and champion, 2 is the candidate, 3 is not blessed; the registry is the real one."""
    workspace = Workspace(tmp_path / "workspace")
    (tmp_path / "artifacts").mkdir()
    for new in (NEW, NEW, replace(NEW, blessed=False, reason="loses to recency")):
        register(workspace, new, tmp_path / "artifacts")
    plane = DocumentPlane(tmp_path / "services")
    plane.documents.apply_file(document(1), START_US)
    with serve_admin(plane) as url:
        traffic = PlaneTraffic(url)
        made = Town(workspace, plane, traffic, RegistryAliases(workspace))  # type: ignore[arg-type]
        made.url = url
        yield made
        traffic.close()


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """As wide as its lines, so that a sentence can be looked for in one piece; the console has its width since its import."""
    monkeypatch.setattr(rollout_view.console, "width", 300)


def call(town: Town, *arguments: str, code: int = 0) -> str:
    command = ["--workspace", str(town.workspace.root), "rollouts", *arguments]
    done = CliRunner().invoke(app.root, command, catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.stdout


def plan_file(tmp_path: Path) -> str:
    path = tmp_path / "plan.yaml"
    path.write_text(json.dumps(describe_plan(PLAN)))  # JSON is YAML
    return str(path)


def test_a_rollout_is_started_watched_promoted_and_undone(town: Town, tmp_path: Path) -> None:
    said = call(town, "start", "churn", "--why", "better", "--plan", plan_file(tmp_path), "--plane", town.url)
    assert "rollout 1 of churn: churn version 1 -> 2 is asked for" in said
    asked = call(town, "show", "churn", "--plane", town.url)
    assert "none acts: start one with `plumb rollouts run`" in asked
    assert "starts the canary and gives it 10 %" in asked
    controller = town.controller()
    town.run(controller, seconds=4)
    shown = call(town, "show", "1", "--plane", town.url)
    assert "rollout 1 of churn: running, churn 1 -> 2, canary at 10 %, stage 1 of 2" in shown
    assert "stable runs version 1; canary-1 runs version 2 at 10 %, ready" in shown
    assert "stage 1 of 2 bakes for another" in shown
    assert "then gives it 50 % once every gate passes" in shown
    assert "errors:" in shown
    town.run(controller, seconds=60, until=lambda: town.phase == "promoted" and not town.standing.needs_controller)
    assert champion_of(town.workspace, "churn") == 2
    assert history(town.workspace, "churn")[0].why == "rollout 1, promote by controller: every gate passed at 50 %"
    assert "`plumb rollouts rollback 1 --why ...` restores version 1" in call(town, "show", "1", "--plane", town.url)
    said = call(town, "rollback", "churn", "--why", "support calls", "--wait", "0")
    assert "rollback of rollout 1 is asked for; no controller has done it yet" in said
    town.run(controller, seconds=4)
    assert champion_of(town.workspace, "churn") == 1
    (entry,) = json.loads(call(town, "list", "--json"))
    assert (entry["phase"], entry["step_who"], entry["step_why"]) == ("rolled_back", WHO, "support calls")
    assert "rolled_back" in call(town, "list", "churn")
    timeline = json.loads(call(town, "show", "1", "--json", "--plane", town.url))["timeline"]
    assert [step["action"] for step in timeline] == ["request", "start", "shift", "promote", "restore"]


def test_a_canary_that_was_champion_already_loses_that_with_its_traffic(town: Town, tmp_path: Path) -> None:
    RegistryAliases(town.workspace).promote("churn", 2, "the gate of training liked it", START_US)
    town.answer = broken_score
    call(town, "start", "churn", "--why", "better", "--plan", plan_file(tmp_path), "--plane", town.url)
    town.run(town.controller(), seconds=60, until=lambda: town.phase == "rolled_back" and not town.standing.needs_controller)
    assert champion_of(town.workspace, "churn") == 1
    assert "rollback by controller: score" in history(town.workspace, "churn")[0].why


def test_what_cannot_be_rolled_out_is_refused_before_anything_is_recorded(town: Town, tmp_path: Path) -> None:
    start = ("start", "churn", "--why", "better", "--plane", town.url)
    with pytest.raises(VersionError, match="model version is not blessed: churn version 3"):
        call(town, *start, "--version", "3")
    with pytest.raises(RolloutError, match="canary is what is served already: churn: churn version 1"):
        call(town, *start, "--version", "1")
    with pytest.raises(RolloutError, match="request has no reason"):
        call(town, "start", "churn", "--why", " ", "--plane", town.url)
    with pytest.raises(TrafficUnavailable, match="data plane does not answer"):
        call(town, "start", "churn", "--why", "better", "--plane", "http://127.0.0.1:1")
    (tmp_path / "bad.yaml").write_text("stages: [{percent: 200, bake_s: 1, least_users: 1}]")
    with pytest.raises(PlanError, match="rollout plan refused"):
        call(town, *start, "--plan", str(tmp_path / "bad.yaml"))
    silent = document(1, "silent")
    del silent["spec"]["predictor"]["logger"]
    town.plane.documents.apply_file(silent, START_US)
    with pytest.raises(RolloutError, match="service sends no events: silent"):
        call(town, "start", "silent", "--why", "better", "--plane", town.url)
    assert json.loads(call(town, "list", "--json")) == []
    with pytest.raises(RolloutError, match="rollout does not exist: 'churn'"):
        call(town, "show", "churn")


def test_a_model_of_hours_is_not_judged_by_labels(town: Town) -> None:
    assert suit_plan("churn", DEFAULT_PLAN) == DEFAULT_PLAN
    by_label = {"labels", "estimate"}
    kept = [gate for gate in DEFAULT_PLAN.gates if gate.kind not in by_label]
    assert list(suit_plan("send_time", DEFAULT_PLAN).gates) == kept
    assert len(kept) == len(DEFAULT_PLAN.gates) - len(by_label)
    asked_for = replace(PLAN, gates=DEFAULT_PLAN.gates)
    with pytest.raises(SpecError, match="a rollout's gate by labels does not fit a model of hours of the week"):
        suit_plan("send_time", asked_for)
    assert suit_plan("send_time", replace(PLAN, gates=tuple(kept))).stages == PLAN.stages


def test_a_refused_command_ends_with_2_and_says_why(town: Town) -> None:
    call(town, "start", "churn", "--why", "better", "--plane", town.url)
    call(town, "abort", "1", "--why", "changed my mind", "--wait", "0")
    with pytest.raises(RolloutError, match="expected paused; got pending"):
        call(town, "resume", "1", "--why", "go on")
    call(town, "rollback", "1", "--why", "no", "--wait", "0")
    town.run(town.controller(), seconds=2)
    shown = call(town, "show", "1", "--plane", town.url)
    assert "aborted" in shown
    assert "rollback by" in shown
    assert "refused: rollout cannot be changed so" in shown


def test_a_lease_that_cannot_be_given_back_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = Workspace(tmp_path)
    held = take(workspace, Claim("first", ttl_s=600), None, now_us())
    assert held is not None
    other = sqlite3.connect(workspace.control_database, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    let_go(workspace, held)
    assert "the lease is not given back and expires by itself: control database did not answer" in capsys.readouterr().err
    other.close()
    let_go(workspace, held)
    assert take(workspace, Claim("second"), None, now_us()) is not None


def test_the_http_api_says_and_does_the_same(town: Town) -> None:
    controller = town.controller()
    registry = CollectorRegistry()

    def choose(model: str, version: int | None) -> int:
        return choose_canary(town.workspace, model, version).version

    desk = Desk(town.workspace, town.traffic, controller.collector, choose, suit_plan, lambda: town.now_us, registry)
    with (
        listen(0) as listener,
        serving(build_api(desk), listener),
        httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30) as client,
    ):
        assert client.get("/v1/rollouts").json() == []
        body = {"service": "churn", "who": "ann", "why": "better", "plan": describe_plan(PLAN)}
        made = client.post("/v1/rollouts", json=body)
        assert (made.status_code, made.json()["canary_version"], made.json()["phase"]) == (202, 2, "pending")
        again = client.post("/v1/rollouts", json=body)
        assert again.status_code == 409
        assert "service has an open rollout" in again.json()["error"]
        assert client.post("/v1/rollouts", json={**body, "colour": "red"}).status_code == 422
        town.run(controller, seconds=6)
        assert client.post("/v1/rollouts/churn/pause", json={"who": "bob", "why": "freeze"}).status_code == 202
        assert client.post("/v1/rollouts/churn/stop", json={"who": "bob", "why": "freeze"}).status_code == 409
        town.run(controller, seconds=1)
        shown = client.get("/v1/rollouts/1").json()
        assert (shown["phase"], shown["step_who"], shown["commands"][0]["result"]) == ("paused", "bob", "done")
        assert shown["verdicts"]
        assert client.post("/events", content=b"{}").status_code == 400
        assert client.get("/healthz").text == "ok"
        assert client.get("/v1/rollouts/9").status_code == 409
