"""The log of what was served: every row or a count of it, and never a request that waits.

The tiny model's graph (tests/inference/conftest.py) gives integers [records, now, offset] and score r / 8 + p / 1024.
"""

from __future__ import annotations

import resource
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import process_time
from typing import Any

import orjson
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from features.fingerprints import hash_inputs, hash_states, hash_values
from features.online.addresses import ViewVersion, open_store
from features.online.store import OnlineStore
from features.predictions import list_segments, read_predictions
from features.rows import PREDICTION
from features.workspace import Workspace
from inference.artifact import ModelArtifact, read_artifact
from inference.lookup import look_up
from inference.prediction_log import DISK, FAULTY, QUEUE_FULL, Offered, PredictionLog, Server, draw_whole, finish_by, tabulate
from inference.predictor import Predictor
from inference.replies import Answer
from inference.requests import ScoreRequest

NOON_US = 1_740_830_400_000_000


@pytest.fixture(scope="module")
def predictor(artifacts: Path) -> Predictor:
    return Predictor(read_artifact(artifacts))


@pytest.fixture(scope="module")
def server(artifacts: Path) -> Server:
    return Server("churn", 1, "stable", read_artifact(artifacts))


@pytest.fixture(scope="module")
def store(workspace: Workspace, server: Server) -> Iterator[OnlineStore]:
    artifact = server.artifact
    version = ViewVersion.of(artifact.catalog, artifact.view)
    with open_store(str(workspace.online(artifact.view.key)), version, readonly=True) as opened:
        yield opened


def answer_for(names: list[str], store: OnlineStore, predictor: Predictor, artifact: ModelArtifact) -> Answer:
    request = ScoreRequest(names, [NOON_US] * len(names), {"platform": ["ios"] * len(names)}, with_features=False)
    inputs = look_up(store, request, artifact.profile_fields, artifact.view.freshness_sla_s)
    return Answer(request, inputs, predictor.predict(inputs.tensors, with_features=False))


@pytest.fixture
def answer(store: OnlineStore, predictor: Predictor, server: Server) -> Answer:
    """u3 has 4 records, offset 3 and a profile; u1 has 2 records and none; nobody knows x."""
    return answer_for(["u3", "u1", "x"], store, predictor, server.artifact)


def read_all(folder: Path) -> pa.Table:
    return pa.concat_tables([PREDICTION.empty_table(), *read_predictions(folder)])


def test_a_row_names_what_the_model_saw_and_said(
    answer: Answer, predictor: Predictor, server: Server, store: OnlineStore, tmp_path: Path
) -> None:
    with PredictionLog(tmp_path, server, finish_by(predictor), whole_rate=0) as log:
        assert log.offer(answer, request_id="r1", answered_at_us=NOON_US + 5)
    rows = read_all(tmp_path)
    first = rows.slice(0, 1).to_pylist()[0]
    assert {name: first[name] for name in ("request_id", "model", "model_version", "revision", "view_key", "entity_id")} == {
        "request_id": "r1", "model": "churn", "model_version": 1, "revision": "stable", "view_key": "subscriber@1",
        "entity_id": "u3",
    }  # fmt: skip
    assert rows["answered_at"].cast(pa.int64()).to_pylist() == [NOON_US + 5] * 3
    assert rows["now"].cast(pa.int64()).to_pylist() == [NOON_US] * 3
    assert rows["log_offset"].to_pylist() == answer.inputs.log_offset
    assert rows["shard_offset"].to_pylist() == [
        store.watermark(shard).log_offset for shard in rows["log_partition"].to_pylist()
    ]
    assert rows["cold"].to_pylist() == [False, False, True]
    assert rows["score"].to_pylist() == pytest.approx([4 / 8 + 3 / 1024, 2 / 8 + 3 / 1024, 3 / 1024])
    assert rows["state"].null_count == rows["fields"].null_count == rows["integers"].null_count == 3


def test_the_hashes_can_be_made_again_from_bytes_and_values(answer: Answer, predictor: Predictor, server: Server) -> None:
    rows = tabulate([Offered(answer, "r1", NOON_US)], server, finish_by(predictor), 0)
    states = hash_states(answer.inputs.tensors["state"])  # type: ignore[arg-type]
    # Profile fields in the view's order; user 3 of the fixture has plan pro and an offset of 63 minutes.
    profiles = hash_values([["pro", "unknown", "unknown"], ["unknown"] * 3, [63, 0, 0]], 3)
    assert rows["state_hash"].to_pylist() == states.tolist()
    assert rows["profile_hash"].to_pylist() == profiles.tolist()
    assert rows["inputs_hash"].to_pylist() == hash_inputs(states, profiles, [["ios"] * 3]).tolist()
    assert len({*rows["inputs_hash"].to_pylist()}) == 3


def test_a_sampled_row_is_whole(answer: Answer, predictor: Predictor, server: Server) -> None:
    rows = tabulate([Offered(answer, "r1", NOON_US)], server, finish_by(predictor), 1.0).to_pylist()
    assert [row["state"] for row in rows] == answer.inputs.tensors["state"]
    assert orjson.loads(rows[0]["fields"]) == {
        "plan": "pro", "country": "unknown", "utc_offset_minutes": 63, "platform": "ios",
    }  # fmt: skip
    assert [row["integers"] for row in rows] == [[4, NOON_US, 63], [2, NOON_US, 0], [0, NOON_US, 0]]
    assert rows[0]["finished"] == [4.0, 3.0]
    assert rows[0]["transformed"] == [0.5, 0.375]


def test_the_sample_is_of_the_rate_asked_for_and_the_same_every_time() -> None:
    requests, names = [f"r{number}" for number in range(200)], [f"user-{number}" for number in range(500)]
    drawn = draw_whole(requests, [names] * 200, 0.01)
    # 100,000 draws at 1 %: 1,000, give or take four standard deviations of 31.5.
    assert 874 <= len(drawn) <= 1_126
    assert max(Counter((drawn % 500).tolist()).values()) <= 15
    assert drawn.tolist() == draw_whole(requests, [names] * 200, 0.01).tolist()
    assert len(draw_whole(requests, [names] * 200, 1.0)) == 100_000


def test_only_the_sampled_rows_are_finished(answer: Answer, predictor: Predictor, server: Server) -> None:
    asked: list[int] = []

    def finish(tensors: Mapping[str, Any]) -> Mapping[str, NDArray[Any]]:
        asked.append(len(tensors["state"]))
        return predictor.predict(tensors, with_features=True).features

    batch = [Offered(answer, f"r{number}", NOON_US) for number in range(100)]
    rows = tabulate(batch, server, finish, 0.1)
    assert asked == [rows.num_rows - rows["state"].null_count]
    assert 0 < asked[0] < 100


def test_a_full_queue_drops_and_counts_and_does_not_wait(
    answer: Answer, predictor: Predictor, server: Server, tmp_path: Path
) -> None:
    dropped: Counter[str] = Counter()
    held = threading.Event()

    def finish(tensors: Mapping[str, Any]) -> Mapping[str, NDArray[Any]]:
        held.wait(30)
        return predictor.predict(tensors, with_features=True).features

    def count(reason: str, rows: int) -> None:
        dropped[reason] += rows

    with PredictionLog(tmp_path, server, finish, whole_rate=1.0, max_queued_rows=10, count_dropped=count) as log:
        taken = [log.offer(answer, request_id="r", answered_at_us=NOON_US + number) for number in range(1_000)]
        held.set()
    assert taken[:3] == [True, True, True]
    assert dropped[QUEUE_FULL] == 3 * taken.count(False) > 0
    assert read_all(tmp_path).num_rows == 3 * taken.count(True)


def test_a_full_disk_is_survived_and_recovered_from(
    answer: Answer, predictor: Predictor, server: Server, tmp_path: Path
) -> None:
    """The limit of a file's size is the real error of a write that finds no room."""
    dropped: Counter[str] = Counter()
    told = threading.Event()

    def count(reason: str, rows: int) -> None:
        dropped[reason] += rows
        told.set()

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with PredictionLog(tmp_path, server, finish_by(predictor), whole_rate=0, count_dropped=count) as log:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            assert log.offer(answer, request_id="lost", answered_at_us=NOON_US)
            assert told.wait(30)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert log.offer(answer, request_id="kept", answered_at_us=NOON_US + 1)
    assert dropped == {DISK: 3}
    assert read_all(tmp_path)["request_id"].to_pylist() == ["kept"] * 3
    assert len(list_segments(tmp_path)) == 1


def test_an_answer_that_makes_no_row_is_counted_and_the_next_one_is_logged(
    answer: Answer, predictor: Predictor, server: Server, tmp_path: Path
) -> None:
    dropped: Counter[str] = Counter()
    told = threading.Event()

    def count(reason: str, rows: int) -> None:
        dropped[reason] += rows
        told.set()

    broken = Answer(answer.request, answer.inputs, predictor.predict_cold(1))
    with PredictionLog(tmp_path, server, finish_by(predictor), whole_rate=0, count_dropped=count) as log:
        assert log.offer(broken, request_id="broken", answered_at_us=NOON_US)
        assert told.wait(30)
        assert log.offer(answer, request_id="next", answered_at_us=NOON_US)
    assert dropped == {FAULTY: 3}
    assert read_all(tmp_path)["request_id"].to_pylist() == ["next"] * 3


def test_an_answer_that_makes_no_row_takes_none_with_it_that_waited_beside_it(
    answer: Answer, predictor: Predictor, server: Server, tmp_path: Path
) -> None:
    dropped: Counter[str] = Counter()
    broken = Answer(answer.request, answer.inputs, predictor.predict_cold(1))
    offered = [answer, answer, broken, answer, answer]
    with PredictionLog(tmp_path, server, finish_by(predictor), whole_rate=0, count_dropped=dropped.__setitem__) as log:
        for number, each in enumerate(offered):
            assert log.offer(each, request_id=f"r{number}", answered_at_us=NOON_US)
    assert dropped == {FAULTY: 3}
    assert read_all(tmp_path)["request_id"].to_pylist() == [f"r{number}" for number in (0, 1, 3, 4) for _ in range(3)]


def test_rows_are_made_fast_enough_for_a_million(store: OnlineStore, predictor: Predictor, server: Server) -> None:
    """Processor time, so that a busy machine does not matter; it takes about 3 us a row, the bound is 20."""
    names = [f"u{number % 200}" for number in range(1_000)]
    batch = [Offered(answer_for(names, store, predictor, server.artifact), f"r{number}", NOON_US) for number in range(20)]
    began = process_time()
    rows = tabulate(batch, server, finish_by(predictor), 0.01)
    spent_s = process_time() - began
    assert rows.num_rows == 20_000
    assert spent_s < 0.4
