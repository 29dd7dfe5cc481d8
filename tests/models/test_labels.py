"""Labels and populations, by hand and against later knowledge."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.declarations import Condition
from features.layout import DAY_S, US_PER_S
from features.rows import LABEL_FIELDS, TIME
from models.errors import SpecError
from models.labels import label_attributes, label_rows, population_at
from models.specs import Attribution, Closing, Exclusion, LabelSpec, Population

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


def test_the_first_outcome_within_the_horizon_is_named_with_when_it_was_known_matured_or_not() -> None:
    events = make_events([("a", "order", NOW + 3 * DAY, NOW + 4 * DAY), ("a", "order", NOW + 2 * DAY, NOW + 6 * DAY)])
    seen = [label_of(events, TEN_DAYS, known_at_us=NOW + day * DAY) for day in (3, 4, 5, 6, 20)]
    # At day 4 the order of day 3 is known; the one of day 2, which came first, only at day 6.
    assert [day_of(row["outcome_time"]) for row in seen] == [None, 3, 3, 2, 2]
    assert [day_of(row["outcome_known_time"]) for row in seen] == [None, 4, 4, 6, 6]
    assert [row["label"] for row in seen] == [None, None, None, None, 1]
    beyond = label_of(events, LabelSpec(("order",), DAY_S, "occurs", 0), known_at_us=NOW + 20 * DAY)
    assert (beyond["label"], beyond["outcome_time"]) == (0, None)


def day_of(time: dt.datetime | None) -> float | None:
    """Days after NOW."""
    return None if time is None else time.timestamp() / DAY_S - 100


def test_a_closing_event_ends_the_wait_from_when_it_is_known_and_matures_nothing() -> None:
    events = make_events([("a", "arrived", NOW + 3 * DAY, NOW + 4 * DAY), ("a", "arrived", NOW - DAY, NOW - DAY)])
    arrival = replace(TEN_DAYS, closing=Closing(("arrived",)))
    # Known at day 4; but an order from before day 3 may be under way until day 5.
    seen = [label_of(events, arrival, known_at_us=NOW + day * DAY) for day in (4, 5)]
    assert [day_of(row["closed_time"]) for row in seen] == [None, 3]
    assert [day_of(row["observed_until"]) for row in seen] == [2, 3]
    assert [(row["matured"], row["label"]) for row in seen] == [(False, None)] * 2
    beyond = replace(arrival, horizon_s=2 * DAY_S)
    assert label_of(events, beyond, known_at_us=NOW + 20 * DAY)["closed_time"] is None


def test_a_touch_is_closed_by_the_event_that_shares_its_attribute_alone() -> None:
    events = make_events(
        [("a", "booking", NOW, NOW), ("a", "booking", NOW, NOW), ("a", "arrived", NOW + DAY, NOW + DAY)],
        invoice=["one", "two", "two"],
    )
    booked = replace(
        TEN_DAYS, attribution=Attribution(("booking",), 10 * DAY_S, "invoice"), closing=Closing(("arrived",), "invoice")
    )
    ids, now_us = pa.array(["a", "a"]), np.array([NOW, NOW])
    rows = label_rows(events, booked, ids, now_us, known_at_us=NOW + 5 * DAY, touch=np.array([0, 1]))
    assert [day_of(time) for time in rows["closed_time"].to_pylist()] == [None, 1]


CANCELLED = Exclusion(("cancelled",), window_s=5 * DAY_S, match="invoice")
KEPT_ORDER = replace(TEN_DAYS, label_delay_s=5 * DAY_S, exclusion=CANCELLED)


def test_an_exclusion_voids_an_outcome_from_when_it_is_known_and_not_a_moment_earlier() -> None:
    events = make_events(
        [("a", "order", NOW + DAY, NOW + DAY), ("a", "cancelled", NOW + 2 * DAY, NOW + 15 * DAY)], invoice=["one", "one"]
    )
    before, after = (label_of(events, KEPT_ORDER, known_at_us=NOW + 15 * DAY + late) for late in (-1, 0))
    assert (before["label"], day_of(before["outcome_time"])) == (None, 1)
    assert (after["label"], after["outcome_time"], after["outcome_known_time"]) == (0, None, None)


def test_an_exclusion_must_follow_within_its_window_and_share_the_attribute() -> None:
    order, after = ("a", "order", NOW + 2 * DAY, NOW + 2 * DAY), NOW + 40 * DAY
    cases = {
        "the same instant": (2 * DAY, "one", 0), "the end of the window": (7 * DAY, "one", 0), "later": (7 * DAY + 1, "one", 1),
        "before the order": (2 * DAY - 1, "one", 1), "another invoice": (3 * DAY, "two", 1), "no invoice": (3 * DAY, None, 1),
    }  # fmt: skip
    for name, (offset, invoice, expected) in cases.items():
        events = make_events([order, ("a", "cancelled", NOW + offset, NOW + offset)], invoice=["one", invoice])
        assert label_of(events, KEPT_ORDER, known_at_us=after)["label"] == expected, name
    # Without an attribute to share, any cancellation of the entity that follows voids it.
    anyone = replace(KEPT_ORDER, exclusion=replace(CANCELLED, match=""))
    events = make_events([order, ("a", "cancelled", NOW + 3 * DAY, NOW + 3 * DAY)], invoice=["one", "two"])
    assert label_of(events, anyone, known_at_us=after)["label"] == 0
    other = make_events([order, ("b", "cancelled", NOW + 3 * DAY, NOW + 3 * DAY)], invoice=["one", "one"])
    assert label_of(other, KEPT_ORDER, known_at_us=after)["label"] == 1


def test_the_next_outcome_counts_where_the_first_is_void() -> None:
    rows = [("a", "order", NOW + DAY, NOW + DAY), ("a", "order", NOW + 4 * DAY, NOW + 4 * DAY),
            ("a", "cancelled", NOW + 2 * DAY, NOW + 2 * DAY)]  # fmt: skip
    seen = label_of(make_events(rows, invoice=["one", "two", "one"]), KEPT_ORDER, known_at_us=NOW + 15 * DAY)
    assert (seen["label"], day_of(seen["outcome_time"])) == (1, 4)


REDEEMED = LabelSpec(("redeemed",), 20 * DAY_S, "occurs", 0, attribution=Attribution(("sent",), window_s=10 * DAY_S))


def credited(rows: list[Row], label: LabelSpec, *, known_at_us: int, **attributes: list[Any]) -> list[int | None]:
    """Labels of the rows drawn at each ``sent`` event, in the order of the events."""
    events = make_events(rows, **attributes)
    touch = np.flatnonzero([kind == "sent" for _, kind, _, _ in rows])
    now = np.array([rows[number][3] for number in touch])
    ids = pa.array([rows[number][0] for number in touch])
    found: list[int | None] = label_rows(events, label, ids, now, known_at_us=known_at_us, touch=touch)["label"].to_pylist()
    return found


def test_an_outcome_counts_for_its_last_touch_alone_and_only_within_the_window() -> None:
    late = NOW + 60 * DAY
    sent = [("a", "sent", NOW, NOW), ("a", "sent", NOW + 5 * DAY, NOW + 5 * DAY)]
    assert credited([*sent, ("a", "redeemed", NOW + 4 * DAY, NOW + 4 * DAY)], REDEEMED, known_at_us=late) == [1, 0]
    assert credited([*sent, ("a", "redeemed", NOW + 6 * DAY, NOW + 6 * DAY)], REDEEMED, known_at_us=late) == [0, 1]
    # Ten days after the second touch is the end of its window; later, the outcome is nobody's, the first is older still.
    assert credited([*sent, ("a", "redeemed", NOW + 15 * DAY, NOW + 15 * DAY)], REDEEMED, known_at_us=late) == [0, 1]
    assert credited([*sent, ("a", "redeemed", NOW + 15 * DAY + 1, NOW + 16 * DAY)], REDEEMED, known_at_us=late) == [0, 0]
    assert credited([*sent, ("b", "redeemed", NOW + 6 * DAY, NOW + 6 * DAY)], REDEEMED, known_at_us=late) == [0, 0]


def test_touch_and_outcome_must_share_the_attribute_where_one_is_named() -> None:
    by_offer = replace(REDEEMED, attribution=Attribution(("sent",), 10 * DAY_S, match="offer"))
    rows = [("a", "sent", NOW, NOW), ("a", "sent", NOW, NOW), ("a", "redeemed", NOW + DAY, NOW + DAY)]
    late = NOW + 60 * DAY
    assert credited(rows, by_offer, known_at_us=late, offer=["x", "y", "x"]) == [1, 0]
    assert credited(rows, by_offer, known_at_us=late, offer=["x", "y", None]) == [0, 0]
    # Two touches at one instant without an attribute to tell them apart: the one later in the log.
    assert credited(rows, REDEEMED, known_at_us=late) == [0, 1]


def test_a_touch_known_only_later_takes_no_outcome_away_earlier() -> None:
    rows = [
        ("a", "sent", NOW, NOW),
        ("a", "sent", NOW + 2 * DAY, NOW + 30 * DAY),
        ("a", "redeemed", NOW + 3 * DAY, NOW + 3 * DAY),
    ]
    assert credited(rows, REDEEMED, known_at_us=NOW + 30 * DAY - 1)[0] == 1
    assert credited(rows, REDEEMED, known_at_us=NOW + 30 * DAY)[0] == 0


def test_an_attributed_label_of_rows_that_are_no_touches_is_refused() -> None:
    with pytest.raises(SpecError, match=r"^label is attributed, but rows are not drawn at touches: .*; next: [^\n]+$"):
        label_of(make_events([]), REDEEMED, known_at_us=NOW)


def test_attributes_that_a_label_reads_are_named_once() -> None:
    label = replace(KEPT_ORDER, where=(Condition("channel", ("web",)), Condition("invoice", ("one",))))
    assert label_attributes(label) == ("channel", "invoice")


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


KINDS = st.sampled_from(["order", "cancelled", "sent"])
TRACED = st.tuples(st.sampled_from("ab"), KINDS, DAYS, st.integers(0, 5), st.sampled_from(["x", "y", None]))
BOTH = replace(KEPT_ORDER, attribution=Attribution(("sent",), 6 * DAY_S, match="invoice"))


@given(st.lists(TRACED, max_size=30), st.integers(0, 60))
def test_exclusion_and_attribution_agree_with_a_loop_over_events(
    drawn: list[tuple[str, str, int, int, str | None]], known_day: int
) -> None:
    log = [(entity, kind, day * DAY, (day + delay) * DAY, match) for entity, kind, day, delay, match in drawn]
    known_at = known_day * DAY
    events = make_events([row[:4] for row in log], invoice=pa.array([row[4] for row in log], pa.string()))
    touch = np.array([number for number, row in enumerate(log) if row[1] == "sent"], dtype=np.int64)
    ids, now = (
        pa.array([log[number][0] for number in touch], pa.string()),
        np.array([log[number][3] for number in touch], dtype=np.int64),
    )
    found = label_rows(events, BOTH, ids, now, known_at_us=known_at, touch=touch)["outcome_time"].cast(pa.int64()).to_pylist()
    known = [(number, *row) for number, row in enumerate(log) if row[3] <= known_at and row[4] is not None]
    expected: dict[int, list[int]] = {}
    for _, entity, kind, at, _, match in known:
        mates = [row for row in known if row[1] == entity and row[5] == match]
        if kind != "order" or any(row[2] == "cancelled" and at <= row[3] <= at + 5 * DAY for row in mates):
            continue
        before = [(row[3], row[4], row[0]) for row in mates if row[2] == "sent" and at - 6 * DAY <= row[3] <= at]
        if before:
            expected.setdefault(max(before)[2], []).append(at)
    for number, start, outcome in zip(touch.tolist(), now.tolist(), found, strict=True):
        within = [at for at in expected.get(number, []) if start < at <= start + 10 * DAY]
        assert outcome == (min(within) if within else None)


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
