"""Zero skew over the wire: what ``plumb serve`` returns is what the oracle says, and bit for bit what training saw.

A store is filled as of one time and read five thousand times, then moved to a later time under the running server and
read five thousand times more.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from parity.oracle import SECOND_US, Event
from parity.pairs import Pair
from parity.paths import Scenario
from parity.served import MODEL, ROOT, draw_reads, fill_log, platform_of, serving, train_and_register, training_rows

from features.online.lmdb import LmdbStore
from features.workspace import Workspace
from transforms.materialize import materialize
from transforms.plan import plan_graph

READS_AT_EACH_TIME = 5_000
EXPLAINED = 20
BATCH_SIZES = (1, 2, 3, 7, 16, 17, 64, 500, 1_000)
OUTPUTS = ("integers", "finished", "transformed")


@dataclass(frozen=True)
class Line:
    """What both sides answered for the same reads, row by row."""

    scenario: Scenario
    reads: list[Pair]
    as_of_us: list[int]
    trained: dict[str, NDArray[Any]]
    """Of the training job: integers, finished, transformed, and the network's score."""
    rebuilt: list[bytes]
    """State bytes by batch replay of the log."""
    served: dict[str, NDArray[Any]]
    """Of the running server: integers, finished, transformed, score."""
    stored: list[bytes]
    """State bytes in the store at the time of reading."""
    explained: list[dict[str, Any]]
    """Predictions with explanations, of the last ``EXPLAINED`` reads."""
    shown: str
    """What ``plumb score`` printed for the last read, 80 columns wide."""


@pytest.fixture(scope="module")
def line(scenario: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Line:
    scratch = tmp_path_factory.mktemp("line")
    workspace = Workspace(scratch / "workspace")
    fill_log(workspace, scenario)
    times = as_of_times(scenario)
    reads = [draw_reads(scenario, at, count=READS_AT_EACH_TIME, seed=number) for number, at in enumerate(times)]
    all_reads, as_of_us = list(itertools.chain(*reads)), [at for at in times for _ in range(READS_AT_EACH_TIME)]
    rows = training_rows(workspace, scenario, all_reads, as_of_us)
    train_and_register(workspace, scenario, rows, scratch)

    replies, stored = [], []
    materialize(workspace, scenario.catalog, scenario.view, as_of_us=times[0])
    with serving(workspace, scratch / "server.log") as url:
        for number, at in enumerate(times):
            if number:
                materialize(workspace, scenario.catalog, scenario.view, as_of_us=at)
            stored += stored_states(workspace, scenario, reads[number])
            replies += ask(url, reads[number], first=number * READS_AT_EACH_TIME)
        last = [
            {"entity_id": read.entity_id, "now": read.now_us, "platform": platform_of(len(all_reads) - EXPLAINED + row)}
            for row, read in enumerate(all_reads[-EXPLAINED:])
        ]
        body = {"instances": last, "parameters": {"explain": True}}
        explained = httpx.post(f"{url}/v1/models/{MODEL}:predict", json=body, timeout=60).json()["predictions"]
        shown = score_on_the_screen(url, last[-1])
    served = {name: np.concatenate([reply[name] for reply in replies]) for name in (*OUTPUTS, "score")}
    return Line(
        scenario, all_reads, as_of_us, trained_outputs(scratch), rows["state"].to_pylist(), served, stored, explained, shown
    )


def score_on_the_screen(url: str, asked: dict[str, Any]) -> str:
    """What ``plumb score`` prints for one read."""
    moment = datetime.fromtimestamp(asked["now"] / SECOND_US, UTC).isoformat()
    command = [sys.executable, "-c", "from plumb.app import main; main()", "score", MODEL, "--url", url, "--now", moment]
    command += ["--user", asked["entity_id"], "--field", f"platform={asked['platform']}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def as_of_times(scenario: Scenario) -> list[int]:
    """Two times at which some event is known to the microsecond: after three and after four fifths of the log.

    The event is an offer shown, and on time: else no read might find one in the hour that is the shortest window.
    """
    starts = [len(scenario.events) * part // 5 for part in (3, 4)]
    chosen = [next(event for event in scenario.events[start:] if event["event_type"] == "offer_shown" and _is_prompt(event))
              for start in starts]  # fmt: skip
    return [int(event["ingest_time"]) + scenario.view.lag_s * SECOND_US for event in chosen]


def _is_prompt(event: Event) -> bool:
    return 0 <= event["ingest_time"] - event["event_time"] < 60 * SECOND_US


def trained_outputs(scratch: Path) -> dict[str, NDArray[Any]]:
    """The columns of ``features.parquet`` and what the network makes of them in this process."""
    table = pq.read_table(scratch / "graph" / "features.parquet")
    columns = {name: table[name].combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1) for name in OUTPUTS}
    network = keras.saving.load_model(scratch / "network.keras")
    return columns | {"score": network.predict(columns["transformed"], batch_size=512, verbose=0).reshape(-1)}


def stored_states(workspace: Workspace, scenario: Scenario, reads: list[Pair]) -> list[bytes]:
    """What the store holds; closed again, as a process may have a store open once."""
    catalog, view = scenario.catalog, scenario.view
    arguments = {"view_key": view.key, "view_hash": catalog.view_hash(view), "partitions": catalog.log_partitions}
    with LmdbStore.open(workspace.online(view.key), readonly=True, **arguments) as store:
        return store.get_many([read.entity_id for read in reads]).states


def ask(url: str, reads: list[Pair], *, first: int) -> list[dict[str, NDArray[Any]]]:
    """The server's answers in batches of many sizes, through V1 and V2 in turn."""
    replies = []
    with httpx.Client(base_url=url, timeout=60) as client:
        start = 0
        for number, size in enumerate(itertools.cycle(BATCH_SIZES)):
            if start >= len(reads):
                return replies
            batch = reads[start : start + size]
            platforms = [platform_of(first + start + row) for row in range(len(batch))]
            replies.append((ask_v1, ask_v2)[number % 2](client, batch, platforms))
            start += size
    return replies


def ask_v1(client: httpx.Client, batch: list[Pair], platforms: list[str]) -> dict[str, NDArray[Any]]:
    instances = [
        {"entity_id": read.entity_id, "now": read.now_us, "platform": platform}
        for read, platform in zip(batch, platforms, strict=True)
    ]
    reply = client.post(f"/v1/models/{MODEL}:predict", json={"instances": instances, "parameters": {"features": True}})
    assert reply.status_code == httpx.codes.OK, reply.text
    rows = reply.json()["predictions"]
    assert [row["entity_id"] for row in rows] == [read.entity_id for read in batch]
    names = {"integers": "integers", "finished": "features", "transformed": "transformed"}
    answer = {name: np.array([list(row[key].values()) for row in rows]) for name, key in names.items()}
    return typed(answer | {"score": np.array([row["score"] for row in rows])})


def ask_v2(client: httpx.Client, batch: list[Pair], platforms: list[str]) -> dict[str, NDArray[Any]]:
    def tensor(name: str, datatype: str, data: list[Any]) -> dict[str, Any]:
        return {"name": name, "shape": [len(data)], "datatype": datatype, "data": data}

    inputs = [
        tensor("entity_id", "BYTES", [read.entity_id for read in batch]),
        tensor("now", "INT64", [read.now_us for read in batch]),
        tensor("platform", "BYTES", platforms),
    ]
    reply = client.post(f"/v2/models/{MODEL}/infer", json={"inputs": inputs, "parameters": {"features": True}})
    assert reply.status_code == httpx.codes.OK, reply.text
    outputs = {output["name"]: np.array(output["data"]).reshape(output["shape"]) for output in reply.json()["outputs"]}
    return typed({name: outputs[name] for name in (*OUTPUTS, "score")})


def typed(answer: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """JSON's numbers in the types that the server had; integers must have come as integers."""
    assert answer["integers"].dtype == np.int64
    return {name: values if name == "integers" else values.astype(np.float32) for name, values in answer.items()}


def differing(one: NDArray[Any], other: NDArray[Any]) -> int:
    """How many values differ in any bit."""
    assert one.shape == other.shape
    assert one.dtype == other.dtype
    return int((one.view(np.uint8) != other.view(np.uint8)).sum())


def test_every_integer_that_the_server_returned_equals_the_oracle(line: Line) -> None:
    lag_us = line.scenario.view.lag_s * SECOND_US
    asked = zip(line.reads, line.as_of_us, strict=True)
    expected = np.array(
        [
            list(line.scenario.oracle.integers(read.entity_id, read.now_us, ingested_by_us=as_of_us - lag_us).values())
            for read, as_of_us in asked
        ]
    )
    assert expected.shape == (2 * READS_AT_EACH_TIME, len(line.scenario.names))
    assert (expected != 0).mean() >= 0.3
    assert int((line.served["integers"] != expected).sum()) == 0
    assert int((line.trained["integers"] != expected).sum()) == 0


def test_the_store_holds_the_bytes_that_batch_replay_gives_offset_and_all(line: Line) -> None:
    assert line.stored == line.rebuilt
    assert 0 < sum(state == b"" for state in line.stored) < len(line.stored) / 10


@pytest.mark.parametrize("output", ["finished", "transformed"])
def test_floats_are_those_of_the_training_job_bit_for_bit(line: Line, output: str) -> None:
    assert differing(line.served[output], line.trained[output]) == 0


def test_scores_are_those_of_the_network_within_one_in_a_million(line: Line) -> None:
    assert np.abs(line.served["score"] - line.trained["score"]).max() <= 1e-6
    assert line.served["score"].std() > 0.01, "a network that answers one number proves nothing"


def test_contributions_add_up_to_the_score_that_was_served(line: Line) -> None:
    groups = plan_graph(line.scenario.catalog, line.scenario.view).transformed_groups
    for prediction, score in zip(line.explained, line.served["score"][-EXPLAINED:], strict=True):
        entries = prediction["explanation"]["contributions"]
        assert {entry["signal"] for entry in entries} == set(groups)
        sizes = [abs(entry["contribution"]) for entry in entries]
        assert sizes == sorted(sizes, reverse=True)
        total = sum(entry["contribution"] for entry in entries)
        assert total == pytest.approx(score - prediction["explanation"]["base"], abs=2e-6)
        assert prediction["score"] == pytest.approx(score, abs=1e-6)


def test_plumb_score_shows_the_same_within_80_columns(line: Line) -> None:
    prediction = line.explained[-1]
    # One row and twenty differ in the last bits of their matrix products.
    assert float(line.shown.split()[1]) == pytest.approx(prediction["score"], abs=2e-6)
    top = prediction["explanation"]["contributions"][0]
    (row,) = [
        text for text in line.shown.splitlines() if text.startswith(f"│ {top['signal']} ") and ("▲" in text or "▼" in text)
    ]
    assert top["direction"] in row
    assert float(row.split("│")[3]) == pytest.approx(top["contribution"], abs=2e-6)
    assert max(map(len, line.shown.splitlines())) <= 80


def test_the_reads_reach_every_feature(line: Line) -> None:
    unused = [name for name, used in zip(line.scenario.names, line.served["integers"].any(axis=0), strict=True) if not used]
    assert unused == []
