"""A stream drops the same repeats as the batch rule, whatever its batches and restarts."""

from __future__ import annotations

from itertools import pairwise

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from features.event_log.repeats import IDENTITY, Repeats, recall
from features.events import deduplicate
from features.rows import TIME

HORIZON_S = 10
SECOND_US = 1_000_000


def log_of(moves: list[tuple[int, int, int]]) -> pa.Table:
    """Events from (seconds since the one before, entity, id)."""
    times, now = [], 0
    for gap, _, _ in moves:
        now += gap
        times.append(now * SECOND_US)
    return pa.table(
        {
            "entity_id": pa.array([f"u{entity}" for _, entity, _ in moves], pa.string()),
            "event_id": pa.array([f"e{name}" for _, _, name in moves], pa.string()),
            "ingest_time": pa.array(times, TIME),
            "log_offset": pa.array(range(len(moves)), pa.int64()),
        }
    )


def offsets(table: pa.Table) -> list[int]:
    return [int(offset) for offset in table["log_offset"].to_pylist()]


MOVES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1), st.integers(0, 3)), max_size=40)


@given(MOVES, st.lists(st.integers(0, 40), max_size=6))
def test_any_batching_keeps_the_events_that_the_batch_rule_keeps(moves: list[tuple[int, int, int]], cuts: list[int]) -> None:
    log = log_of(moves)
    repeats, kept = Repeats(HORIZON_S), []
    bounds = [0, *sorted(min(cut, len(moves)) for cut in cuts), len(moves)]
    for low, high in pairwise(bounds):
        kept += offsets(repeats.drop(log.slice(low, high - low)))
    assert kept == offsets(deduplicate(log, horizon_s=HORIZON_S))


@given(MOVES, st.lists(st.integers(0, 40), min_size=1, max_size=4))
def test_a_restart_anywhere_keeps_the_same_events(moves: list[tuple[int, int, int]], restarts: list[int]) -> None:
    log = log_of(moves)
    kept, position = [], 0
    for cut in [*sorted(min(cut, len(moves)) for cut in restarts), len(moves)]:
        seen = log.slice(0, position)
        last_us = seen["ingest_time"].cast(pa.int64())[-1].as_py() if position else 0

        def since(ingest_us: int, seen: pa.Table = seen) -> pa.Table:
            return seen.filter(
                pa.array([time >= ingest_us for time in seen["ingest_time"].cast(pa.int64()).to_pylist()], pa.bool_())
            )

        kept += offsets(recall(since, last_us, HORIZON_S).drop(log.slice(position, cut - position)))
        position = cut
    assert kept == offsets(deduplicate(log, horizon_s=HORIZON_S))


def test_one_horizon_is_not_enough_to_remember_by() -> None:
    # Horizon 10 s; copies of one event at 0, 6, 12 and 20 s. Kept: 0; 6 repeats it; 12 is 12 s after 0, kept; 20 repeats 12.
    # One horizon before 12 begins at 2: there the copy at 6 would look kept, 12 dropped, and 20 (14 s after 6) kept.
    log = log_of([(0, 0, 0), (6, 0, 0), (6, 0, 0), (8, 0, 0)])
    assert offsets(deduplicate(log, horizon_s=HORIZON_S)) == [0, 2]
    asked: list[int] = []

    def since(ingest_us: int) -> pa.Table:
        asked.append(ingest_us)
        return log.slice(0 if ingest_us <= 0 else 1, 3 if ingest_us <= 0 else 2)

    assert offsets(recall(since, 12 * SECOND_US, HORIZON_S).drop(log.slice(3))) == []
    assert asked[0] == -8 * SECOND_US


def test_what_is_older_than_the_horizon_is_forgotten() -> None:
    repeats = Repeats(HORIZON_S)
    for number in range(200):
        repeats.drop(
            log_of([(number, 0, number)]).set_column(3, "log_offset", pa.array([number], pa.int64())).select(list(IDENTITY))
        )
    assert len(repeats) < 60
