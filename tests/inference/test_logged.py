"""Every prediction of a running server stands in its log once, under the caller's request id, the revision and the position."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import orjson
import pyarrow as pa
import pytest

from features.predictions import read_predictions
from features.workspace import Workspace

NOW_US = 1_740_830_400_000_000  # 2025-03-01T12:00:00Z
REVISION = "canary"
Served = Any


@pytest.fixture(scope="module")
def logging_server(serve_again: Callable[..., AbstractContextManager[Any]]) -> Iterator[Served]:
    with serve_again("--revision", REVISION, "--whole-rate", "1") as running:
        yield running


def rows_of(workspace: Workspace, request_id: str, count: int) -> list[dict[str, Any]]:
    """The rows of a request, once so many are there."""
    deadline = time.monotonic() + 20
    rows: list[dict[str, Any]] = []
    while len(rows) < count and time.monotonic() < deadline:
        time.sleep(0.2)
        tables = list(read_predictions(workspace.predictions("churn"), revision=REVISION))
        everything = pa.concat_tables(tables).to_pylist() if tables else []
        rows = [row for row in everything if row["request_id"] == request_id]
    return rows


def test_a_v1_request_is_logged_by_its_header(logging_server: Served, workspace: Workspace) -> None:
    instances = [{"entity_id": name, "now": NOW_US, "platform": "ios"} for name in ("u1", "nobody")]
    reply = httpx.post(
        f"{logging_server.url}/v1/models/churn:predict", json={"instances": instances}, headers={"x-request-id": "one"}
    ).json()
    assert reply["revision"] == REVISION
    rows = rows_of(workspace, "one", 2)
    assert [row["entity_id"] for row in rows] == ["u1", "nobody"]
    for row, prediction in zip(rows, reply["predictions"], strict=True):
        for name in ("score", "cold", "degraded", "log_partition", "log_offset"):
            assert row[name] == prediction[name]
        assert (row["model"], row["model_version"], row["revision"]) == ("churn", 1, REVISION)
    # The tiny model: u1 has two records, "ios" three letters.
    assert (rows[0]["finished"], rows[0]["integers"][0]) == ([2, 3], 2)
    assert orjson.loads(rows[0]["fields"])["platform"] == "ios"


def test_a_v2_request_is_logged_by_its_id_and_candidates_each_by_a_row(logging_server: Served, workspace: Workspace) -> None:
    tensors: list[tuple[str, str, list[Any]]] = [
        ("entity_id", "BYTES", ["u1", "u2"]), ("now", "INT64", [NOW_US] * 2), ("candidates", "INT64", [2, 1]),
        ("platform", "BYTES", ["ios", "android", "web"]),
    ]  # fmt: skip
    inputs = [{"name": name, "shape": [len(data)], "datatype": kind, "data": data} for name, kind, data in tensors]
    reply = logging_server.post("/v2/models/churn/infer", {"id": "two", "inputs": inputs}).json()
    scores = next(output["data"] for output in reply["outputs"] if output["name"] == "score")
    rows = rows_of(workspace, "two", 3)
    assert [(row["entity_id"], orjson.loads(row["fields"])["platform"]) for row in rows] == [
        ("u1", "ios"), ("u1", "android"), ("u2", "web"),
    ]  # fmt: skip
    assert [row["score"] for row in rows] == scores
    assert [row["finished"] for row in rows] == [[2, 3], [2, 7], [3, 3]]
    assert rows[0]["state_hash"] == rows[1]["state_hash"] != rows[2]["state_hash"]
    assert len({row["inputs_hash"] for row in rows}) == 3


def test_a_request_without_an_id_gets_one_of_its_own(logging_server: Served, workspace: Workspace) -> None:
    before = {row["request_id"] for row in rows_of(workspace, "", 0)}
    for _ in range(2):
        logging_server.predict({"entity_id": "u3", "now": NOW_US})
    deadline = time.monotonic() + 20
    new: set[str] = set()
    while len(new) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
        tables = list(read_predictions(workspace.predictions("churn"), revision=REVISION, columns=["request_id", "entity_id"]))
        new = {row["request_id"] for table in tables for row in table.to_pylist() if row["entity_id"] == "u3"} - before
    assert len(new) == 2
    assert "" not in new
