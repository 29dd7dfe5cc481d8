"""Where processes say that they export metrics, and what is made of the repository's configuration for one workspace."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from services.servers import find_program

from features.catalogs import load_catalog
from features.event_log.compaction import open_live_log
from features.event_log.port import append_by_entity
from features.workspace import Workspace
from plumb import prometheus
from plumb.prometheus import LocalPrometheus, write_alertmanager_config, write_prometheus_config
from plumb.scrape_targets import CONTROLLER, STREAM, announced, read_targets, servers_of
from plumb.stream_metrics import exporting

NOW_US = 1_767_571_200_000_000
DIE = """
import os, sys
from pathlib import Path
from features.workspace import Workspace
from plumb.scrape_targets import CONTROLLER, announced
with announced(Workspace(Path(sys.argv[1])), CONTROLLER, "127.0.0.1:7"):
    os._exit(9)
"""


def revision(name: str, port: int | None, version: int) -> dict[str, Any]:
    return {"name": name, "port": port, "storageUri": f"pvc://plumb-models/churn/{version}"}


def test_a_process_that_ends_as_asked_is_no_target_and_one_that_was_killed_stays_until_its_successor(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with announced(workspace, CONTROLLER, "http://127.0.0.1:8002"):
        assert read_targets(workspace.scrape_targets()) == {CONTROLLER: ["127.0.0.1:8002"]}
    assert read_targets(workspace.scrape_targets()) == {}
    subprocess.run([sys.executable, "-c", DIE, str(tmp_path)], check=False, timeout=60)
    assert read_targets(workspace.scrape_targets()) == {CONTROLLER: ["127.0.0.1:7"]}
    with announced(workspace, STREAM, "127.0.0.1:8"):  # of another job
        assert read_targets(workspace.scrape_targets()) == {CONTROLLER: ["127.0.0.1:7"], STREAM: ["127.0.0.1:8"]}
    with announced(workspace, CONTROLLER, "127.0.0.1:9"):
        assert read_targets(workspace.scrape_targets()) == {CONTROLLER: ["127.0.0.1:9"]}


def test_servers_bear_their_service_and_version_and_one_that_does_not_listen_is_none() -> None:
    revisions = [revision("stable", 4_001, 1), revision("canary-1", None, 2)]
    shown = {"metadata": {"name": "churn"}, "status": {"revisions": revisions}}
    assert servers_of([shown]) == [{"targets": ["127.0.0.1:4001"], "labels": {"service": "churn", "version": "1"}}]


def test_a_workspaces_configuration_names_its_own_targets_rules_and_alertmanager(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for folder in ("prometheus", "alertmanager"):
        (workspace.prometheus() / folder).mkdir(parents=True)
    path = write_prometheus_config(workspace, {"prometheus": 1, "alertmanager": 4_093})
    content = yaml.safe_load(path.read_text())
    assert content["alerting"]["alertmanagers"] == [{"static_configs": [{"targets": ["127.0.0.1:4093"]}]}]
    files = [name for scrape in content["scrape_configs"] for found in scrape["file_sd_configs"] for name in found["files"]]
    assert {Path(name).parent for name in files} == {workspace.scrape_targets()}
    checked = subprocess.run(
        [find_program("promtool"), "check", "config", str(path)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert "7 rule files found" in checked.stdout
    alone = yaml.safe_load(write_prometheus_config(workspace, {"prometheus": 1}).read_text())
    assert "alerting" not in alone


def test_an_operators_own_receivers_take_the_place_of_ours(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    (workspace.prometheus() / "alertmanager").mkdir(parents=True)
    ours = write_alertmanager_config(workspace, {})
    assert yaml.safe_load(ours.read_text())["route"]["receiver"] == "ticket"
    own = workspace.prometheus() / "alertmanager.yml"
    own.write_text("route: {receiver: me}\nreceivers: [{name: me}]\n")
    assert write_alertmanager_config(workspace, {}) == own


def test_without_the_packages_the_plane_is_told_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "PROGRAMS", {"prometheus": ("no-such-program",), "alertmanager": ("none-such",)})
    told: list[str] = []
    beside = LocalPrometheus(Workspace(tmp_path), told.append, {"prometheus": 0, "alertmanager": 0})
    assert beside.start() == {}
    beside.check()
    beside.stop()
    assert told == [
        "no prometheus and alertmanager beside this plane: not installed;"
        " next: apt-get install prometheus prometheus-alertmanager (or --no-prometheus)"
    ]


def test_a_program_that_ends_at_once_is_told_with_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "PROGRAMS", {"prometheus": ("false",), "alertmanager": ("none-such",)})
    told: list[str] = []
    beside = LocalPrometheus(Workspace(tmp_path), told.append, {"prometheus": 0, "alertmanager": 0})
    assert set(beside.start()) == {"prometheus"}
    beside._running[0].process.wait(60)
    log = tmp_path / "monitoring" / "prometheus" / "prometheus" / "prometheus.log"
    for _ in range(2):
        beside.check()
    assert told[1:] == [f"prometheus ended with 1: nothing in its log; its log: {log}"]
    beside.stop()
    assert read_targets(Workspace(tmp_path).scrape_targets()) == {}


def test_a_stream_exports_what_it_has_folded_beside_where_the_log_ends(tmp_path: Path) -> None:
    workspace, catalog = Workspace(tmp_path), load_catalog("subscription")
    events = pa.table({
        "event_id": ["e1", "e2"], "entity_id": ["u1", "u1"], "event_type": ["session"] * 2, "region": ["eu"] * 2,
        "event_time": pa.array([NOW_US] * 2, pa.timestamp("us", "UTC")),
    })  # fmt: skip
    with open_live_log(workspace, catalog, "user") as log:
        append_by_entity(log, events, now_us=NOW_US)
    status = workspace.stream_status("subscriber@1")
    status.mkdir(parents=True)
    done = {
        "commits": 1,
        "events": 9,
        "refused": {"no such type": 2, "late": 1},
        "next_offsets": {"0": 1},
        "newest_us": {"0": NOW_US},
    }
    (status / "worker-000.json").write_text(json.dumps(done))
    with exporting(workspace, "subscriber@1", lambda: open_live_log(workspace, catalog, "user"), 0) as port:
        assert read_targets(workspace.scrape_targets()) == {STREAM: [f"127.0.0.1:{port}"]}
        lines = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode().splitlines()
    assert 'plumb_stream_events_total{view="subscriber@1"} 9.0' in lines
    assert 'plumb_stream_refused_total{view="subscriber@1"} 3.0' in lines
    assert 'plumb_stream_next_offset{partition="0",view="subscriber@1"} 1.0' in lines
    newest = [float(line.split()[-1]) for line in lines if line.startswith("plumb_stream_newest_seconds{")]
    assert newest == [NOW_US / 1e6]
    ends = [float(line.split()[-1]) for line in lines if line.startswith("plumb_stream_log_end_offset{")]
    assert (len(ends), sum(ends)) == (catalog.log_partitions, 2)  # both events are u1's
    assert 'plumb_stream_log_readable{view="subscriber@1"} 1.0' in lines
