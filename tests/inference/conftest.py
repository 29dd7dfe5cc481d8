"""A tiny served model: real SavedModel, real LMDB store, real registry, real server process.

Its graph is simple enough to check by eye. For an entity with r records of state, scored at ``now`` with the profile
value ``utc_offset_minutes`` = z and the request field ``platform`` of p letters:

    integers    = [r, now, z]
    finished    = [r, p]
    transformed = [r / 8, p / 8]
    score       = r / 8 + p / 1024
    within      = [score / 4, score]           after 7 and 30 days
    contributions of "sessions" (r), "offers_shown" (unused) and "platform" (p) against r = 1, p = 0:
                  [(r - 1) / 8, 0, p / 1024], base 1 / 8
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson
import pytest
import tensorflow as tf

from features import layout
from features.catalogs import load_catalog
from features.online.lmdb import LmdbStore
from features.online.store import Watermark
from features.partitions import partition_of
from features.workspace import Workspace
from models.versions import NewVersion, register

ROOT = Path(__file__).parents[2]
CATALOG = load_catalog("subscription")
VIEW = CATALOG.view("subscriber")
SHARDS = CATALOG.log_partitions

NOON_US = 1_740_830_400_000_000  # 2025-03-01T12:00:00Z
AS_OF_US = NOON_US - 60_000_000
OFFSET = 500
EMPTY_SHARD = 7


@dataclass(frozen=True)
class Served:
    """A running server and where it listens."""

    url: str
    grpc: str
    process: subprocess.Popen[str]
    workspace: Path
    log: Path

    def post(self, path: str, body: object) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, timeout=30)

    def predict(self, *instances: dict[str, object], **parameters: object) -> httpx.Response:
        return self.post("/v1/models/churn:predict", {"instances": list(instances), "parameters": parameters})


class TinyModel(tf.Module):
    """The graph that this module's docstring describes."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="state"),
            tf.TensorSpec([None], tf.int64, name="now"),
            tf.TensorSpec([None], tf.string, name="plan"),
            tf.TensorSpec([None], tf.string, name="country"),
            tf.TensorSpec([None], tf.int64, name="utc_offset_minutes"),
            tf.TensorSpec([None], tf.string, name="platform"),
        ]
    )
    def features(self, state, now, plan, country, utc_offset_minutes, platform):
        records = tf.strings.length(state) // layout.RECORD_BYTES
        letters = tf.strings.length(platform)
        unused = tf.cast(tf.strings.length(plan) + tf.strings.length(country), tf.int64) * 0
        finished = tf.cast(tf.stack([records, letters], axis=1), tf.float32)
        integers = tf.stack([tf.cast(records, tf.int64) + unused, now, utc_offset_minutes], axis=1)
        score = tf.linalg.matvec(finished, tf.constant([1 / 8, 1 / 1024]))
        within = tf.stack([score / 4, score], axis=1)
        return {"integers": integers, "finished": finished, "transformed": finished / 8, "score": score, "within": within}

    @tf.function(input_signature=features.input_signature)
    def score(self, state, now, plan, country, utc_offset_minutes, platform):
        outputs = self.features(state, now, plan, country, utc_offset_minutes, platform)
        return {"score": outputs["score"], "within": outputs["within"]}

    @tf.function(input_signature=features.input_signature)
    def explain(self, state, now, plan, country, utc_offset_minutes, platform):
        finished = self.features(state, now, plan, country, utc_offset_minutes, platform)["finished"]
        records, letters = finished[:, 0], finished[:, 1]
        contributions = tf.stack([(records - 1) / 8, tf.zeros_like(records), letters / 1024], axis=1)
        return {"contributions": contributions, "base": tf.ones_like(records) / 8}

    @tf.function(input_signature=[*features.input_signature, tf.TensorSpec([None], tf.int64, name="owner")])
    def candidates(self, state, now, plan, country, utc_offset_minutes, platform, owner):
        own = (tf.gather(values, owner) for values in (state, now, plan, country, utc_offset_minutes))
        return self.score(*own, platform)


def describe_model() -> dict[str, object]:
    def describe(fields: object) -> list[dict[str, object]]:
        return [{"name": field.name, "dtype": field.dtype, "default": field.default} for field in fields]  # type: ignore[attr-defined]

    return {
        "catalog": CATALOG.name,
        "view": {"name": VIEW.name, "version": VIEW.version, "key": VIEW.key},
        "view_hash": CATALOG.view_hash(VIEW),
        "graph_hash": "tiny",
        "integer_names": ["records", "now", "offset"],
        "finished_names": ["records", "letters"],
        "transformed_names": ["records/8", "letters/8"],
        "finished_groups": ["sessions", "sessions"],
        "groups": ["sessions", "offers_shown", "platform"],
        "delay_buckets_s": [7 * layout.DAY_S, 30 * layout.DAY_S],
        "profile_fields": describe(CATALOG.profile_fields_of(VIEW)),
        "request_fields": describe(VIEW.request),
    }


def write_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    module = TinyModel()
    signatures = {
        "serving_default": module.score,
        "features": module.features,
        "explain": module.explain,
        "candidates": module.candidates,
    }
    tf.saved_model.save(module, str(folder / "saved_model"), signatures=signatures)
    (folder / "model.json").write_bytes(orjson.dumps(describe_model()))
    return folder


def shard_of(entity_id: str) -> int:
    return int(partition_of([entity_id], SHARDS)[0])


def state_of(entity_id: str, records: int, offset: int) -> bytes:
    """A header and ``records`` - 1 tiles, zero but sorted: the tiny model only counts them."""
    header = layout.header_key(shard_of(entity_id)).to_bytes(8, "little") + offset.to_bytes(8, "little")
    tiles = b"".join(
        layout.pack_key(1, "count", layout.DAY_TILES, 0, day).to_bytes(8, "little") + bytes(8) for day in range(1, records)
    )
    return header + tiles


def fill_store(path: Path, *, users: int = 200) -> None:
    """User i has i % 50 + 1 records and offset i; every third has a profile; one shard has never been filled."""
    names = [f"u{i}" for i in range(users)]
    states = {name: state_of(name, i % 50 + 1, i) for i, name in enumerate(names)}
    profiles = {name: orjson.dumps({"plan": "pro", "utc_offset_minutes": 60 + i}) for i, name in enumerate(names) if i % 3 == 0}
    arguments = {"view_key": VIEW.key, "view_hash": CATALOG.view_hash(VIEW), "partitions": SHARDS, "create": True}
    with LmdbStore.open(path, **arguments) as store:
        for shard in range(SHARDS):
            if shard == EMPTY_SHARD:
                continue
            mine = {name for name in names if shard_of(name) == shard}
            store.commit(
                shard,
                {name: value for name, value in states.items() if name in mine},
                {name: value for name, value in profiles.items() if name in mine},
                Watermark(OFFSET + shard, AS_OF_US - 1_000_000, AS_OF_US, 0),
                expected_previous=-1,
            )


def register_model(workspace: Workspace, artifacts: Path, *, blessed: bool = True) -> None:
    reason = "beats every baseline" if blessed else "loses to recency"
    register(
        workspace,
        NewVersion("churn", NOON_US, "run-1", blessed, reason, VIEW.key, CATALOG.view_hash(VIEW), "tiny", {}),
        artifacts,
    )


def environment() -> dict[str, str]:
    """What a ``plumb`` process started from a test inherits."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@contextlib.contextmanager
def serving(workspace: Path, log: Path, *arguments: str) -> Iterator[Served]:
    """Run ``plumb serve churn`` on free ports; ends with SIGTERM and insists on a clean exit."""
    command = [sys.executable, "-c", "from plumb.app import main; main()", "--workspace", str(workspace)]
    command += ["serve", "churn", "--port", "0", "--grpc-port", "0", *arguments]
    with log.open("w") as errors:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"ready at (http://127\.0\.0\.1:\d+) \(gRPC (127\.0\.0\.1:\d+)\)", line)
        assert found, f"the server said {line!r} and logged {log.read_text()[-2000:]}"
        yield Served(found[1], found[2], process, workspace, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        finally:
            process.kill()
            process.communicate()


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("artifacts") / "model")


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory, artifacts: Path) -> Workspace:
    """A workspace with a filled store and two versions: 1 is blessed, 2 is not."""
    made = Workspace(tmp_path_factory.mktemp("workspace"))
    made.online(VIEW.key).parent.mkdir(parents=True)
    fill_store(made.online(VIEW.key))
    register_model(made, artifacts)
    register_model(made, artifacts, blessed=False)
    return made


@pytest.fixture(scope="session")
def served(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    with serving(workspace.root, log) as running:
        yield running


@pytest.fixture(scope="session")
def serve_again(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., contextlib.AbstractContextManager[Served]]:
    """Start another server on the same workspace, with further arguments of ``plumb serve``."""
    return lambda *arguments: serving(workspace.root, tmp_path_factory.mktemp("log") / "server.log", *arguments)


@pytest.fixture(scope="session")
def plumb(workspace: Workspace) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``plumb`` on the workspace to its end."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from plumb.app import main; main()", "--workspace", str(workspace.root), *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300, check=False)

    return run
