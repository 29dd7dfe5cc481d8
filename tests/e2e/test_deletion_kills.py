"""Users are deleted while a stream is killed and started again: the bytes at the end are those of the batch path."""

from __future__ import annotations

import uuid
from functools import partial
from pathlib import Path

import pytest
from e2e.killing import CATALOG, Stream, assert_equal_to_batch, open_kafka, run_and_kill

from features.event_log.compaction import open_live_log
from features.events import find_markers
from features.workspace import Workspace

KILLS = 6
DELETIONS = 60


@pytest.mark.parametrize(("log", "store"), [("files", "lmdb"), ("files", "redis"), ("kafka", "lmdb")])
def test_users_are_deleted_in_a_stream_that_is_killed(
    log: str, store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    workspace = Workspace(tmp_path)
    open_log = partial(open_live_log, workspace, CATALOG, "user", durability="process")
    if log == "kafka":
        open_log = partial(open_kafka, request.getfixturevalue("kafka_server"), uuid.uuid4().hex)
    address = request.getfixturevalue("redis_url") if store == "redis" else str(tmp_path / "streamed")
    stream = Stream(workspace, open_log, address, kills=KILLS, seed=7, users=60, deletions=DELETIONS)
    assert run_and_kill(stream) >= KILLS // 2
    assert_equal_to_batch(stream, tmp_path)
    assert len(find_markers(workspace, CATALOG, "user").entity_ids) > DELETIONS // 3
