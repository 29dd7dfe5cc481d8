"""kill -9, twenty times, on every store and log: the bytes at the end are those of the batch path."""

from __future__ import annotations

import uuid
from functools import partial
from pathlib import Path

import pytest
from e2e.killing import CATALOG, Stream, assert_equal_to_batch, open_kafka, run_and_kill

from features.event_log.compaction import open_live_log
from features.workspace import Workspace

KILLS = 20
USERS = 100


@pytest.mark.parametrize(("log", "store"), [("files", "lmdb"), ("files", "redis"), ("kafka", "lmdb")])
def test_a_stream_killed_twenty_times_ends_with_the_bytes_of_the_batch(
    log: str, store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    workspace = Workspace(tmp_path)
    open_log = partial(open_live_log, workspace, CATALOG, "user", durability="process")
    if log == "kafka":
        servers = request.getfixturevalue("kafka_server")
        open_log = partial(open_kafka, servers, uuid.uuid4().hex)
    address = request.getfixturevalue("redis_url") if store == "redis" else str(tmp_path / "streamed")
    stream = Stream(workspace, open_log, address, kills=KILLS, seed=11, users=USERS)
    assert run_and_kill(stream) >= KILLS // 2
    assert_equal_to_batch(stream, tmp_path)
