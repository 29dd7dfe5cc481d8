"""``plumb features freshness`` and ``quality`` on a small workspace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from parity.adversarial import draw_events, to_table

from features.catalogs import load_catalog
from features.event_checks import STAMPED
from features.events import append_events, read_events
from features.online.addresses import ViewVersion, open_store
from features.online.store import NO_OFFSET, Watermark
from features.rows import FRESHNESS, QUALITY, event_schema
from features.workspace import Workspace

CATALOG = load_catalog("subscription")
VIEW = CATALOG.view("subscriber")
ROOT = Path(__file__).parents[2]
HOUR_US = 3_600_000_000


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = Workspace(tmp_path_factory.mktemp("workspace"))
    events = to_table(draw_events(users=20, seed=4), event_schema(CATALOG.attributes_of("user"))).drop_columns(list(STAMPED))
    append_events(made, CATALOG, "user", events, source="drawn")
    made.online(VIEW.key).parent.mkdir(parents=True)
    with open_store(str(made.online(VIEW.key)), ViewVersion.of(CATALOG, VIEW), create=True) as store:
        store.commit(3, {}, {}, Watermark(41, 1, 1_767_571_200_000_000, 0), expected_previous=NO_OFFSET)
    return made


def run(workspace: Workspace, *arguments: str) -> str:
    command = [sys.executable, "-c", "from plumb.app import main; main()", "--workspace", str(workspace.root), "features"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run([*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_freshness_is_shown_and_written_shard_by_shard(workspace: Workspace, tmp_path: Path) -> None:
    shown = run(workspace, "freshness", "--catalog", "subscription", "--view", "subscriber", "--output", str(tmp_path / "f"))
    assert shown.count("never filled") == CATALOG.log_partitions - 1
    rows = pq.read_table(tmp_path / "f")
    assert rows.schema == FRESHNESS
    assert rows["log_offset"].to_pylist()[3] == 41
    assert rows["late"].to_pylist() == [True] * CATALOG.log_partitions


def test_quality_is_shown_and_written_measure_by_measure(workspace: Workspace, tmp_path: Path) -> None:
    times = read_events(workspace, CATALOG, "user")["ingest_time"].cast(pa.int64()).to_pylist()
    hour_us = times[len(times) // 2] // HOUR_US * HOUR_US
    expected = sum(hour_us <= time < hour_us + HOUR_US for time in times)
    hour = pa.scalar(hour_us, pa.timestamp("us", "UTC")).as_py().isoformat()
    shown = run(workspace, "quality", "--catalog", "subscription", "--hour", hour, "--output", str(tmp_path / "q"))
    assert "unseen_share" in shown
    rows = pq.read_table(tmp_path / "q")
    assert rows.schema == QUALITY
    assert sum(row["value"] for row in rows.to_pylist() if row["metric"] == "volume") == expected > 0
    assert list(tmp_path.iterdir()) == [tmp_path / "q"]
