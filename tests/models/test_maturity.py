"""Label maturity and earlier horizons, counted on a handful of rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.layout import DAY_S, US_PER_S
from features.rows import TIME
from models.bootstrap import draw_weights
from models.hazard import probability_within
from models.horizons import measure_horizons
from models.maturity import measure_maturity
from models.specs import Learning, load_spec

DAY = DAY_S * US_PER_S
START = 20_000 * DAY  # 2024-10-04

# now (day), split, matured, days until the outcome happened and was known
ROWS = [
    (0, "train", True, 2, 3), (0, "train", True, 9, 12), (0, "train", True, None, None),
    (5, "test", True, 4, 4), (5, "test", True, 8, 8), (5, "test", True, None, None), (5, "cold", True, 4, 4),
    (8, "censored", False, 1, 2), (8, "censored", False, None, None),
]  # fmt: skip


@pytest.fixture
def features(tmp_path: Path) -> Path:
    now, split, matured, happened, known = zip(*ROWS, strict=True)
    start = [START + day * DAY for day in now]

    def after(days: tuple[int | None, ...]) -> pa.Array:
        return pa.array([None if day is None else at + day * DAY for at, day in zip(start, days, strict=True)], TIME)

    table = {"now": pa.array(start, TIME), "split": pa.array(split), "matured": pa.array(matured),
             "outcome_time": after(happened), "outcome_known_time": after(known)}  # fmt: skip
    pq.write_table(pa.table(table), tmp_path / "features.parquet")
    return tmp_path / "features.parquet"


def test_rows_are_counted_by_date_and_cold_copies_are_not(features: Path) -> None:
    found = measure_maturity(features, 10 * DAY_S)
    assert (found["rows"], found["matured"], found["censored"]) == (8, 6, 2)
    assert found["periods"] == [
        {"from": "2024-10-04", "rows": 3, "matured": 3, "censored": 0, "outcomes": 2},
        {"from": "2024-10-09", "rows": 3, "matured": 3, "censored": 0, "outcomes": 2},
        {"from": "2024-10-12", "rows": 2, "matured": 0, "censored": 2, "outcomes": 1},
    ]


def test_delays_are_those_of_matured_rows_and_reach_as_far_as_the_longest(features: Path) -> None:
    delays = measure_maturity(features, 10 * DAY_S)["delays"]
    assert delays["outcomes"] == 4
    assert (delays["days"][0], delays["days"][-1]) == (0, 12)
    at = {
        day: (happened, known) for day, happened, known in zip(delays["days"], delays["happened"], delays["known"], strict=True)
    }
    # Happened after 2, 4, 8, 9 days; known after 3, 4, 8, 12.
    assert at[2.0] == (0.25, 0.0)
    assert at[4.0] == (0.5, 0.5)
    assert at[9.0] == (1.0, 0.75)
    assert at[12.0] == (1.0, 1.0)


def test_a_horizon_between_two_edges_assumes_a_constant_hazard() -> None:
    # Survival .8 at 10 and .5 at 20: half-way in logs at 15, sqrt(.8 * .5) = 0.63246. Before 10: sqrt(.8) at 5.
    within = np.array([[0.2, 0.5]])
    for horizon, expected in ((5, 1 - 0.8**0.5), (10, 0.2), (15, 1 - 0.4**0.5), (20, 0.5)):
        assert probability_within(within, (10, 20), horizon).tolist() == pytest.approx([expected])


def test_each_horizon_is_judged_by_its_own_outcomes(features: Path) -> None:
    spec = load_spec("churn_retail")
    spec = replace(
        spec,
        label=replace(spec.label, horizon_s=10 * DAY_S, earlier_horizons_s=(1 * DAY_S, 5 * DAY_S)),
        learning=Learning(method="hazard", delay_buckets_s=(5 * DAY_S, 10 * DAY_S)),
    )
    within = np.array([[0.9, 0.95], [0.2, 0.9], [0.1, 0.3]])
    first, middle, last = measure_horizons(spec, features, within, draw_weights(np.arange(3), 50, seed=1))
    assert (first["outcomes"], middle["outcomes"], last["outcomes"]) == (0, 1, 2)
    assert "metrics" not in first
    assert middle["metrics"]["auc"]["value"] == 1.0
    assert middle["mean_score"] == pytest.approx(0.4)
    # Mean score (.95 + .9 + .3) / 3 = 0.71667, share 2/3.
    assert last["gap"]["value"] == pytest.approx(0.05)
