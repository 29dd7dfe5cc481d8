"""The reference of a version as a file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.errors import StoreError
from features.reference import REFERENCE_FILE, ReferenceFacts, read_reference, write_reference

FIXED = {"now": pa.array([1, 2], pa.int64()), "score": pa.array([0.5, 0.25]), "label": pa.array([1, None], pa.int64())}
FEATURES = {"score": pa.array([1.5, None], pa.float32()), "plan": pa.array(["pro", "basic"])}
FACTS = ReferenceFacts({"score": 0.5, "plan": 0.0}, ("platform",), labels=3, positives=1)


def test_what_was_written_is_read_and_a_feature_may_be_called_as_a_fixed_column(tmp_path: Path) -> None:
    path = tmp_path / REFERENCE_FILE
    fixed = {**FIXED, "now": FIXED["now"].cast(pa.timestamp("us", tz="UTC"))}
    write_reference(path, fixed, FEATURES, FACTS)
    table, facts = read_reference(path)
    assert facts == FACTS
    assert table.column_names == ["now", "score", "label", "feature:score", "feature:plan"]
    assert table["score"].to_pylist() == [0.5, 0.25]
    assert table["label"].to_pylist() == [1, None]
    assert table["feature:score"].to_pylist() == [1.5, None]
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_reference_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / REFERENCE_FILE
    refusal = r"^reference of a model version cannot be read: [^\n]+ train and register the model again$"
    with pytest.raises(StoreError, match=refusal):
        read_reference(path)
    pq.write_table(pa.table(FIXED), path)
    with pytest.raises(StoreError, match=refusal):
        read_reference(path)
    path.write_bytes(b"PAR1")
    with pytest.raises(StoreError, match=refusal):
        read_reference(path)
