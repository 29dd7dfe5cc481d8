"""Folding: any order and any batching give the same bytes; ageing out, lifetimes, `by` keys and negative values."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import layout
from features.codec import body_of, decode_states, encode_states, read_position
from features.declarations import Attribute, By, Catalog, Condition, EventType, Signal, View
from features.errors import StateError
from features.layout import DAY_S, HOUR_S, LIFETIME, MINUTE_S, US_PER_S, pack_key
from features.point_in_time import states_as_known
from features.rows import event_schema
from features.tiles import Tiles, fold, merge, no_tiles, plan_fold

T0 = 1_736_121_600  # 2025-01-06 00:00:00 UTC, a Monday, in seconds

SIGNALS = (
    Signal(
        1, "hits", "user", ("hit",), ("count", "last", "first"), (10 * MINUTE_S, 2 * HOUR_S, 7 * DAY_S, 30 * DAY_S, LIFETIME)
    ),
    Signal(2, "money", "user", ("hit", "refund"), ("sum", "max"), (DAY_S, LIFETIME), value="cents"),
    Signal(3, "by_channel", "user", ("hit",), ("count",), (HOUR_S,), by=By("channel", ("email", "push"))),
    Signal(4, "by_hour", "user", ("hit",), ("count",), (LIFETIME,), by=By("hour_of_week")),
    Signal(5, "push_only", "user", ("hit",), ("count",), (LIFETIME,), where=(Condition("channel", ("push",)),)),
)
CATALOG = Catalog(
    name="test",
    attributes=(Attribute("cents", "int64", unit="cents"), Attribute("channel", "string")),
    event_types=(EventType("hit", "user", ("cents", "channel")), EventType("refund", "user", ("cents",))),
    signals=SIGNALS,
    views=(View("v", 1, "user", tuple(signal.name for signal in SIGNALS), lag_s=60),),
)
PLAN = plan_fold(SIGNALS)
VIEW = CATALOG.view("v")


def table(events: list[dict[str, object]]) -> pa.Table:
    """Event rows from times in seconds after T0; ingest_time defaults to event_time."""
    schema = event_schema(CATALOG.attributes)
    rows = []
    for number, event in enumerate(events):
        at_us = (T0 + int(event["at"])) * US_PER_S
        rows.append(
            {
                "event_id": event.get("id", f"e{number}"),
                "entity_id": event.get("user", "u"),
                "event_type": event.get("type", "hit"),
                "event_time": at_us,
                "ingest_time": (T0 + int(event.get("ingest", event["at"]))) * US_PER_S,
                "region": "global",
                "ingest_day": 0,
                "log_partition": 0,
                "log_offset": event.get("offset", number),
                "cents": event.get("cents"),
                "channel": event.get("channel"),
            }
        )
    return pa.Table.from_pylist(rows, schema=schema)


def bytes_of(tiles: Tiles, users: int = 1) -> list[bytes]:
    return encode_states(tiles, np.zeros(users, np.int64), np.zeros(users, np.int64)).to_pylist()


def one_user(events: list[dict[str, object]]) -> Tiles:
    rows = table(events)
    return fold(no_tiles(), rows, np.zeros(rows.num_rows, np.int64), PLAN)


def found(tiles: Tiles, signal: int, operation: str, resolution: layout.Resolution) -> dict[tuple[int, int], int]:
    """(by, bucket) -> value of one series."""
    series = layout.pack_series(signal, operation, resolution)
    return {
        (int(key >> layout.BY_SHIFT) & layout.MAX_BY, int(key) & layout.BUCKET_MASK): int(value)
        for key, value in zip(tiles.key, tiles.value, strict=True)
        if key >> layout.SERIES_SHIFT == series
    }


EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "at": st.integers(0, 40 * DAY_S),
            "user": st.sampled_from(["a", "b", "c"]),
            "type": st.sampled_from(["hit", "refund"]),
            "cents": st.one_of(st.none(), st.integers(-(10**12), 10**12)),
            "channel": st.sampled_from([None, "email", "push", "sms"]),
        }
    ),
    max_size=60,
)


@given(events=EVENTS, data=st.data())
def test_any_order_and_any_batching_give_the_same_bytes(events: list[dict[str, object]], data: st.DataObject) -> None:
    rows = table(events)
    owner = np.array([ord(str(event["user"])) - ord("a") for event in events], dtype=np.int64)
    at_once = bytes_of(fold(no_tiles(), rows, owner, PLAN), 3)
    order = np.array(data.draw(st.permutations(range(len(events)))), dtype=np.int64)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=5)))
    state = no_tiles()
    for batch in np.split(order, cuts):
        state = fold(state, rows.take(pa.array(batch)), owner[batch], PLAN)
    assert bytes_of(state, 3) == at_once


@given(events=EVENTS, at=st.integers(0, 41 * DAY_S), delays=st.lists(st.integers(0, 3 * DAY_S), min_size=60, max_size=60))
def test_a_replay_as_of_t_equals_a_fold_of_what_had_been_ingested_by_t(
    events: list[dict[str, object]], at: int, delays: list[int]
) -> None:
    events = [{**event, "ingest": int(str(event["at"])) + delay} for event, delay in zip(events, delays, strict=False)]
    now_us = np.array([(T0 + at) * US_PER_S] * 3)
    replayed = states_as_known(table(events), CATALOG, VIEW, pa.array(["a", "b", "c"]), now_us).to_pylist()
    for user, state in zip("abc", replayed, strict=True):
        known = [event for event in events if event["user"] == user and int(str(event["ingest"])) + VIEW.lag_s <= at]
        assert body_of(state) == body_of(bytes_of(one_user(known))[0])


@given(
    events=EVENTS,
    at=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 41 * DAY_S)), min_size=1, max_size=40),
    delays=st.lists(st.integers(0, 20 * DAY_S), min_size=60, max_size=60),
)
def test_a_replay_of_many_rows_an_entity_equals_a_fold_for_each_row(
    events: list[dict[str, object]], at: list[tuple[str, int]], delays: list[int]
) -> None:
    """Late events too: they change old tiles, arrive after their tile has aged out, and leave the head where it is."""
    events = [{**event, "ingest": int(str(event["at"])) + delay} for event, delay in zip(events, delays, strict=False)]
    ids, now_us = pa.array([user for user, _ in at]), np.array([(T0 + moment) * US_PER_S for _, moment in at])
    replayed = states_as_known(table(events), CATALOG, VIEW, ids, now_us).to_pylist()
    for (user, moment), state in zip(at, replayed, strict=True):
        known = [event for event in events if event["user"] == user and int(str(event["ingest"])) + VIEW.lag_s <= moment]
        assert body_of(state) == body_of(bytes_of(one_user(known))[0])


def test_rows_of_one_entity_at_many_times_each_see_only_their_own_past() -> None:
    events = [{"at": 100 * step, "user": "a", "channel": "push"} for step in range(50)]
    moments = np.arange(0, 6000, 37)[::-1]
    ids = pa.array(["a"] * len(moments))
    states = states_as_known(table(events), CATALOG, VIEW, ids, (T0 + moments) * US_PER_S).to_pylist()
    counts = [found(decode_states([state]), 5, "count", layout.LIFETIME_TILES).get((0, 0), 0) for state in states]
    # Event k happens at 100 k and is known from 100 k + 60 on.
    assert counts == [min(max((int(moment) - 60) // 100 + 1, 0), 50) if moment >= 60 else 0 for moment in moments]


def test_the_header_names_the_last_event_that_a_row_had_seen() -> None:
    events = [{"at": 0, "offset": 7}, {"at": 500, "offset": 9}, {"at": 1000, "offset": 12}]
    now_us = np.array([(T0 + moment) * US_PER_S for moment in (10, 60, 999, 2000)])
    states = states_as_known(table(events), CATALOG, VIEW, pa.array(["u"] * 4), now_us).to_pylist()
    assert states[0] == b""
    assert [position and position.log_offset for position in map(read_position, states)] == [None, 7, 9, 12]


def test_tiles_older_than_the_head_by_more_than_the_longest_window_age_out() -> None:
    # Minute tiles serve 10 minutes and 5 minutes of clock surplus: 15 buckets are kept.
    tiles = one_user([{"at": 0}, {"at": 60}, {"at": 15 * 60}])
    first = T0 // 60
    assert sorted(bucket - first for _, bucket in found(tiles, 1, "count", layout.MINUTE_TILES)) == [1, 15]
    assert found(tiles, 1, "count", layout.LIFETIME_TILES) == {(0, 0): 3}


def test_a_series_ages_out_by_its_own_head_so_that_a_new_signal_changes_no_other_tile() -> None:
    quiet_then_refund = [{"at": 0, "channel": "email"}, {"at": 39 * DAY_S, "type": "refund", "cents": -5}]
    tiles = one_user(quiet_then_refund)
    assert found(tiles, 3, "count", layout.MINUTE_TILES) == {(1, T0 // 60): 1}


def test_an_event_that_comes_late_counts_where_it_happened() -> None:
    early_last = one_user([{"at": 3600}, {"at": 0}])
    assert bytes_of(early_last) == bytes_of(one_user([{"at": 0}, {"at": 3600}]))
    assert found(early_last, 1, "last", layout.LIFETIME_TILES) == {(0, 0): (T0 + 3600) * US_PER_S}
    assert found(early_last, 1, "first", layout.LIFETIME_TILES) == {(0, 0): T0 * US_PER_S}


def test_negative_values_add_up_and_a_maximum_of_negatives_is_negative() -> None:
    tiles = one_user([{"at": 0, "cents": -300}, {"at": 1, "cents": -100, "type": "refund"}])
    assert found(tiles, 2, "sum", layout.LIFETIME_TILES) == {(0, 0): -400}
    assert found(tiles, 2, "max", layout.LIFETIME_TILES) == {(0, 0): -100}


def test_an_event_without_the_value_is_not_part_of_the_signal() -> None:
    tiles = one_user([{"at": 0, "cents": None}])
    assert found(tiles, 2, "max", layout.LIFETIME_TILES) == {}
    assert found(tiles, 1, "count", layout.LIFETIME_TILES) == {(0, 0): 1}


def test_by_keys_split_a_signal_and_unlisted_values_are_other() -> None:
    tiles = one_user([{"at": 0, "channel": "email"}, {"at": 1, "channel": "push"}, {"at": 2, "channel": "sms"}, {"at": 3}])
    assert {by: value for (by, _), value in found(tiles, 3, "count", layout.MINUTE_TILES).items()} == {0: 2, 1: 1, 2: 1}


def test_hour_of_week_counts_from_monday_midnight_in_utc() -> None:
    tiles = one_user([{"at": 0}, {"at": 3599}, {"at": 3600}, {"at": 7 * DAY_S - 1}])
    assert {by: value for (by, _), value in found(tiles, 4, "count", layout.LIFETIME_TILES).items()} == {0: 2, 1: 1, 167: 1}


def test_tiles_of_a_signal_that_the_plan_does_not_know_are_carried_along() -> None:
    unknown = pack_key(900, "max", layout.DAY_TILES, 3, T0 // DAY_S)
    stranger = Tiles(np.zeros(1, np.int64), np.array([unknown]), np.array([41]))
    merged = merge(one_user([{"at": 0}]), merge(stranger, Tiles(stranger.owner, stranger.key, stranger.value + 1), PLAN), PLAN)
    assert found(merged, 900, "max", layout.DAY_TILES) == {(3, T0 // DAY_S): 42}
    assert found(merged, 1, "count", layout.LIFETIME_TILES) == {(0, 0): 1}


def test_owners_and_keys_too_wide_to_pack_are_ranked_instead() -> None:
    far = np.array([0, (1 << 40), (1 << 40)])
    keys = np.array(
        [pack_key(layout.MAX_SIGNAL_ID, "count", layout.DAY_TILES, layout.MAX_BY, bucket) for bucket in (1, 1, 2**31)]
    )
    state = merge(no_tiles(), Tiles(far, keys, np.array([1, 2, 3])), PLAN)
    again = merge(state, Tiles(far[1:2], keys[1:2], np.array([10])), PLAN)
    assert again.value.tolist() == [1, 12, 3]


def test_state_bytes_are_these() -> None:
    """Golden: one refund of -5 cents at T0 for partition 3, offset 77.

    Header key: version 1 << 32 | 3. Sum over 1 d uses 1 h tiles (resolution 2), bucket 1736121600 / 3600 = 482256.
    Key of (signal 2, sum = 1, 1 h = 2): (2 << 48) | (1 << 45) | (2 << 42) | 482256; of its lifetime (4): (2 << 48) |
    (1 << 45) | (4 << 42); `max` is operation 2.
    """
    rows = table([{"at": 0, "type": "refund", "cents": -5}])
    state = encode_states(fold(no_tiles(), rows, np.zeros(1, np.int64), PLAN), np.array([3]), np.array([77]))[0].as_py()
    expected = [
        ((1 << 32) | 3, 77),
        ((2 << 48) | (1 << 45) | (2 << 42) | 482_256, -5),
        ((2 << 48) | (1 << 45) | (4 << 42), -5),
        ((2 << 48) | (2 << 45) | (2 << 42) | 482_256, -5),
        ((2 << 48) | (2 << 45) | (4 << 42), -5),
    ]
    assert state == b"".join(number.to_bytes(8, "little", signed=True) for record in expected for number in record)


@pytest.mark.parametrize(
    ("state", "expected", "got"),
    [
        (b"12345", "a multiple of 16 bytes", "5 bytes"),
        (bytes(16), "a header of format 1", "key 0x0"),
        (
            b"".join(n.to_bytes(8, "little") for n in (1 << 32, 0, 1 << 49, 1, 1 << 48, 1)),
            "ascending keys",
            "0x1000000000000 after",
        ),
    ],
)
def test_unusable_state_bytes_are_refused_in_one_line(state: bytes, expected: str, got: str) -> None:
    with pytest.raises(StateError, match="state number 1") as refused:
        decode_states([b"", state])
    assert expected in str(refused.value)
    assert got in str(refused.value)
    assert "\n" not in str(refused.value)
