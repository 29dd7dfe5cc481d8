"""Profiles: what held and was known at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.catalogs.retail import CATALOG
from features.errors import EventLogError
from features.profiles import _positions_as_of, append_profiles, profiles_as_of, profiles_current
from features.rows import TIME
from features.workspace import Workspace


def make_rows(rows: list[tuple[str, int, int, str | None]]) -> pa.Table:
    """Rows of (entity_id, valid_from us, created_time us, country)."""
    return pa.table(
        {
            "entity_id": pa.array([row[0] for row in rows], pa.string()),
            "valid_from": pa.array([row[1] for row in rows], pa.int64()).cast(TIME),
            "created_time": pa.array([row[2] for row in rows], pa.int64()).cast(TIME),
            "country": pa.array([row[3] for row in rows], pa.string()),
        }
    )


def countries(workspace: Workspace, asked: list[tuple[str, int]]) -> list[str]:
    now_us = np.array([now for _, now in asked], np.int64)
    table = profiles_as_of(workspace, CATALOG, "address", pa.array([entity for entity, _ in asked], pa.string()), now_us)
    assert table.column_names == ["country"]
    values: list[str] = table["country"].to_pylist()
    return values


def test_a_value_holds_from_valid_from_once_it_was_created_and_the_newest_wins(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    rows = [("a", 10, 12, "FR"), ("a", 20, 20, "DE"), ("b", 5, 5, "IT")]
    append_profiles(workspace, CATALOG, "address", make_rows(rows), source="one")
    asked = [("a", 9), ("a", 11), ("a", 12), ("a", 19), ("a", 20), ("b", 4), ("b", 5), ("c", 99)]
    assert countries(workspace, asked) == ["unknown", "unknown", "FR", "FR", "DE", "unknown", "IT", "unknown"]


def test_a_correction_of_the_past_that_arrives_late_never_displaces_a_newer_value(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    append_profiles(workspace, CATALOG, "address", make_rows([("a", 10, 10, "FR"), ("a", 30, 30, "DE")]), source="one")
    append_profiles(workspace, CATALOG, "address", make_rows([("a", 20, 40, "IT"), ("a", 25, 28, None)]), source="two")
    # Known at 28: FR of 10 and the null of 25, which is the newer and reads as the default. IT of 20 is known from 40 on,
    # when DE of 30 already holds.
    assert countries(workspace, [("a", 27), ("a", 28), ("a", 30), ("a", 40)]) == ["FR", "unknown", "DE", "DE"]


def test_all_entities_known_by_a_time_are_listed_with_their_values(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    append_profiles(
        workspace, CATALOG, "address", make_rows([("b", 1, 1, "FR"), ("a", 1, 9, "IT"), ("b", 2, 9, "DE")]), source="one"
    )
    assert profiles_current(workspace, CATALOG, "address", as_of_us=8).to_pylist() == [{"entity_id": "b", "country": "FR"}]
    assert profiles_current(workspace, CATALOG, "address", as_of_us=9).to_pylist() == [
        {"entity_id": "a", "country": "IT"}, {"entity_id": "b", "country": "DE"},
    ]  # fmt: skip


def test_a_profile_that_was_never_written_gives_defaults(tmp_path: Path) -> None:
    assert countries(Workspace(tmp_path), [("a", 1)]) == ["unknown"]
    assert countries(Workspace(tmp_path), []) == []
    assert profiles_current(Workspace(tmp_path), CATALOG, "address", as_of_us=1).num_rows == 0


def test_the_same_source_adds_no_rows_the_second_time_and_undeclared_columns_are_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    rows = make_rows([("a", 1, 1, "FR")])
    assert append_profiles(workspace, CATALOG, "address", rows, source="one") == 1
    assert append_profiles(workspace, CATALOG, "address", rows, source="one") == 0
    with pytest.raises(EventLogError) as caught:
        append_profiles(workspace, CATALOG, "address", rows.append_column("age", pa.array([3])), source="two")
    assert str(caught.value) == (
        "profile rows cannot be appended: profile 'address'; expected columns entity_id, valid_from, created_time, country, "
        "no null in entity_id, valid_from, created_time; got undeclared ['age'], missing []; next: correct the rows"
    )


SMALL = st.integers(0, 6)


@given(
    rows=st.lists(st.tuples(st.sampled_from([1, 2, 3]), SMALL, SMALL), max_size=12),
    asked=st.lists(st.tuples(st.sampled_from([1, 2, 3]), SMALL), min_size=1, max_size=12),
)
def test_as_of_positions_equal_a_plain_search(rows: list[tuple[int, int, int]], asked: list[tuple[int, int]]) -> None:
    rows = sorted(rows)
    frame = pl.DataFrame(
        {"valid_from": [row[1] for row in rows], "created_time": [row[2] for row in rows]},
        schema=dict.fromkeys(("valid_from", "created_time"), pl.Datetime("us")),
    )
    codes = np.array([row[0] for row in rows], np.int64)
    found = _positions_as_of(
        codes, frame, np.array([code for code, _ in asked], np.int64), np.array([now for _, now in asked], np.int64)
    )
    for (code, now), position in zip(asked, found.tolist(), strict=True):
        known = [place for place, row in enumerate(rows) if row[0] == code and row[1] <= now and row[2] <= now]
        assert position == (known[-1] if known else -1)
