"""Labels and populations, by hand and against later knowledge."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from features.declarations import Condition
from features.layout import DAY_S, US_PER_S
from features.rows import LABEL_FIELDS, TIME
from models.labels import label_rows, population_at
from models.specs import LabelSpec, Population

DAY = DAY_S * US_PER_S
TEN_DAYS = LabelSpec(outcome=("order",), horizon_s=10 * DAY_S, positive="occurs", label_delay_s=2 * DAY_S)
SILENCE = LabelSpec(outcome=("order",), horizon_s=10 * DAY_S, positive="absent", label_delay_s=2 * DAY_S)
NOW = 100 * DAY

Row = tuple[str, str, int, int]


def make_events(rows: list[Row], **attributes: list[Any]) -> pa.Table:
    """Events from (entity, type, event_us, ingest_us)."""
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    return pa.table(
        {
            "entity_id": pa.array(columns[0], pa.string()),
            "event_type": pa.array(columns[1], pa.string()),
            "event_time": pa.array(columns[2], pa.int64()).cast(TIME),
            "ingest_time": pa.array(columns[3], pa.int64()).cast(TIME),
            **attributes,
        }
    )


def label_of(events: pa.Table, label: LabelSpec, *, known_at_us: int, entity: str = "a", now_us: int = NOW) -> dict[str, Any]:
    row: dict[str, Any] = label_rows(
        events, label, pa.array([entity]), np.array([now_us]), known_at_us=known_at_us
    ).to_pylist()[0]
    return row


def test_an_outcome_at_now_lies_before_the_window_and_one_at_its_end_inside() -> None:
    late = NOW + 30 * DAY
    at_now = make_events([("a", "order", NOW, NOW)])
    first = make_events([("a", "order", NOW + 1, NOW + 1)])
    last = make_events([("a", "order", NOW + 10 * DAY, NOW + 10 * DAY)])
    beyond = make_events([("a", "order", NOW + 10 * DAY + 1, NOW + 10 * DAY + 1)])
    labels = [label_of(events, TEN_DAYS, known_at_us=late)["label"] for events in (at_now, first, last, beyond)]
    assert labels == [0, 1, 1, 0]
    assert [label_of(events, SILENCE, known_at_us=late)["label"] for events in (at_now, first, last, beyond)] == [1, 0, 0, 1]


def test_a_row_matures_when_horizon_and_label_delay_have_passed_to_the_microsecond() -> None:
    events = make_events([("a", "order", NOW + DAY, NOW + DAY)])
    matures = NOW + 12 * DAY
    assert label_of(events, TEN_DAYS, known_at_us=matures)["label"] == 1
    early = label_of(events, TEN_DAYS, known_at_us=matures - 1)
    assert (early["label"], early["matured"]) == (None, False)


def test_an_outcome_ingested_after_known_at_is_not_seen() -> None:
    known_at = NOW + 12 * DAY
    events = make_events([("a", "order", NOW + DAY, known_at + 1)])
    assert label_of(events, TEN_DAYS, known_at_us=known_at)["label"] == 0
    assert label_of(events, TEN_DAYS, known_at_us=known_at + 1)["label"] == 1


def test_the_first_outcome_after_now_counts_whatever_came_before_or_to_others() -> None:
    events = make_events(
        [("a", "order", NOW - DAY, NOW - DAY), ("b", "order", NOW + DAY, NOW + DAY), ("a", "visit", NOW + DAY, NOW + DAY),
         ("a", "order", NOW + 9 * DAY, NOW + 9 * DAY)]
    )  # fmt: skip
    late = NOW + 40 * DAY
    assert label_of(events, TEN_DAYS, known_at_us=late)["label"] == 1
    assert label_of(events, TEN_DAYS, known_at_us=late, entity="c")["label"] == 0
    # The window (109, 119] of "a" is empty: its last order lies exactly at now.
    assert label_of(events, TEN_DAYS, known_at_us=late, now_us=NOW + 9 * DAY)["label"] == 0


def test_an_outcome_that_breaks_a_condition_does_not_count_nor_one_that_lacks_the_attribute() -> None:
    label = LabelSpec(("order",), 10 * DAY_S, "occurs", 0, where=(Condition("channel", ("web",)),))
    rows = [("a", "order", NOW + DAY, NOW + DAY), ("b", "order", NOW + DAY, NOW + DAY), ("c", "order", NOW + DAY, NOW + DAY)]
    events = make_events(rows, channel=["web", "shop", None])
    labels = label_rows(events, label, pa.array(["a", "b", "c"]), np.full(3, NOW), known_at_us=NOW + 20 * DAY)
    assert labels["label"].to_pylist() == [1, 0, 0]


def test_observed_until_grows_with_knowledge_and_stops_at_the_horizon() -> None:
    events = make_events([])
    observed = [
        label_of(events, TEN_DAYS, known_at_us=NOW + days * DAY)["observed_until"].timestamp() / DAY_S - 100
        for days in (1, 5, 12, 30)
    ]
    # Two days of delay: after 1 day nothing is certain, after 5 days three are, after 12 all ten.
    assert observed == [0, 3, 10, 10]


def test_labels_come_in_the_order_asked_and_in_the_declared_types() -> None:
    events = make_events([("a", "order", NOW + DAY, NOW + DAY)])
    table = label_rows(events, TEN_DAYS, pa.array(["b", "a", "b", "a"]), np.array([NOW, NOW, 0, 0]), known_at_us=NOW + 40 * DAY)
    assert table["label"].to_pylist() == [0, 1, 0, 0]
    assert table.schema == pa.schema(LABEL_FIELDS)


def belongs(events: pa.Table, population: Population, now_us: int, *, lag_s: int = 0, entity: str = "a") -> bool:
    return bool(population_at(events, population, np.array([now_us]), lag_s=lag_s, entity_ids=pa.array([entity]))[0])


def test_an_entity_belongs_once_its_entry_is_known_lag_included() -> None:
    events = make_events([("a", "signup", 0, NOW)])
    population = Population(("signup",))
    assert [belongs(events, population, NOW + offset, lag_s=60) for offset in (0, 60 * US_PER_S - 1, 60 * US_PER_S)] == [
        False,
        False,
        True,
    ]
    assert not belongs(events, population, NOW + DAY, entity="b")


def test_a_known_exit_ends_it_and_a_newer_entry_begins_it_again() -> None:
    population = Population(("signup",), ("cancellation",))
    events = make_events(
        [("a", "signup", 10 * DAY, 10 * DAY), ("a", "cancellation", 20 * DAY, 25 * DAY), ("a", "signup", 40 * DAY, 40 * DAY)]
    )
    assert [belongs(events, population, day * DAY) for day in (9, 10, 20, 24, 25, 39, 40, 90)] == [
        False, True, True, True, False, False, True, True,
    ]  # fmt: skip


def test_an_exit_that_arrives_after_a_newer_entry_changes_nothing() -> None:
    population = Population(("signup",), ("cancellation",))
    events = make_events(
        [("a", "signup", 10 * DAY, 10 * DAY), ("a", "signup", 40 * DAY, 40 * DAY), ("a", "cancellation", 20 * DAY, 50 * DAY)]
    )
    assert belongs(events, population, 60 * DAY)


def test_activity_must_be_recent_to_the_microsecond_where_the_population_asks_for_it() -> None:
    population = Population(("visit",), active_within_s=5 * DAY_S)
    events = make_events([("a", "visit", 10 * DAY, 10 * DAY), ("a", "visit", 8 * DAY, 12 * DAY)])
    assert [belongs(events, population, at) for at in (10 * DAY, 15 * DAY, 15 * DAY + 1)] == [True, True, False]


DAYS = st.integers(0, 40)
EVENT = st.tuples(st.sampled_from("abc"), st.sampled_from(["order", "signup", "cancellation"]), DAYS, st.integers(0, 5))
MEMBERS = Population(("signup", "order"), ("cancellation",), active_within_s=20 * DAY_S)


def delayed(drawn: list[tuple[str, str, int, int]]) -> list[Row]:
    return [(entity, kind, day * DAY, (day + delay) * DAY) for entity, kind, day, delay in drawn]


@given(st.lists(EVENT, max_size=30), st.lists(EVENT, max_size=30), st.integers(0, 45))
def test_events_that_arrive_later_change_no_earlier_population_and_no_earlier_label(
    earlier: list[tuple[str, str, int, int]], later: list[tuple[str, str, int, int]], known_day: int
) -> None:
    known_at = known_day * DAY
    base = delayed(earlier)
    future = [(entity, kind, at, max(known_at, at) + 1 + delay) for entity, kind, at, delay in delayed(later)]
    now = np.repeat(np.arange(0, known_day + 1) * DAY, 3)
    ids = pa.array(list("abc") * (known_day + 1))
    before, after = make_events(base), make_events(base + future)
    labels = [label_rows(events, TEN_DAYS, ids, now, known_at_us=known_at) for events in (before, after)]
    members = [population_at(events, MEMBERS, now, lag_s=60, entity_ids=ids) for events in (before, after)]
    assert labels[0].equals(labels[1])
    assert members[0].tolist() == members[1].tolist()


@given(st.lists(EVENT, max_size=30), DAYS, st.integers(0, 60))
def test_labels_and_populations_agree_with_a_loop_over_events(
    drawn: list[tuple[str, str, int, int]], day: int, known_day: int
) -> None:
    events, now, known_at = delayed(drawn), day * DAY, known_day * DAY
    table, ids = make_events(events), pa.array(["a", "b", "c"])
    labels = label_rows(table, TEN_DAYS, ids, np.full(3, now), known_at_us=known_at)["label"].to_pylist()
    members = population_at(table, MEMBERS, np.full(3, now), lag_s=60, entity_ids=ids).tolist()
    for number, entity in enumerate("abc"):
        mine = [event for event in events if event[0] == entity]
        occurred = any(kind == "order" and now < at <= now + 10 * DAY and seen <= known_at for _, kind, at, seen in mine)
        assert labels[number] == (int(occurred) if now + 12 * DAY <= known_at else None)
        known = [(kind, at) for _, kind, at, seen in mine if seen + 60 * US_PER_S <= now]
        entries = [at for kind, at in known if kind != "cancellation"]
        exits = [at for kind, at in known if kind == "cancellation"]
        expected = bool(entries) and (not exits or max(exits) < max(entries)) and now - max(entries) <= 20 * DAY
        assert members[number] == expected
