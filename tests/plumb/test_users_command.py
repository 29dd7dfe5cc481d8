"""``plumb users`` as a process, beside a running stream: who is deleted is gone, stays gone, and stands in the record."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from features.catalogs import load_catalog
from features.events import read_events
from features.online.addresses import ViewVersion, open_store
from features.workspace import Workspace
from plumb.stream_progress import read_progress

PLUMB = [sys.executable, "-c", "from plumb.app import main; main()"]
CATALOG = load_catalog("subscription")
VIEW = CATALOG.view("subscriber")
THEN_US = 1_767_571_200_000_000


def write_events(path: Path, first: int, count: int) -> Path:
    """Sessions of ten users, with ids from ``first`` on."""
    numbers = range(first, first + count)
    columns = {
        "event_id": [f"e{number}" for number in numbers],
        "user_id": [f"u{number % 10}" for number in numbers],
        "entity_id": [f"u{number % 10}" for number in numbers],
        "event_type": ["session"] * count,
        "event_time": pa.array([THEN_US + number for number in numbers], pa.timestamp("us", "UTC")),
        "ingest_time": pa.array([THEN_US + number for number in numbers], pa.timestamp("us", "UTC")),
        "region": ["eu"] * count,
        "duration_ms": [7] * count,
    }
    pq.write_table(pa.table(columns), path)
    return path


def plumb(workspace: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*PLUMB, "--workspace", str(workspace), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def state_of(workspace: Path, name: str) -> bytes:
    version = ViewVersion.of(CATALOG, VIEW)
    with open_store(str(Workspace(workspace).online(VIEW.key)), version, readonly=True) as store:
        return store.get_many([name]).states[0]


@contextmanager
def streaming(workspace: Path) -> Iterator[None]:
    words = [*PLUMB, "--workspace", str(workspace), "stream", "--catalog", "subscription"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=120)


def wait_for_events(workspace: Path, count: int) -> None:
    folder = Workspace(workspace).stream_status(VIEW.key)
    deadline = time.monotonic() + 240
    while read_progress(folder).events < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def append(workspace: Path, path: Path) -> None:
    events = pq.read_table(path).drop_columns(["user_id", "ingest_time"])
    sent = path.with_name(f"sent-{path.name}")
    pq.write_table(events, sent)
    done = plumb(workspace, "stream", "append", "--catalog", "subscription", sent)
    assert done.returncode == 0, done.stderr


def test_a_user_is_deleted_beside_a_running_stream_and_an_old_file_does_not_bring_her_back(tmp_path: Path) -> None:
    workspace, old = tmp_path / "workspace", write_events(tmp_path / "old.parquet", 0, 50)
    append(workspace, old)
    erase = ("users", "erase", "--catalog", "subscription", "--reason", "asked by mail", "--wait-s", "120", "--json", "u3")
    with streaming(workspace):
        wait_for_events(workspace, 50)
        assert state_of(workspace, "u3")
        done = plumb(workspace, *erase)
        assert done.returncode == 0, done.stderr
        request = json.loads(done.stdout)
        assert request["waiting"] == []
        assert (request["counts"]["event log"], request["counts"]["live log files"]) == (5, 1)
        assert state_of(workspace, "u3") == b""
        append(workspace, old)
        wait_for_events(workspace, 101)  # fifty, the marker, the same fifty
        assert state_of(workspace, "u3") == b""
        assert state_of(workspace, "u4")
    assert plumb(workspace, "stream", "compact", "--catalog", "subscription").returncode == 0
    names = read_events(Workspace(workspace), CATALOG, "user", columns=["entity_id"])["entity_id"].to_pylist()
    assert names.count("u3") == 0
    assert names.count("u4") == 10
    listed = plumb(workspace, "users", "erased", "u3", "--json")
    assert [entry["reason"] for entry in json.loads(listed.stdout)] == ["asked by mail"]
    assert "u3" not in listed.stdout
    assert plumb(workspace, "users", "erased", "u4", "--json").stdout.strip() == "[]"
    assert "asked" in plumb(workspace, "users", "erased").stdout


def test_ids_come_from_a_file_and_nobody_is_an_error(tmp_path: Path) -> None:
    listed = tmp_path / "ids.txt"
    listed.write_text("u1\n\nu2\nu1\n")
    erase = ("users", "erase", "--catalog", "subscription", "--reason", "closed", "--json")
    done = plumb(tmp_path / "workspace", *erase, "--file", listed)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["markers"] == 2
    listed.write_text("\n")
    nobody = plumb(tmp_path / "workspace", *erase, "--file", listed)
    assert (nobody.returncode, nobody.stderr.count("\n")) == (2, 1)
    assert "nobody to delete" in nobody.stderr


def test_a_catalog_without_retention_says_that_it_keeps_everything(tmp_path: Path) -> None:
    done = plumb(tmp_path / "workspace", "events", "expire", "--catalog", "subscription", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        {"entity": "user", "events": 0, "first_days": {}, "live_files": 0, "prediction_files": {}}
    ]
