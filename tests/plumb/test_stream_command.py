"""``plumb stream`` as a process: appends, catches up, goes on when started again, stops cleanly."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from features import delta
from plumb.stream_progress import Progress, read_progress

PLUMB = [sys.executable, "-c", "from plumb.app import main; main()"]
NOW_US = 1_767_571_200_000_000


def write_events(path: Path, first: int, count: int, **changes: Sequence[Any]) -> Path:
    """Sessions of ten users, with ids from ``first`` on."""
    columns: dict[str, Sequence[Any]] = {
        "event_id": [f"e{number}" for number in range(first, first + count)],
        "entity_id": [f"u{number % 10}" for number in range(first, first + count)],
        "event_type": ["session"] * count,
        "event_time": pa.array([NOW_US + number for number in range(count)], pa.timestamp("us", "UTC")),
        "region": ["eu"] * count,
        "duration_ms": [7] * count,
    }
    pq.write_table(pa.table(columns | changes), path)
    return path


def plumb(workspace: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*PLUMB, "--workspace", str(workspace), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def progress(workspace: Path) -> Progress:
    return read_progress(workspace / "stream" / "subscriber@1")


def compacted(workspace: Path) -> int:
    """Events in the batch log."""
    table = delta.open_table(workspace / "events" / "user")
    return table.to_pyarrow_dataset().count_rows() if table else 0


def test_a_stream_appends_catches_up_goes_on_and_stops_when_told(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    append = ("stream", "append", "--catalog", "subscription")
    first = write_events(tmp_path / "first.parquet", 0, 100, mood=["fine"] * 100)
    assert plumb(workspace, *append, first).returncode == 0
    caught = plumb(workspace, "stream", "--catalog", "subscription", "--until-caught-up")
    assert caught.returncode == 0, caught.stderr
    assert "100 events, 0 repeats" in caught.stderr
    assert "new attribute mood" in caught.stderr

    again = write_events(tmp_path / "again.parquet", 95, 10, event_type=["session"] * 9 + ["sesion"])
    assert plumb(workspace, *append, again).returncode == 0
    words = [
        *PLUMB,
        "--workspace",
        str(workspace),
        "stream",
        "--catalog",
        "subscription",
        "--workers",
        "2",
        "--compact-every",
        "1",
    ]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 240
        while (progress(workspace).events, compacted(workspace)) != (10, 109) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    total = progress(workspace)
    assert (total.events, total.repeats) == (10, 5)
    assert total.refused == {"quarantined: event type sesion is not declared": 1}

    assert compacted(workspace) == 109, "the stream compacts while it runs"

    more = write_events(tmp_path / "more.parquet", 200, 3)
    assert plumb(workspace, *append, more).returncode == 0
    moved = plumb(workspace, "stream", "compact", "--catalog", "subscription")
    assert "3 events moved to the batch log, 0 rows to the dead letters" in " ".join(moved.stderr.split())
    stats = json.loads(plumb(workspace, "events", "stats", "--json").stdout)
    assert stats[0]["events"] == 112


def test_a_stream_without_a_store_that_fits_says_so_in_a_line(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    (workspace / "online" / "subscriber@1").mkdir(parents=True)
    found = plumb(workspace, "stream", "--catalog", "subscription", "--until-caught-up")
    assert found.returncode == 2
    assert found.stderr.strip().count("\n") == 0
    assert "online store is incomplete" in found.stderr
