"""``plumb up`` with real servers: two revisions of the tiny model, traffic, kills, and a plane that comes back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from planes.harness import ROOT, Process, Sink, canary_of, plumb_up, service, sink, traffic

from features.workspace import Workspace
from inference.plane.routing import bucket_of
from models.versions import NewVersion, list_versions, register

CANARY = 3
"""Version 1 is blessed, 2 is not (tests/inference/conftest.py), 3 is made here."""


@pytest.fixture(scope="module")
def two_versions(workspace: Workspace, artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's workspace with another blessed version."""
    root = tmp_path_factory.mktemp("plane") / "workspace"
    shutil.copytree(workspace.root, root)
    first = list_versions(workspace, "churn")[-1]
    facts = {name: getattr(first, name) for name in ("model", "created_at_us", "run_id", "blessed", "reason", "view_key")}
    facts |= {name: getattr(first, name) for name in ("view_hash", "graph_hash", "metrics")}
    assert register(Workspace(root), NewVersion(**facts), artifacts).version == CANARY
    return root


@pytest.fixture(scope="module")
def received() -> Iterator[Sink]:
    with sink() as running:
        yield running


@pytest.fixture(scope="module")
def services(received: Sink, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("services") / "churn.yaml"
    path.write_text(yaml.safe_dump(service(canary=CANARY, percent=25, logger={"mode": "all", "url": received.url})))
    return path


@pytest.fixture(scope="module")
def up(two_versions: Path, services: Path) -> Iterator[Process]:
    with plumb_up(two_versions, "--service", str(services)) as running:
        running.until_ready("stable", "v3", timeout_s=400)
        yield running


def in_canary(entity: str, percent: int) -> bool:
    return bucket_of("churn", "v3", entity) < percent * 100


def test_each_revision_answers_its_users_and_says_so_in_header_body_and_events(up: Process, received: Sink) -> None:
    mine = next(f"u{number}" for number in range(200) if in_canary(f"u{number}", 25))
    other = next(f"u{number}" for number in range(200) if not in_canary(f"u{number}", 25))
    for entity, name, version in ((mine, "v3", "3"), (other, "stable", "1")):
        reply = up.predict(entity, **{"x-request-id": f"see-{name}"})
        assert (reply.status_code, reply.headers["x-plumb-revision"]) == (200, name)
        assert (reply.json()["revision"], reply.json()["model_version"]) == (name, version)
        up.until(lambda wanted=f"see-{name}": wanted in {headers["ce-id"] for headers, _ in received.of("response")})  # type: ignore[misc]
        headers, body = next(event for event in received.of("response") if event[0]["ce-id"] == f"see-{name}")
        assert (headers["ce-endpoint"], headers["ce-responsestatus"]) == (name, "200")
        assert json.loads(body) == reply.json()
    both = up.predict(other, mine).json()
    assert [entry["entity_id"] for entry in both["predictions"]] == [other, mine]
    assert both["revisions"] == ["stable", "v3"]


def test_a_binary_v2_request_passes_through_unchanged(up: Process) -> None:
    mine = next(f"u{number}" for number in range(200) if in_canary(f"u{number}", 25))
    tensor = len(mine).to_bytes(4, "little") + mine.encode()
    now = {"name": "now", "datatype": "INT64", "shape": [1], "data": [1_740_830_400_000_000]}
    entity = {"name": "entity_id", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(tensor)}}
    wanted = [{"name": "score", "parameters": {"binary_data": True}}]
    header = json.dumps({"id": "b1", "inputs": [now, entity], "outputs": wanted}).encode()
    headers = {"inference-header-content-length": str(len(header)), "content-type": "application/octet-stream"}
    direct = f"http://127.0.0.1:{up.revision('v3')['port']}"
    through, straight = (
        up.http.post(f"{url}/v2/models/churn/infer", content=header + tensor, headers=headers) for url in (up.url, direct)
    )
    assert (through.status_code, through.headers["x-plumb-revision"]) == (200, "v3")
    assert through.content == straight.content
    assert through.headers["inference-header-content-length"] == straight.headers["inference-header-content-length"]
    metadata = up.http.get(f"{up.url}/v2/models/churn").json()
    assert (metadata["name"], "entity_id" in {entry["name"] for entry in metadata["inputs"]}) == ("churn", True)


def test_no_request_is_lost_while_weights_move_and_none_is_answered_at_zero(up: Process) -> None:
    with traffic(up.url) as sent:
        for percent in (5, 50, 100, 25):
            time.sleep(0.7)
            up.shift(percent)
        time.sleep(0.7)
        up.shift(0)
        after = len(sent.answers)
        time.sleep(1.0)
    assert len(sent.answers) > 500
    assert sent.codes == {200}
    assert sent.revisions == {"stable", "v3"}
    assert {revision for _, _, revision in sent.answers[after:]} == {"stable"}
    up.shift(25)
    assert up.get()["status"]["canaryStatuses"] == [{"name": "v3", "ready": True, "trafficPercent": 25}]


def test_no_request_is_lost_when_the_canarys_process_is_killed(up: Process) -> None:
    up.shift(50)
    restarts = up.revision("v3")["restarts"]
    with traffic(up.url, rate=100) as sent:
        time.sleep(0.5)
        os.kill(up.revision("v3")["pid"], signal.SIGKILL)
        up.until(lambda: up.revision("v3")["restarts"] > restarts)
        time.sleep(0.5)
        assert up.get()["status"]["canaryStatuses"] == [{"name": "v3", "ready": False, "trafficPercent": 50}]
        up.until_ready("v3", timeout_s=400)
        time.sleep(0.5)
    assert sent.codes == {200}
    assert "v3" in {revision for _, _, revision in sent.answers[-40:]}
    up.shift(25)


def test_a_canary_is_promoted_under_traffic_without_a_restart(up: Process) -> None:
    up.shift(100)
    process = up.revision("v3")["pid"]
    before = up.get()
    with traffic(up.url, rate=100) as sent:
        time.sleep(0.3)
        predictor = {**before["spec"]["predictor"], **canary_of(CANARY, 0)["predictor"]}
        reply = up.patch(
            {"op": "test", "path": "/metadata/resourceVersion", "value": before["metadata"]["resourceVersion"]},
            {"op": "replace", "path": "/spec/predictor", "value": predictor},
            {"op": "replace", "path": "/spec/canary", "value": []},
        )
        assert reply.status_code == 200
        time.sleep(0.5)
    assert sent.codes == {200}
    assert up.revision("v3")["pid"] == process
    assert [entry["name"] for entry in up.get()["status"]["revisions"]] == ["v3"]


def test_a_killed_plane_takes_its_servers_along_and_comes_back_at_the_same_weights(
    up: Process, two_versions: Path, services: Path
) -> None:
    stable = up.get()["spec"]["predictor"].get("name", "stable")  # as the tests before have left it
    up.patch({"op": "add", "path": "/spec/canary", "value": [canary_of(1, 0)]})
    up.shift(40)
    servers = [revision["pid"] for revision in up.get()["status"]["revisions"]]
    assert len(servers) == 2
    up.process.kill()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{server}").exists() for server in servers):
        assert time.monotonic() < deadline, "a server outlived its plane"
        time.sleep(0.1)
    with plumb_up(two_versions, "--service", str(services)) as again:
        assert again.get()["status"]["canaryStatuses"] == [{"name": "v1", "ready": False, "trafficPercent": 40}]
        again.until_ready(stable, timeout_s=400)
        assert again.predict("u1").headers["x-plumb-revision"] in (stable, "v1")
        second = plumb(two_versions, "up", "--port", "0", "--admin-port", "0")
        assert second.returncode == 2
        assert second.stderr.startswith("plumb: workspace has a plane already: ")
        down = plumb(two_versions, "down")
        assert (down.returncode, down.stderr) == (0, "plumb: stopped\n")
        assert again.process.wait(10) == 0
    assert plumb(two_versions, "down").stderr == "plumb: no plane runs on this workspace\n"


def plumb(workspace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from plumb.app import main; main()", "--workspace", str(workspace), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
