"""Comparisons of served rows with rebuilt ones, on arrays and bytes made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from features import layout
from features.rows import SKEW
from monitoring import skew
from monitoring.skew import Difference, Places, Tally

PLACES = Places(["u1", "u2", "u3"], [10, 20, 30])
NAMES = [("clicks_1h", "clicks"), ("clicks_1d", "clicks"), ("spend_1d", "spend")]


def state(*records: tuple[int, int]) -> bytes:
    return np.array([(layout.header_key(0), 7), *records], dtype="<i8").tobytes()


def tile(signal: int, bucket: int) -> int:
    return layout.pack_key(signal, "count", layout.HOUR_TILES, 0, bucket)


def test_a_block_is_compared_value_by_value_and_counted_by_signal() -> None:
    served = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    rebuilt = np.array([[1, 2, 3], [4, 0, 6], [0, 0, 9]])
    found, differs = skew.compare_blocks(skew.REPLAY, skew.INTEGERS, served, rebuilt, NAMES, PLACES)
    clicks, spend = found
    assert differs.tolist() == [False, True, True]
    assert (clicks.signal, clicks.rows, clicks.values, clicks.differing, clicks.differing_rows) == ("clicks", 3, 6, 3, 2)
    assert (spend.signal, spend.values, spend.differing) == ("spend", 3, 0)
    assert clicks.example is not None
    assert (clicks.example.entity_id, clicks.example.detail) == ("u2", "clicks_1d: served 5, rebuilt 0")
    assert spend.example is None


def test_floats_are_compared_by_their_bits() -> None:
    nan = np.array([[np.nan], [0.0], [1.0]], np.float32)
    other = np.array([[np.nan], [-0.0], [np.nextafter(np.float32(1), np.float32(2))]], np.float32)
    _, differs = skew.compare_blocks(skew.REPLAY, skew.TRANSFORMED, nan, other, NAMES[:1], PLACES)
    assert differs.tolist() == [False, True, True]


def test_states_name_the_signals_whose_tiles_differ_and_not_the_header_that_follows() -> None:
    served = [state((tile(1, 5), 1), (tile(2, 5), 9)), state((tile(1, 5), 1)), b""]
    rebuilt = [state((tile(1, 5), 1), (tile(2, 5), 8), (tile(2, 6), 1)), state((tile(1, 5), 1)), state((tile(3, 1), 1))]
    found = {one.signal: one for one in skew.compare_states(served, rebuilt, {1: "clicks", 2: "spend"}, PLACES)}
    assert {name: one.differing for name, one in found.items()} == {"clicks": 0, "spend": 1, "signal 3": 1}
    assert found["spend"].example is not None
    assert found["spend"].example.detail.endswith("served 9, rebuilt 8")


def test_a_state_that_differs_in_its_header_alone_names_the_log_position() -> None:
    moved = np.array([(layout.header_key(0), 8), (tile(1, 5), 1)], dtype="<i8").tobytes()
    found = skew.compare_states([moved], [state((tile(1, 5), 1))], {1: "clicks"}, PLACES)
    assert {one.signal: one.differing for one in found} == {"clicks": 0, skew.POSITION: 1}


def test_scores_may_differ_by_a_millionth_and_no_number_equals_none() -> None:
    served = np.array([0.5, 0.5, np.nan], np.float32)
    _, wrong = skew.compare_scores(served, np.array([0.5 + 9e-7, 0.5 + 2e-6, np.nan]), PLACES)
    assert wrong.tolist() == [False, True, True]


def test_the_first_difference_is_of_the_earliest_kind_and_there_of_the_first_signal() -> None:
    tally = Tally()
    for kind, signal in ((skew.SCORE, "score"), (skew.INTEGERS, "spend"), (skew.INTEGERS, "clicks")):
        tally.add([Difference(skew.REPLAY, kind, signal, 1, 1, 1, 1)])
    tally.add([Difference(skew.TRAINING, skew.STATE, "clicks", 1, 1, 1, 1), Difference(skew.REPLAY, skew.STATE, "spend", 1, 1)])
    first = tally.first(["clicks", "spend"])
    assert first is not None
    assert (first.kind, first.signal) == (skew.INTEGERS, "clicks")


@pytest.mark.parametrize("chunks", [1, 3])
def test_counts_are_the_same_however_the_rows_are_divided(chunks: int) -> None:
    served, rebuilt = np.arange(9).reshape(3, 3), np.arange(9).reshape(3, 3).copy()
    rebuilt[1, 2] = 0
    tally = Tally()
    for rows in np.array_split(np.arange(3), chunks):
        places = Places([PLACES.entity_ids[row] for row in rows], [PLACES.now_us[row] for row in rows])
        found, differs = skew.compare_blocks(skew.REPLAY, skew.INTEGERS, served[rows], rebuilt[rows], NAMES, places)
        tally.add(found)
        tally.count_rows(skew.INTEGERS, differs)
    assert tally.mismatches == 1
    about = {"model": "m", "model_version": 1, "view_key": "v@1"}
    table = skew.tabulate(tally, about=about, start_us=0, end_us=1, measured_at_us=2)
    assert table.schema.equals(SKEW)
    assert dict(zip(table["signal"].to_pylist(), table["share"].to_pylist(), strict=True)) == {"clicks": 0.0, "spend": 1 / 3}
    assert table["example_entity"].to_pylist() == [None, "u2"]
