"""Golden checks of the oracle itself: every number is derived by hand beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from parity.oracle import DEDUPLICATION_HORIZON_US, SECOND_US, Event, Oracle

from features.catalogs import load_catalog
from features.declarations import HOUR_OF_WEEK, By, Condition, Signal, window_features

MINUTE, HOUR, DAY = 60 * SECOND_US, 3_600 * SECOND_US, 86_400 * SECOND_US
MONDAY = 1_767_571_200 * SECOND_US  # 2026-01-05 00:00 UTC, a Monday: 20,458 days after 1970-01-01, and (20458 + 3) % 7 == 0

SEEN = Signal(1, "seen", "user", ("session",), ("count",), (600, 3_600, 12 * 3_600, 12 * 86_400, 30 * 86_400, 0))
PAID = Signal(2, "paid", "user", ("payment", "refund"), ("sum", "max"), (86_400, 0), value="amount_cents")
TIMES = Signal(3, "times", "user", ("session",), ("last", "first"), (30 * 86_400, 0))
PUSHED = Signal(4, "opened", "user", ("opened",), ("count",), (0,), by=By("channel", ("email", "push")))
WEEKLY = Signal(5, "weekly", "user", ("opened",), ("count",), (0,), by=By(HOUR_OF_WEEK))
MOBILE = Signal(6, "mobile", "user", ("session",), ("count",), (0,), where=(Condition("platform", ("ios", "android")),))


def event(event_type: str, at: int, *, ingest: int | None = None, offset: int = 0, **values: Any) -> Event:
    blank = {"amount_cents": None, "channel": None, "platform": None, "event_id": f"{event_type}-{at}-{offset}"}
    place = {"entity_id": "u", "log_partition": 0, "log_offset": offset, "event_type": event_type, "event_time": at}
    return blank | place | {"ingest_time": at if ingest is None else ingest} | values


def finish(signal: Signal, events: list[Event], now: int, *, lag_s: int = 0, **options: int) -> dict[str, int]:
    return Oracle(events, [signal], lag_s).integers("u", now, **options)


def test_feature_names_and_order_are_those_of_the_declarations() -> None:
    for name in ("subscription", "retail", "mathoverflow"):
        catalog = load_catalog(name)
        for signals in (catalog.signals_of(catalog.views[0]), catalog.signals):
            assert [f.name for f in Oracle([], signals, 0).features] == [f.name for f in window_features(signals)]


def test_a_window_gains_a_tile_at_once_and_loses_it_exactly_one_window_after_the_tile_began() -> None:
    # The event lies at 00:03:30, in minute tile 3. A 10-minute window holds tiles t-9 .. t (t in whole minutes), so tile 3
    # is in until minute 12 ends and out from 00:13:00 on: 10 minutes after the *tile* began, 9.5 after the event.
    events = [event("session", MONDAY + 3 * MINUTE + 30 * SECOND_US)]
    reads = (3 * MINUTE + 30 * SECOND_US, 13 * MINUTE - 1, 13 * MINUTE)
    counts = [finish(SEEN, events, MONDAY + at)["seen_count_10m"] for at in reads]
    assert counts == [1, 1, 0]


def test_each_window_leaves_at_the_edge_of_its_own_resolution() -> None:
    # An event at Monday 00:00:00 exactly is the first of tile 0 of that day at every resolution: 1 h over minutes leaves at
    # 01:00:00.000000, 12 h over 5 minutes at 12:00, 12 d over hours on the twelfth day, 30 d over days on the thirtieth.
    events = [event("session", MONDAY)]
    for name, length in (("1h", HOUR), ("12h", 12 * HOUR), ("12d", 12 * DAY), ("30d", 30 * DAY)):
        assert finish(SEEN, events, MONDAY + length - 1)[f"seen_count_{name}"] == 1
        assert finish(SEEN, events, MONDAY + length)[f"seen_count_{name}"] == 0
    # One microsecond earlier, the event is the last of the tile before; that tile leaves one period before the above.
    events = [event("session", MONDAY - 1)]
    for name, leaves in (("1h", HOUR - MINUTE), ("12h", 12 * HOUR - 5 * MINUTE), ("12d", 12 * DAY - HOUR), ("30d", 29 * DAY)):
        assert finish(SEEN, events, MONDAY + leaves - 1)[f"seen_count_{name}"] == 1
        assert finish(SEEN, events, MONDAY + leaves)[f"seen_count_{name}"] == 0


def test_an_event_is_known_when_ingest_time_plus_lag_has_come_and_not_a_microsecond_before() -> None:
    events = [event("session", MONDAY, ingest=MONDAY + 2 * HOUR)]
    known = MONDAY + 2 * HOUR + 60 * SECOND_US
    assert finish(SEEN, events, known - 1, lag_s=60)["seen_count_lifetime"] == 0
    assert finish(SEEN, events, known, lag_s=60)["seen_count_lifetime"] == 1
    # A store that has folded everything ingested by 02:00 holds it whatever the declared lag is.
    assert finish(SEEN, events, known - 1, lag_s=60, ingested_by_us=MONDAY + 2 * HOUR)["seen_count_lifetime"] == 1


def test_a_known_event_after_now_is_in_lifetime_and_in_its_own_tile_but_in_no_later_one() -> None:
    # Ingested at 00:00:00 with a clock 5 minutes ahead (the most that is admitted): minute tile 5, five-minute tile 1.
    events = [event("session", MONDAY + 5 * MINUTE, ingest=MONDAY)]
    early = finish(SEEN, events, MONDAY + 4 * MINUTE)
    assert [early[f"seen_count_{window}"] for window in ("10m", "12h", "12d", "lifetime")] == [0, 0, 1, 1]
    # At 00:00:10 a session dated 00:00:50 lies in the minute that now lies in.
    events = [event("session", MONDAY + 50 * SECOND_US, ingest=MONDAY)]
    assert finish(SEEN, events, MONDAY + 10 * SECOND_US)["seen_count_10m"] == 1


def test_an_event_dated_more_than_five_minutes_after_ingest_does_not_exist_and_claims_no_identity() -> None:
    bad = event("session", MONDAY + 5 * MINUTE + 1, ingest=MONDAY, event_id="e", offset=0)
    copy = bad | {"ingest_time": MONDAY + HOUR, "log_offset": 1}
    assert finish(SEEN, [bad], MONDAY + DAY)["seen_count_lifetime"] == 0
    assert finish(SEEN, [bad, copy], MONDAY + DAY)["seen_count_lifetime"] == 1


def test_the_lowest_offset_of_an_event_id_counts_and_the_horizon_runs_from_the_copy_that_counted() -> None:
    # Copies at 0, 6 d, 7 d (all within 7 days of the first), 7 d + 1 us (counts again), 13 d (within 7 days of that one).
    arrivals = (0, 6 * DAY, DEDUPLICATION_HORIZON_US, DEDUPLICATION_HORIZON_US + 1, 13 * DAY)
    copies = [
        event("payment", MONDAY, ingest=MONDAY + arrival, event_id="e", offset=offset, amount_cents=10**offset)
        for offset, arrival in enumerate(arrivals)
    ]
    finished = finish(PAID, copies[::-1], MONDAY + 20 * DAY)
    assert finished["paid_sum_lifetime"] == 1 + 1_000  # offsets 0 and 3
    assert finish(PAID, copies, MONDAY + DAY)["paid_sum_1d"] == 0  # hour tile 0 of 24 left as 24 h had passed
    assert finish(PAID, copies, MONDAY + DAY - 1)["paid_sum_1d"] == 1


def test_sums_subtract_and_a_maximum_of_negative_values_is_negative() -> None:
    events = [event("refund", MONDAY, amount_cents=-500), event("refund", MONDAY + 1, amount_cents=-200)]
    finished = finish(PAID, events, MONDAY + 2)
    assert (finished["paid_sum_1d"], finished["paid_max_1d"]) == (-700, -200)
    assert finish(PAID, [], MONDAY) == {"paid_sum_1d": 0, "paid_sum_lifetime": 0, "paid_max_1d": 0, "paid_max_lifetime": 0}


def test_an_event_without_the_value_is_no_part_of_the_signal() -> None:
    with_count = replace(PAID, operations=("count", "sum"))
    events = [event("payment", MONDAY, amount_cents=None), event("payment", MONDAY + 1, amount_cents=0)]
    assert finish(with_count, events, MONDAY + 2)["paid_count_1d"] == 1


def test_last_and_first_are_event_times_whatever_the_order_of_arrival() -> None:
    events = [event("session", MONDAY + 5, ingest=MONDAY + 5), event("session", MONDAY + 1, ingest=MONDAY + HOUR)]
    finished = finish(TIMES, events, MONDAY + DAY)
    assert (finished["times_last_30d"], finished["times_first_lifetime"]) == (MONDAY + 5, MONDAY + 1)
    assert finish(TIMES, events, MONDAY + DAY, ingested_by_us=MONDAY + 5)["times_first_lifetime"] == MONDAY + 5
    assert finish(TIMES, [], MONDAY)["times_last_lifetime"] == 0


def test_by_splits_listed_values_and_puts_all_others_under_other() -> None:
    events = [event("opened", MONDAY + n, channel=channel) for n, channel in enumerate(("push", "push", "email", "sms", None))]
    assert finish(PUSHED, events, MONDAY + DAY) == {
        "opened_count_lifetime_other": 2,
        "opened_count_lifetime_email": 1,
        "opened_count_lifetime_push": 2,
    }


def test_hour_of_week_counts_from_monday_midnight_utc() -> None:
    # Monday 00:00 is 0 (its first and last microsecond), Tuesday 01:00 is 25, Sunday 23:59:59.999999 is 167.
    at = (MONDAY, MONDAY + HOUR - 1, MONDAY + 25 * HOUR, MONDAY + 7 * DAY - 1)
    finished = finish(WEEKLY, [event("opened", when) for when in at], MONDAY + 8 * DAY)
    assert {name: count for name, count in finished.items() if count} == {
        "weekly_count_lifetime_h000": 2,
        "weekly_count_lifetime_h025": 1,
        "weekly_count_lifetime_h167": 1,
    }


def test_a_condition_keeps_listed_values_and_a_missing_one_never_matches() -> None:
    events = [event("session", MONDAY + n, platform=platform) for n, platform in enumerate(("ios", "web", None, "android"))]
    assert finish(MOBILE, events, MONDAY + DAY) == {"mobile_count_lifetime": 2}


def test_entities_without_events_and_other_event_types_give_zeros() -> None:
    assert finish(SEEN, [event("payment", MONDAY, amount_cents=1)], MONDAY + 1)["seen_count_lifetime"] == 0
    assert set(Oracle([event("session", MONDAY)], [SEEN], 0).integers("nobody", MONDAY + 1).values()) == {0}
