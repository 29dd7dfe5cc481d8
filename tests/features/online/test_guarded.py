"""The guard over a real LMDB store behind a wire that can be cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from features.errors import StoreUnavailable
from features.online.breaker import CLOSED, HALF_OPEN, OPEN
from features.online.guarded import GuardedStore, Limits
from features.online.lmdb import LmdbStore
from features.online.store import MIXED, Lookup, Watermark

SECOND = 1_000_000
NAMES = ("a", "b", "c")


class Wire:
    """Passes reads on to a store until it is cut, and counts them."""

    view_key, partitions = "v@1", 1

    def __init__(self, store: LmdbStore) -> None:
        self.store = store
        self.cut = False
        self.asked: list[list[str]] = []

    def get_many(self, entity_ids: Sequence[str], *, profiles: bool = True) -> Lookup:
        self.asked.append(list(entity_ids))
        if self.cut:
            raise StoreUnavailable("the wire is cut")
        return self.store.get_many(entity_ids, profiles=profiles)


class Bench:
    """A guarded store with a clock that stands still until it is moved."""

    def __init__(self, store: LmdbStore, **limits: float) -> None:
        self.now_us = 100 * SECOND
        self.store = store
        self.wire = Wire(store)
        self.sources: Counter[str] = Counter()
        chosen = {"failures_to_open": 3, "open_s": 5.0, **limits}
        self.guarded = GuardedStore(self.wire, Limits(**chosen), lambda: self.now_us, self.observe)  # type: ignore[arg-type]

    def observe(self, source: str, count: int) -> None:
        self.sources[source] += count

    def write(self, offset: int, **states: int) -> None:
        before = self.store.watermark(0)
        values = {name: bytes([value]) * 16 for name, value in states.items()}
        after = Watermark(offset, offset, offset, before.epoch)
        self.store.commit(0, values, {}, after, expected_previous=before.log_offset)

    def read(self, *names: str) -> list[int]:
        return [state[0] if state else 0 for state in self.guarded.get_many(names).states]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    with LmdbStore.open(tmp_path / "s", view_key="v@1", view_hash="h", partitions=1, create=True) as opened:
        yield opened


def test_without_a_time_to_live_every_read_goes_to_the_store(store: LmdbStore) -> None:
    bench = Bench(store)
    bench.write(1, a=1)
    assert bench.read("a") == [1]
    bench.write(2, a=2)
    assert bench.read("a") == [2]
    assert bench.sources == {"store": 2}


def test_a_hot_entity_is_not_read_again_within_its_time_to_live(store: LmdbStore) -> None:
    bench = Bench(store, cache_ttl_s=2)
    bench.write(1, a=1, b=1)
    bench.read("a")
    bench.write(2, a=2, b=2)
    bench.now_us += 2 * SECOND
    assert bench.read("a", "b", "a") == [1, 2, 1]
    assert bench.wire.asked == [["a"], ["b"]]
    assert bench.sources == {"store": 2, "cache": 2}
    bench.now_us += 1
    assert bench.read("a") == [2]


def test_a_reply_with_cached_values_stands_at_the_oldest_of_their_positions(store: LmdbStore) -> None:
    bench = Bench(store, cache_ttl_s=2)
    bench.write(1, a=1)
    bench.read("a")
    bench.write(2, b=2)
    found = bench.guarded.get_many(["b", "a", "b"])
    assert found.watermarks[0].log_offset == 1
    assert found.degraded == [None] * 3
    assert bench.guarded.get_many(["b"]).watermarks[0].log_offset == 2


def test_while_the_store_is_down_copies_and_defaults_answer_and_say_so(store: LmdbStore) -> None:
    bench = Bench(store)
    bench.write(7, a=1)
    bench.read("a", "b")
    bench.wire.cut = True
    bench.now_us += 60 * SECOND
    found = bench.guarded.get_many(["c", "a", "b"])
    assert [state[:1] for state in found.states] == [b"", b"\x01", b""]
    assert found.degraded == ["store_unavailable_defaults", "store_unavailable_local_copy", "store_unavailable_local_copy"]
    assert found.watermarks[0].log_offset == 7
    assert bench.sources == {"store": 2, "cache": 0, "local_copy": 2, "defaults": 1}


def test_of_a_shard_that_was_never_read_no_position_is_claimed(store: LmdbStore) -> None:
    bench = Bench(store)
    bench.wire.cut = True
    assert bench.guarded.get_many(["a"]).watermarks == {}


def test_a_copy_that_is_too_old_is_not_used_even_then(store: LmdbStore) -> None:
    bench = Bench(store, copy_age_s=60)
    bench.write(1, a=1)
    bench.read("a")
    bench.wire.cut = True
    bench.now_us += 60 * SECOND
    assert bench.guarded.get_many(["a"]).degraded == ["store_unavailable_local_copy"]
    bench.now_us += 1
    assert bench.guarded.get_many(["a"]).degraded == ["store_unavailable_defaults"]


def test_without_copies_only_defaults_are_left(store: LmdbStore) -> None:
    bench = Bench(store, copies_bytes=0, cache_ttl_s=60)
    bench.write(1, a=1)
    bench.read("a")
    bench.wire.cut = True
    assert bench.guarded.get_many(["a"]).degraded == ["store_unavailable_defaults"]


def test_a_dead_store_is_left_alone_and_then_tried_by_one_read(store: LmdbStore) -> None:
    bench = Bench(store)
    bench.write(1, a=1)
    bench.wire.cut = True
    for _ in range(3):
        bench.read("a")
    assert bench.guarded.breaker.state == OPEN
    for _ in range(50):
        assert bench.guarded.get_many(["a"]).degraded == ["breaker_open_defaults"]
    assert len(bench.wire.asked) == 3
    bench.now_us += 5 * SECOND
    assert bench.guarded.get_many(["a"]).degraded == ["store_unavailable_defaults"]
    assert bench.guarded.get_many(["a"]).degraded == ["breaker_open_defaults"]
    bench.wire.cut = False
    bench.now_us += 5 * SECOND
    found = bench.guarded.get_many(["a"])
    assert (found.states, found.degraded, bench.guarded.breaker.state) == ([b"\x01" * 16], [None], CLOSED)


def test_cached_entities_are_whole_while_the_others_stand_in(store: LmdbStore) -> None:
    bench = Bench(store, cache_ttl_s=2)
    bench.write(1, a=1)
    bench.read("a")
    bench.wire.cut = True
    assert bench.guarded.get_many(["a", "b"]).degraded == [None, "store_unavailable_defaults"]
    assert bench.guarded.breaker.state != HALF_OPEN


def test_values_of_two_fills_name_no_single_time_of_their_profiles(store: LmdbStore) -> None:
    cached = Bench(store, cache_ttl_s=10.0)
    for offset, as_of_us in ((1, 500), (2, 900)):
        mark = store.watermark(0)
        after = Watermark(offset, offset, offset, mark.epoch, profiles_as_of_us=as_of_us)
        store.commit(0, {}, dict.fromkeys(NAMES, b"{}"), after, expected_previous=mark.log_offset)
        read = cached.guarded.get_many(["a"] if offset == 1 else ["a", "b"])
    assert store.get_many(["a"]).watermarks[0].profiles_as_of_us == 900
    assert read.watermarks[0].profiles_as_of_us == MIXED
