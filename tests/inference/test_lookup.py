from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from features import layout
from features.declarations import Field
from features.errors import StateError, StoreUnavailable
from features.online.guarded import GuardedStore, Limits
from features.online.lmdb import LmdbStore
from features.online.store import EntityIdError, Lookup, Watermark
from features.partitions import partition_of
from inference.lookup import look_up
from inference.requests import ScoreRequest

AS_OF_US = 1_740_830_400_000_000
SLA_S = 3_600
FIELDS = (Field("plan", "string", "unknown"), Field("seats", "int64", 1))


def state(shard: int, offset: int) -> bytes:
    return layout.header_key(shard).to_bytes(8, "little") + offset.to_bytes(8, "little") + bytes([1]) * 16


def name_in(shard: int, prefix: str = "u") -> str:
    return next(f"{prefix}{i}" for i in range(100) if partition_of([f"{prefix}{i}"], 2)[0] == shard)


def request(*names: str, now_us: int = AS_OF_US) -> ScoreRequest:
    return ScoreRequest(list(names), [now_us] * len(names), {"platform": ["ios"] * len(names)}, False)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    with LmdbStore.open(tmp_path / "s", view_key="v@1", view_hash="h", partitions=2, create=True) as opened:
        yield opened


def commit(store: LmdbStore, states: dict[str, bytes], profiles: dict[str, bytes] | None = None) -> None:
    """Fill shard 0 up to offset 90, known as of ``AS_OF_US``, last event ten seconds earlier."""
    store.commit(0, states, profiles or {}, Watermark(90, AS_OF_US - 10_000_000, AS_OF_US, 0), expected_previous=-1)


def test_a_known_entity_names_its_own_last_event_and_a_cold_one_its_shards(store: LmdbStore) -> None:
    known, cold = name_in(0), name_in(0, "x")
    commit(store, {known: state(0, 17)})
    found = look_up(store, request(known, cold), FIELDS, SLA_S)
    assert found.tensors["state"] == [state(0, 17), b""]
    assert found.cold == [False, True]
    assert found.log_partition == [0, 0]
    assert found.log_offset == [17, 90]
    assert found.tensors["platform"] == ["ios", "ios"]


def test_profile_values_that_nobody_knows_take_their_defaults(store: LmdbStore) -> None:
    first, second, third = name_in(0), name_in(0, "x"), name_in(0, "y")
    commit(store, {}, {first: b'{"plan":"pro","seats":3}', second: b'{"plan":null,"other":1}'})
    found = look_up(store, request(first, second, third), FIELDS, SLA_S)
    assert found.tensors["plan"] == ["pro", "unknown", "unknown"]
    assert found.tensors["seats"] == [3, 1, 1]


def test_age_counts_from_the_shards_as_of_time_and_not_from_the_users_last_event(store: LmdbStore) -> None:
    commit(store, {})
    found = look_up(store, request(name_in(0), now_us=AS_OF_US + 90_000_000), FIELDS, SLA_S)
    assert found.age_s == [90.0]
    assert found.degraded == [None]


def test_a_state_is_stale_only_beyond_the_views_promise(store: LmdbStore) -> None:
    commit(store, {})
    at_promise, after = AS_OF_US + SLA_S * 1_000_000, AS_OF_US + SLA_S * 1_000_000 + 1
    assert look_up(store, request(name_in(0), now_us=at_promise), FIELDS, SLA_S).degraded == [None]
    assert look_up(store, request(name_in(0), now_us=after), FIELDS, SLA_S).degraded == ["stale_state"]


def test_a_shard_that_was_never_filled_is_said(store: LmdbStore) -> None:
    commit(store, {})
    found = look_up(store, request(name_in(0), name_in(1)), FIELDS, SLA_S)
    assert found.degraded == [None, "empty_shard"]
    assert found.log_offset == [90, -1]


def test_a_store_that_knows_events_later_than_now_is_said(store: LmdbStore) -> None:
    commit(store, {})
    last_event_us = AS_OF_US - 10_000_000
    assert look_up(store, request(name_in(0), now_us=last_event_us), FIELDS, SLA_S).degraded == [None]
    found = look_up(store, request(name_in(0), now_us=last_event_us - 1), FIELDS, SLA_S)
    assert (found.degraded, found.age_s) == (["state_after_now"], [0.0])


ZONE = (Field("time_zone", "string", "UTC"),)


def test_a_time_zone_that_is_missing_or_that_nobody_knows_is_said_and_utc_itself_is_not(store: LmdbStore) -> None:
    named = [b'{"time_zone":"' + name + b'"}' for name in (b"Mars/Olympus", b"UTC", b"Asia/Tokyo")]
    stored = (None, b'{"time_zone":null}', *named)
    names = [name_in(0, prefix) for prefix in "abcde"]
    commit(store, {}, {name: profile for name, profile in zip(names, stored, strict=True) if profile})
    found = look_up(store, request(*names), ZONE, SLA_S, time_zone="time_zone")
    assert found.degraded == ["missing_time_zone", "missing_time_zone", "unknown_time_zone", None, None]
    assert found.tensors["time_zone"] == ["UTC", "UTC", "Mars/Olympus", "UTC", "Asia/Tokyo"]
    # Hours that are wrong say more than the age of the state; and who reads no local clock is told of none.
    old = request(*names, now_us=AS_OF_US + SLA_S * 1_000_000 + 1)
    assert look_up(store, old, ZONE, SLA_S, time_zone="time_zone").degraded[2:4] == ["unknown_time_zone", "stale_state"]
    assert look_up(store, request(*names), ZONE, SLA_S).degraded == [None] * 5
    assert look_up(store, request(*names), ZONE, SLA_S, time_zone="UTC").degraded == [None] * 5


def test_a_time_zone_of_the_request_is_that_of_all_of_an_entitys_candidates(store: LmdbStore) -> None:
    commit(store, {})
    zones = ["Asia/Tokyo", "Mars/Olympus", "UTC"]
    asked = ScoreRequest([name_in(0), name_in(0, "x")], [AS_OF_US] * 2, {"zone": zones}, False, candidates=[2, None])
    assert look_up(store, asked, (), SLA_S, time_zone="zone").degraded == ["unknown_time_zone", None]


@pytest.mark.parametrize("damaged", [state(1, 5), bytes(16), (2 << 32).to_bytes(8, "little") + bytes(8)])
def test_a_state_with_a_foreign_header_is_never_scored(store: LmdbStore, damaged: bytes) -> None:
    commit(store, {name_in(0): damaged})
    with pytest.raises(StateError, match="stored state is damaged.*header of format 1, partition 0"):
        look_up(store, request(name_in(0)), FIELDS, SLA_S)


def test_a_profile_value_of_another_type_is_never_scored(store: LmdbStore) -> None:
    commit(store, {}, {name_in(0): b'{"seats":"three"}'})
    with pytest.raises(StateError, match="seats; expected int64; got 'three'"):
        look_up(store, request(name_in(0)), FIELDS, SLA_S)


class Silent:
    """A store that answered once and is down now."""

    view_key, partitions = "v@1", 2

    def __init__(self, store: LmdbStore) -> None:
        self.store: LmdbStore | None = store

    def get_many(self, entity_ids: Sequence[str], *, profiles: bool = True) -> Lookup:
        if self.store is None:
            raise StoreUnavailable("down")
        return self.store.get_many(entity_ids, profiles=profiles)


def test_while_the_store_is_down_each_row_says_what_it_rests_on(store: LmdbStore) -> None:
    known, never_read = name_in(0), name_in(1)
    commit(store, {known: state(0, 17)}, {known: b'{"plan":"pro"}'})
    silent = Silent(store)
    guarded = GuardedStore(silent, Limits(), lambda: AS_OF_US)
    look_up(guarded, request(known), FIELDS, SLA_S)
    silent.store = None
    found = look_up(guarded, request(known, never_read), FIELDS, SLA_S)
    assert found.degraded == ["store_unavailable_local_copy", "store_unavailable_defaults"]
    assert found.tensors["state"] == [state(0, 17), b""]
    assert found.tensors["plan"] == ["pro", "unknown"]
    assert (found.cold, found.log_offset, found.log_partition) == ([False, True], [17, -1], [0, 1])


def test_a_view_without_profiles_does_not_read_any(store: LmdbStore) -> None:
    known = name_in(0)
    commit(store, {known: state(0, 17)}, {known: b"damaged"})
    assert look_up(store, request(known), (), SLA_S).cold == [False]


def test_an_impossible_id_is_the_callers_mistake(store: LmdbStore) -> None:
    with pytest.raises(EntityIdError, match="1 to 511 bytes"):
        look_up(store, request(""), FIELDS, SLA_S)
