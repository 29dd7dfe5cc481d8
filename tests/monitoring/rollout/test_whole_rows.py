from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from features.predictions import SegmentWriter
from features.rows import PREDICTION
from monitoring.rollout.events import hash_entity
from monitoring.rollout.whole_rows import read_whole_rows

NOON_US = 1_740_830_400_000_000
ARMS = {"stable": 0, "canary-4": 1}


def row(entity: str, revision: str, version: int, finished: list[float] | None, at_us: int = NOON_US) -> dict[str, object]:
    moment = datetime.fromtimestamp(at_us / 1e6, UTC)
    return {
        "request_id": "r", "answered_at": moment, "now": moment, "model": "churn", "model_version": version, "view_key": "v",
        "revision": revision, "entity_id": entity, "log_partition": 0, "log_offset": 3, "shard_offset": 5, "state_hash": 1,
        "profile_hash": 2, "inputs_hash": 3, "score": 0.5, "cold": False, "finished": finished,
    }  # fmt: skip


def write(folder, rows):
    writer = SegmentWriter(folder)
    writer.append(pa.Table.from_pylist(rows, schema=PREDICTION))
    writer.close()


def test_features_that_both_versions_have_are_matched_by_name(tmp_path):
    write(
        tmp_path,
        [
            row("u1", "stable", 3, [1.0, 2.0]),
            row("u2", "canary-4", 4, [20.0, float("nan"), 10.0]),
            row("u3", "canary-4", 4, None),  # not of the sample
            row("u4", "elsewhere", 3, [7.0, 7.0]),
            row("u5", "stable", 9, [7.0, 7.0]),
        ],
    )
    found = read_whole_rows(tmp_path, ARMS, {3: ("a", "b"), 4: ("b", "new", "a")}, NOON_US, NOON_US + 1)
    assert found.feature_names == ("a", "b")
    assert found.feature_arm.tolist() == [0, 1]
    assert found.feature_entity.tolist() == [hash_entity("u1"), hash_entity("u2")]
    assert found.features.tolist() == [[1.0, 2.0], [10.0, 20.0]]


def test_rows_of_another_time_are_left_out_and_no_rows_are_an_empty_table(tmp_path):
    write(tmp_path, [row("u1", "stable", 3, [1.0])])
    late = read_whole_rows(tmp_path, ARMS, {3: ("a",), 4: ("a",)}, NOON_US + 1, NOON_US + 2)
    assert late.features.shape == (0, 1)
    assert late.features.dtype == np.float32


def test_a_missing_value_stays_missing(tmp_path):
    write(tmp_path, [row("u1", "stable", 3, [float("nan")])])
    assert np.isnan(read_whole_rows(tmp_path, ARMS, {3: ("a",)}, NOON_US, NOON_US + 1).features[0, 0])
