"""A signal that decides, one that repeats it, and one that means nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import EvaluationError
from models.importance import measure_importance, read_groups

GROUPS = ("orders", "orders", "noise")


def test_a_signal_counts_for_what_it_decides_and_its_columns_move_together() -> None:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((3_000, 3)).astype(np.float32)
    rows[:, 1] = rows[:, 0]  # the same signal twice: shuffled one by one, either would stand in for the other
    label = (rng.random(3_000) < 1 / (1 + np.exp(-2 * rows[:, 0].astype(float)))).astype(np.int8)
    found = measure_importance(GROUPS, rows, label, lambda x: 1 / (1 + np.exp(-(x[:, 0] + x[:, 1]).astype(float))), seed=1)
    assert [entry["group"] for entry in found["groups"]] == ["orders", "noise"]
    orders, noise = found["groups"]
    assert (orders["columns"], noise["columns"]) == (2, 1)
    # Shuffled, the score knows nothing: AUC falls from 0.84 to 0.5.
    assert orders["auc"]["value"] == pytest.approx(0.34, abs=0.03)
    assert orders["log_loss"]["low"] > 0
    assert max(map(abs, noise["auc"].values())) < 1e-12


def test_the_same_seed_gives_the_same_figures_and_large_tests_are_thinned() -> None:
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((12_000, 3)).astype(np.float32)
    label = (rng.random(12_000) < 0.3).astype(np.int8)
    one, two = (measure_importance(GROUPS, rows, label, lambda x: np.abs(x[:, 0]) % 1.0, seed=5) for _ in range(2))
    assert one == two
    assert one["rows"] == 10_000


def test_a_features_file_that_does_not_name_its_groups_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "features.parquet"
    table = pa.table({"label": [0]})
    pq.write_table(table, path)
    with pytest.raises(EvaluationError, match="does not say what its columns come from.* expected transformed_groups"):
        read_groups(path)
    pq.write_table(table.replace_schema_metadata({"transformed_groups": '["orders", "noise"]'}), path)
    assert read_groups(path) == ("orders", "noise")
