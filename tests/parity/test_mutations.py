"""Parity is worth what it catches: each altered line below must show as integers that differ from the oracle's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import pytest
from parity.mutation import mutate
from parity.paths import Scenario, fold_in_micro_batches, make_scenario, mismatches, replay, trace_window_graph

from features import events, layout, matching, point_in_time, tiles
from features.catalogs import load_catalog
from transforms import graph

Mutation = tuple[ModuleType, str, str, str]

AGE = "age = _now_bucket(now_us, row, series) - tf.bitwise.bitwise_and(key, layout.BUCKET_MASK)"
WITHOUT_THE_NEWEST_TILE = f"{AGE}\n    age = tf.where(tf.equal(age, 0) & tf.less(series & 7, 4), -tf.ones_like(age), age)"
WITH_ONE_TILE_TOO_MANY = f"{AGE}\n    age = tf.where(age > 0, age - 1, age)"
SUM, FLOAT_SUM = "np.add.reduceat(measured, starts)", "np.add.reduceat(measured.astype(np.float64), starts).astype(np.int64)"
TOTAL, FLOAT_TOTAL = "total = old + new", "total = (old.astype(np.float64) + new.astype(np.float64)).astype(np.int64)"
BY_OFFSET = '.sort("log_offset")'
LAST_FIRST = '.sort("log_offset", descending=True)'
MUTATIONS: dict[str, Mutation] = {
    "b < floor(t / P) for b <= floor(t / P)": (graph, "finish_windows", AGE, WITHOUT_THE_NEWEST_TILE),
    "floor(t / P) - W / P <= b for floor(t / P) - W / P < b": (graph, "finish_windows", AGE, WITH_ONE_TILE_TOO_MANY),
    "a graph that ignores `by`": (graph, "finish_windows", "if plan.has_by else None", "if False else None"),
    "a late event known from its own time on": (point_in_time, "_known_us", '"ingest_time"', '"event_time"'),
    "a stream without its declared lag": (point_in_time, "_known_us", "view.lag_s", "0"),
    "an event known only after ingest_time + lag": (point_in_time, "_first_row_that_sees", 'side="left"', 'side="right"'),
    "sums of 64-bit floats within a batch": (tiles, "_reduce", SUM, FLOAT_SUM),
    "sums of 64-bit floats between batches": (tiles, "_apply", TOTAL, FLOAT_TOTAL),
    "a head that leaves tiles behind six buckets too soon": (
        tiles,
        "_row_of_ageing",
        "place + retention[ageing]",
        "place + retention[ageing] - 6",
    ),
    "tiles that end where the next one arrives, not before": (
        tiles,
        "replay",
        "np.where(again[1:], row[1:]",
        "np.where(again[1:], row[1:] + 1",
    ),
    "tiles kept five minutes too short": (layout, "retention_buckets", "+ surplus", ""),
    "a de-duplication that keeps the last copy": (events, "deduplicate", BY_OFFSET, LAST_FIRST),
    "a horizon that does not hold its last microsecond": (events, "deduplicate", "<= horizon_s", "< horizon_s"),
    "hours counted as if weeks began on Thursday": (matching, "hours_of_week", "+ _MONDAY_OFFSET_HOURS", ""),
    "a missing attribute that satisfies conditions": (matching, "belongs", "condition.is_in)", "(*condition.is_in, None))"),
}


@pytest.fixture(scope="module")
def everything() -> Scenario:
    """All signals of the catalog, so that hours of the week are there too."""
    catalog = load_catalog("subscription")
    view = replace(catalog.view("subscriber"), signals=tuple(signal.name for signal in catalog.signals))
    return make_scenario(catalog, view, users=150, pairs=3_000)


@pytest.fixture(autouse=True)
def _plans_are_made_anew() -> Iterator[None]:
    tiles.plan_fold.cache_clear()
    yield
    tiles.plan_fold.cache_clear()


def count_mismatches(scenario: Scenario) -> int:
    finish = trace_window_graph(scenario)
    replayed = mismatches(scenario, finish(replay(scenario)))
    folded = mismatches(scenario, finish(fold_in_micro_batches(scenario, batches=3, seed=1)))
    return len(replayed) + len(folded)


def test_the_unaltered_paths_show_none(everything: Scenario) -> None:
    assert count_mismatches(everything) == 0


@pytest.mark.parametrize("name", MUTATIONS)
def test_an_altered_line_shows_in_parity(everything: Scenario, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    mutate(monkeypatch, *MUTATIONS[name])
    assert count_mismatches(everything) > 0
