"""The whole line for the served half of parity: log, profiles, fitted graph, network, registered model, store, server.

The network's weights are random: parity asks whether the same numbers come out, not whether they are any good.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from parity.adversarial import DAY_US, HOUR_US, MAX_SKEW_US, START_US
from parity.oracle import SECOND_US, Event, period_s
from parity.pairs import Pair
from parity.paths import Scenario

from features.event_checks import STAMPED
from features.events import append_events, read_events
from features.point_in_time import states_as_known
from features.profiles import append_profiles, profiles_as_of
from features.rows import profile_schema, training_schema
from features.workspace import Workspace
from models.versions import NewVersion, register
from transforms.export import export_model
from transforms.fit import fit_graph

ROOT = Path(__file__).parents[2]
MODEL = "parity"
PLATFORMS = ("ios", "android", "web", "an unseen one")


def draw_reads(scenario: Scenario, as_of_us: int, *, count: int, seed: int) -> list[Pair]:
    """Reads of a store filled as of a time, at that time or later: edges, windows that just empty, skewed clocks."""
    rng = random.Random(seed)
    known = [event for event in scenario.events if event["ingest_time"] + scenario.view.lag_s * SECOND_US <= as_of_us]
    recent = [event for event in known if event["event_time"] > as_of_us - 90 * DAY_US]
    fresh = [event for event in known if event["event_time"] > as_of_us - 6 * HOUR_US]
    ahead = [event for event in known if event["event_time"] > as_of_us - MAX_SKEW_US] or fresh
    windows = [window_s for signal in scenario.catalog.signals_of(scenario.view) for window_s in signal.windows_s if window_s]
    reads = []
    for number in range(count):
        kind = ("now", "soon", "leaving", "leaving", "edge", "later", "fresh", "ahead")[number % 8]
        event = rng.choice({"fresh": fresh, "ahead": ahead}.get(kind, recent))
        entity_id = f"nobody-{number}" if number % 40 == 0 else event["entity_id"]
        reads.append(Pair(entity_id, max(as_of_us, _instant(kind, event, as_of_us, rng.choice(windows), rng)), kind))
    return reads


def _instant(kind: str, event: Event, as_of_us: int, window_s: int, rng: random.Random) -> int:
    period_us = period_s(window_s) * SECOND_US
    tile_us = int(event["event_time"]) // period_us * period_us
    instants = {
        "now": as_of_us,
        "soon": as_of_us + rng.randrange(2 * HOUR_US),
        "leaving": tile_us + window_s * SECOND_US - rng.randrange(2),
        "edge": (as_of_us // period_us + 1 + rng.randrange(3)) * period_us - rng.randrange(2),
        "later": as_of_us + rng.randrange(100 * DAY_US),
        "fresh": as_of_us + rng.randrange(10 * 60 * SECOND_US),
        "ahead": int(event["event_time"]),
    }
    return instants[kind]


def fill_log(workspace: Workspace, scenario: Scenario) -> None:
    """The scenario's events in three appends, and profile values for two users in three, of which some change."""
    table = scenario.table.drop_columns(list(STAMPED))
    for part in range(3):
        low, high = (table.num_rows * edge // 3 for edge in (part, part + 1))
        append_events(workspace, scenario.catalog, scenario.view.entity, table.slice(low, high - low), source=f"part {part}")
    rng = random.Random(7)
    rows = []
    for user in sorted({event["entity_id"] for event in scenario.events}):
        for _ in range(rng.choice((0, 1, 2))):
            at = datetime.fromtimestamp(START_US // SECOND_US + rng.randrange(100) * 86_400, UTC)
            values = {
                "plan": rng.choice(("free", "pro", None)),
                "country": rng.choice(("de", "us", "fr")),
                "utc_offset_minutes": 90,
            }
            rows.append({"entity_id": user, "valid_from": at, "created_time": at} | values)
    table = pa.Table.from_pylist(rows, schema=profile_schema(scenario.catalog, "account"))
    append_profiles(workspace, scenario.catalog, "account", table, source="profiles")


def training_rows(workspace: Workspace, scenario: Scenario, reads: Sequence[Pair], as_of_us: Sequence[int]) -> pa.Table:
    """The batch path's rows for reads of a store: state and profiles as known at ``as_of_us``, to be finished at now."""
    catalog, view = scenario.catalog, scenario.view
    entity_ids, known_us = pa.array([read.entity_id for read in reads], pa.string()), np.array(as_of_us, dtype=np.int64)
    log = read_events(workspace, catalog, view.entity)
    profile = profiles_as_of(workspace, catalog, "account", entity_ids, known_us)
    count = len(reads)
    columns = {name: profile[name] for name in profile.column_names} | {
        "entity_id": entity_ids,
        "now": pa.array([read.now_us for read in reads], pa.timestamp("us", tz="UTC")),
        "state": states_as_known(log, catalog, view, entity_ids, known_us),
        "platform": pa.array([platform_of(number) for number in range(count)]),
        "label": pa.array([number % 2 for number in range(count)], pa.int8()),
        "matured": pa.array([True] * count),
        "observed_until": pa.array([read.now_us for read in reads], pa.timestamp("us", tz="UTC")),
        "split": pa.array([("train", "validation", "test")[number % 3] for number in range(count)]),
    }
    schema = training_schema(catalog, view)
    return pa.table([columns.get(field.name, pa.nulls(count, field.type)) for field in schema], schema=schema)


def platform_of(number: int) -> str:
    """The request field that read ``number`` sends."""
    return PLATFORMS[number % len(PLATFORMS)]


def train_and_register(workspace: Workspace, scenario: Scenario, rows: pa.Table, scratch: Path) -> None:
    """Fit the graph on the rows, put a network on it, register it as blessed. Leaves ``graph/`` and ``network.keras``."""
    pq.write_table(rows, scratch / "rows.parquet")
    fit_graph(scratch / "rows.parquet", scenario.catalog, scenario.view, scratch / "graph")
    width = pq.read_schema(scratch / "graph" / "features.parquet").field("transformed").type.list_size
    keras.utils.set_random_seed(11)
    layers = [
        keras.Input((width,)),
        keras.layers.Dense(64, "relu"),
        keras.layers.Dense(32, "relu"),
        keras.layers.Dense(1, "sigmoid"),
    ]
    keras.Sequential(layers).save(scratch / "network.keras")
    export_model(scratch / "graph", scratch / "network.keras", scratch / "model")
    view_hash = scenario.catalog.view_hash(scenario.view)
    register(
        workspace,
        NewVersion(MODEL, START_US, "parity-run", True, "random weights", scenario.view.key, view_hash, "any", {}),
        scratch / "model",
    )


@contextlib.contextmanager
def serving(workspace: Workspace, log: Path) -> Iterator[str]:
    """The URL of a ``plumb serve`` process; it must end cleanly when told to."""
    command = [sys.executable, "-c", "from plumb.app import main; main()", "--workspace", str(workspace.root)]
    command += ["serve", MODEL, "--port", "0", "--grpc-port", "0"]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        line = process.stdout.readline() if process.stdout else ""
        found = re.search(r"ready at (http://127\.0\.0\.1:\d+)", line)
        assert found, f"the server said {line!r} and logged {log.read_text()[-2000:]}"
        yield found[1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.communicate()
