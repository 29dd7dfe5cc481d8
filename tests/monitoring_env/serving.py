"""Workspaces as serving leaves them: a version's folder with its reference, and rows of its prediction log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from features.predictions import SegmentWriter
from features.reference import REFERENCE_FILE, ReferenceFacts, write_reference
from features.rows import PREDICTION
from features.workspace import Workspace

NAMES = ("sessions", "since_s")
MONDAY_US = 1_736_121_600_000_000  # 2025-01-06T00:00:00Z
HOUR_US = 3_600_000_000
S_US = 1_000_000


def write_version(workspace: Workspace, version: int, rng: np.random.Generator, rows: int = 4_000) -> Path:
    """A version of churn whose training rows are spread over four weeks: sessions N(0, 1), since_s N(10, 1) or missing in
    a fifth of the rows, plan basic or pro, score uniform, a tenth of the labels 1."""
    folder = workspace.model("churn", version)
    folder.mkdir(parents=True)
    record = {
        "finished_names": [*NAMES, "local_hour"],
        "transformed_names": [*NAMES, "since_s_missing"],
        "profile_fields": [{"name": "plan", "dtype": "string", "default": "basic"}],
        "request_fields": [{"name": "age", "dtype": "int64", "default": 0}],
    }
    (folder / "model.json").write_text(json.dumps(record))
    drawn = draw(rng, rows)
    at_us = MONDAY_US - rng.integers(1, 28 * 24 * HOUR_US, rows)
    fixed = {
        "now": pa.array(at_us).cast(pa.timestamp("us", tz="UTC")),
        "score": pa.array(drawn["score"]),
        "label": pa.array((rng.random(rows) < 0.1).astype(np.int8)),
    }
    features = {
        "sessions": pa.array(drawn["sessions"]),
        "since_s": pa.array(drawn["since_s"], mask=drawn["missing"]),
        "plan": pa.array(drawn["plan"].tolist(), pa.string()),
    }
    write_reference(
        folder / REFERENCE_FILE,
        fixed,
        features,
        ReferenceFacts({"sessions": 0.02, "plan": 0.01}, ("age",), labels=rows, positives=rows // 10),
    )
    return folder


def draw(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """What the model sees of so many users, as it was in training."""
    return {
        "sessions": rng.normal(0, 1, rows).astype(np.float32),
        "since_s": rng.normal(10, 1, rows).astype(np.float32),
        "missing": rng.random(rows) < 0.2,
        "plan": rng.choice(["basic", "pro"], rows),
        "score": rng.random(rows).astype(np.float32),
    }


def log_predictions(
    workspace: Workspace, version: int, revision: str, at_us: np.ndarray, drawn: Mapping[str, np.ndarray], *,
    degraded: np.ndarray | None = None, entities: np.ndarray | None = None,
) -> None:  # fmt: skip
    """Append rows logged whole, as a server does."""
    rows = len(at_us)
    finished = np.column_stack([drawn["sessions"], np.where(drawn["missing"], 0, drawn["since_s"]), np.full(rows, 13)])
    transformed = np.column_stack([finished[:, :2], drawn["missing"]])
    entity = np.arange(rows) if entities is None else entities
    columns = {field.name: pa.nulls(rows, field.type) for field in PREDICTION}
    times = pa.array(at_us).cast(pa.timestamp("us", tz="UTC"))
    zeros = dict.fromkeys(("log_offset", "shard_offset", "state_hash", "profile_hash", "inputs_hash"), np.zeros(rows, np.int64))
    columns |= {name: pa.array(values) for name, values in zeros.items()}
    columns |= {
        "request_id": pa.array([f"{revision}-{number}" for number in range(rows)]),
        "answered_at": times,
        "model": pa.array(["churn"] * rows),
        "model_version": pa.array(np.full(rows, version)),
        "view_key": pa.array(["subscriber-v1"] * rows),
        "revision": pa.array([revision] * rows),
        "entity_id": pa.array([f"{revision}{number}" for number in entity]),
        "now": times,
        "log_partition": pa.array(np.zeros(rows, np.int32)),
        "score": pa.array(drawn["score"]),
        "cold": pa.array(np.zeros(rows, np.bool_)),
        "degraded": pa.array(
            [None if degraded is None or not degraded[row] else "store_down" for row in range(rows)], pa.string()
        ),
        "state": pa.array([b""] * rows, pa.large_binary()),
        "fields": pa.array([json.dumps({"plan": plan, "age": 3}) for plan in drawn["plan"].tolist()]),
        "integers": pa.array([[1]] * rows, pa.list_(pa.int64())),
        "finished": pa.array(finished.astype(np.float32).tolist(), pa.list_(pa.float32())),
        "transformed": pa.array(transformed.astype(np.float32).tolist(), pa.list_(pa.float32())),
    }
    writer = SegmentWriter(workspace.predictions("churn"))
    writer._number = len(list(workspace.predictions("churn").glob("*")))  # as other processes' segments, other names
    writer.append(pa.table([columns[field.name] for field in PREDICTION], schema=PREDICTION))
    writer.close()


def spread(start_us: int, hours: int, rows: int) -> np.ndarray:
    """Times evenly over some hours."""
    return start_us + np.arange(rows) * (hours * HOUR_US // rows)
