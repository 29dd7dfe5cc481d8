"""Rows of a reference that may fairly be held against a window."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from monitoring.drift.reference import Reference
from monitoring.drift.sample import Sample, concatenate, hours_of_week, match_hours, name_hour
from monitoring.drift.settings import DriftSettings

HOUR_US = 3_600_000_000
MONDAY_US = 1_736_121_600_000_000  # 2025-01-06T00:00:00Z


def rows_at(hours):
    at_us = MONDAY_US + np.asarray(hours, np.int64) * HOUR_US
    return Sample(np.arange(len(at_us), dtype=np.float32)[:, None], ("row",), at_us)


def test_hours_of_the_week_count_from_monday():
    # 1970-01-01 00:00 was Thursday, hour 72; 2025-01-06 was a Monday.
    assert hours_of_week(np.array([0, MONDAY_US, MONDAY_US - 1, MONDAY_US + 25 * HOUR_US])).tolist() == [72, 0, 167, 25]


def test_rows_are_drawn_as_the_windows_hours_are_distributed():
    # 3/4 of the window at 09, 1/4 at 15; 100 reference rows at each hour of a week. All 100 of 09 are taken, and of 15 a third
    # as many.
    reference = rows_at(np.repeat(np.arange(168), 100))
    window = rows_at([9] * 75 + [15] * 25)
    matched = match_hours(reference, window, period_h=168, least=10, seed=0)
    hours, counts = np.unique(hours_of_week(matched.at_us), return_counts=True)
    assert (hours.tolist(), counts.tolist()) == ([9, 15], [100, 33])


def test_where_an_hour_has_too_few_rows_its_neighbours_stand_in():
    reference = rows_at(np.repeat(np.arange(168), 100))
    matched = match_hours(reference, rows_at([9] * 50), period_h=168, least=200, seed=0)
    assert np.bincount(hours_of_week(matched.at_us))[8:11].tolist() == [100, 100, 100]


def test_hours_of_the_day_take_every_weekday():
    reference = rows_at(np.arange(168))
    matched = match_hours(reference, rows_at([9] * 50), period_h=24, least=10, seed=0)
    assert len(matched) == 21


def test_sunday_night_stands_beside_monday_morning():
    matched = match_hours(rows_at([167] * 20 + [80] * 20), rows_at([0] * 5), period_h=168, least=10, seed=0)
    assert set(hours_of_week(matched.at_us).tolist()) == {167}


def test_too_few_rows_of_the_windows_hours_are_none():
    assert match_hours(rows_at([80] * 1_000), rows_at([0] * 5), period_h=168, least=10, seed=0) is None


def test_an_hour_of_the_week_is_named_for_a_person():
    assert [name_hour(MONDAY_US), name_hour(MONDAY_US + 134 * HOUR_US + 1)] == ["Mon 00:00 UTC", "Sat 14:00 UTC"]


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        (np.repeat(np.arange(168), 50), (168, 50, False)),  # 50 rows of the very hour are enough
        (np.repeat(np.arange(168), 17), (168, 51, False)),  # 3 hours of 17
        (np.repeat(np.arange(168), 16), (24, 336, True)),  # 48 are too few; 3 hours of 7 days of 16
        (np.repeat(np.arange(168), 2), (0, 336, True)),  # 42 of the hours of the day are too few, too
    ],
)
def test_training_rows_are_of_the_windows_hours_of_the_week_else_of_other_hours(hours, expected):
    found = Reference("training", rows_at(hours), by_hours=True).beside(rows_at([134] * 300), DriftSettings())
    assert (found.period_h, len(found.sample), found.other_hours) == expected


def test_samples_keep_their_columns_when_rows_are_taken_and_joined():
    sample = Sample(
        np.array([[1], [2]], np.float32), ("a",), np.array([5, 6]), {"b": pa.array(["x", None])},
        score=np.array([0.1, 0.2], np.float32), flags={"cold": np.array([True, False])},
    )  # fmt: skip
    joined = concatenate([sample, sample.take(np.array([1]))])
    assert joined.numbers[:, 0].tolist() == [1, 2, 2]
    assert joined.categories["b"].to_pylist() == ["x", None, None]
    assert joined.score.tolist() == pytest.approx([0.1, 0.2, 0.2])
    assert len(joined.unflagged()) == 2
    assert joined.label is None
    assert joined.select(["b"]).feature_names == ("b",)
    assert len(joined.thin(2, seed=0)) == 2
