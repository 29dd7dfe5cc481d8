"""What every online store promises; a new adapter adds itself to ``conftest.ADAPTERS`` and passes all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

import pytest
from contracts.online_values import PARTITIONS, ids_of, put, shard_of, state
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.errors import StoreError
from features.online.store import NO_OFFSET, CommitConflict, OnlineStore, Watermark
from features.partitions import partition_of

OpenStore = Callable[..., OnlineStore]


def test_a_read_keeps_the_order_of_the_ids_and_allows_repeats(store: OnlineStore) -> None:
    put(store, {f"u{i}": state(i) for i in range(20)}, {"u3": b'{"plan":"pro"}'})
    wanted = ["u3", "u17", "nobody", "u3", "u0"]
    found = store.get_many(wanted)
    assert found.states == [state(3), state(17), b"", state(3), state(0)]
    assert found.profiles == [b'{"plan":"pro"}', None, None, b'{"plan":"pro"}', None]
    assert found.shards == [shard_of(name) for name in wanted]


def test_small_and_large_reads_answer_alike(store: OnlineStore) -> None:
    put(store, {f"u{i}": state(i) for i in range(100)}, {f"u{i}": b"{}" for i in range(0, 100, 3)})
    wanted = [f"u{i}" for i in range(150)]
    together = store.get_many(wanted)
    singly = [store.get_many([name]) for name in wanted]
    assert together.states == [one.states[0] for one in singly]
    assert together.profiles == [one.profiles[0] for one in singly]


def test_a_read_of_nothing_is_empty(store: OnlineStore) -> None:
    found = store.get_many([])
    assert (found.states, found.profiles, found.shards, found.watermarks, found.degraded) == ([], [], [], {}, [])


def test_a_view_without_profiles_can_leave_them_unread(store: OnlineStore) -> None:
    put(store, {"u1": state(1)}, {"u1": b"{}", "u2": b"{}"})
    found = store.get_many(["u1", "u2"], profiles=False)
    assert (found.states, found.profiles) == ([state(1), b""], [None, None])


def test_what_a_store_gives_is_never_degraded(store: OnlineStore) -> None:
    put(store, {"u1": state(1)})
    assert store.get_many(["u1", "nobody"]).degraded == [None, None]


def test_an_empty_store_stands_before_the_first_offset(store: OnlineStore) -> None:
    found = store.get_many(["u1"])
    assert found.watermarks == {shard_of("u1"): Watermark(NO_OFFSET, 0, 0, 0)}
    assert found.states == [b""]


def test_a_reply_carries_the_position_of_each_shard_that_was_read(store: OnlineStore) -> None:
    put(store, {}, offset=7)
    names = [ids_of(shard, 1)[0] for shard in (1, 3)]
    assert store.get_many(names).watermarks == {shard: Watermark(7, 7_000_000, 14_000_000, 0) for shard in (1, 3)}


def test_the_shard_of_an_entity_is_its_log_partition(store: OnlineStore) -> None:
    names = [f"client-{i}-é" for i in range(200)]
    assert store.get_many(names).shards == partition_of(names, PARTITIONS).tolist()
    assert store.get_many(["é"]).shards == [crc32("é".encode()) % PARTITIONS]


def test_an_empty_value_erases_the_entity(store: OnlineStore) -> None:
    put(store, {"u1": state(1), "u2": state(2)}, {"u1": b"{}"})
    put(store, {"u1": b"", "gone": b""}, {"u1": b""}, offset=11)
    found = store.get_many(["u1", "u2", "gone"])
    assert found.states == [b"", state(2), b""]
    assert found.profiles == [None, None, None]


def test_values_survive_closing_and_opening(open_store: OpenStore) -> None:
    with open_store() as first:
        put(first, {"u1": state(1)})
    with open_store(create=False, readonly=True) as second:
        assert second.get_many(["u1"]).states == [state(1)]
        assert second.watermark(shard_of("u1")) == Watermark(10, 10_000_000, 20_000_000, 0)


def test_a_commit_from_an_unexpected_offset_writes_nothing(store: OnlineStore) -> None:
    name = ids_of(2, 1)[0]
    put(store, {name: state(1)})
    with pytest.raises(CommitConflict, match="epoch 0 at log offset 9; got epoch 0 at log offset 10"):
        store.commit(2, {name: state(2)}, {name: b"{}"}, Watermark(11, 1, 1, 0), expected_previous=9)
    found = store.get_many([name])
    assert (found.states, found.profiles, found.watermarks[2].log_offset) == ([state(1)], [None], 10)


def test_a_writer_that_was_replaced_cannot_write_even_from_the_right_offset(store: OnlineStore) -> None:
    name = ids_of(0, 1)[0]
    zombie, heir = store.claim(0), store.claim(0)
    assert (zombie.epoch, heir.epoch) == (1, 2)
    with pytest.raises(CommitConflict, match="epoch 1 .* got epoch 2"):
        store.commit(0, {name: state(1)}, {}, Watermark(5, 1, 1, zombie.epoch), expected_previous=zombie.log_offset)
    store.commit(0, {name: state(2)}, {}, Watermark(5, 1, 1, heir.epoch), expected_previous=heir.log_offset)
    assert store.get_many([name]).states == [state(2)]
    assert store.claim(0) == Watermark(5, 1, 1, 3)


def test_a_shard_does_not_move_backwards(store: OnlineStore) -> None:
    put(store, {}, offset=10)
    with pytest.raises(StoreError, match="backwards"):
        store.commit(0, {}, {}, Watermark(9, 1, 1, 0), expected_previous=10)


def test_an_entity_of_another_shard_is_refused_whole(store: OnlineStore) -> None:
    own, foreign = ids_of(0, 1)[0], ids_of(1, 1)[0]
    with pytest.raises(StoreError, match="expected shard 0; got shard 1"):
        store.commit(0, {own: state(1), foreign: state(2)}, {}, Watermark(1, 1, 1, 0), expected_previous=NO_OFFSET)
    assert store.get_many([own]).states == [b""]
    assert store.watermark(0) == Watermark()


def test_a_truncated_state_is_refused(store: OnlineStore) -> None:
    with pytest.raises(StoreError, match="state is truncated.* got 31 bytes"):
        store.commit(0, {ids_of(0, 1)[0]: state(1)[:-1]}, {}, Watermark(1, 1, 1, 0), expected_previous=NO_OFFSET)


@pytest.mark.parametrize(
    ("name", "reason"), [("", "got 0 bytes"), ("x" * 512, "got 512 bytes"), ("é" * 256, "got 512 bytes"), ("\ud800", "UTF-8")]
)
def test_an_id_that_no_store_can_hold_is_refused(store: OnlineStore, name: str, reason: str) -> None:
    with pytest.raises(StoreError, match=reason) as caught:
        store.get_many(["u1", name])
    assert "\n" not in str(caught.value)


def test_the_longest_id_is_stored(store: OnlineStore) -> None:
    name = "é" * 255 + "x"
    put(store, {name: state(9)})
    assert store.get_many([name]).states == [state(9)]


def test_stores_of_two_views_do_not_meet(open_store: OpenStore) -> None:
    with open_store("one") as one, open_store("two", view_key="buyer@2", view_hash="def") as two:
        put(one, {"u1": state(1)})
        assert two.get_many(["u1"]).states == [b""]


def test_two_views_of_one_model_are_read_together(open_store: OpenStore) -> None:
    with open_store() as buyers, open_store("items", view_key="item@3", view_hash="def") as items:
        put(buyers, {"u1": state(1), "u2": state(2)}, {"u2": b"{}"}, offset=7)
        put(items, {"u1": state(3), "book": state(4)}, offset=9)
        of_buyers, of_items = buyers.get_views([(buyers, ["u2", "nobody"]), (items, ["book", "u1", "book"])])
    assert (of_buyers.states, of_buyers.profiles) == ([state(2), b""], [b"{}", None])
    assert {mark.log_offset for mark in of_buyers.watermarks.values()} == {7}
    assert (of_items.states, of_items.profiles) == ([state(4), state(3), state(4)], [None] * 3)
    assert {mark.log_offset for mark in of_items.watermarks.values()} == {9}
    assert of_items.shards == [shard_of("book"), shard_of("u1"), shard_of("book")]


def test_a_store_opened_for_reading_is_not_written(open_store: OpenStore) -> None:
    open_store().close()
    with open_store(create=False, readonly=True) as reader:
        for write in (lambda: reader.claim(0), lambda: reader.erase(["u1"])):
            with pytest.raises(StoreError, match="opened for reading"):
                write()


@pytest.mark.parametrize("readonly", [True, False])
def test_a_store_that_nobody_made_is_not_made_by_a_reader(open_store: OpenStore, readonly: bool) -> None:
    with pytest.raises(StoreError, match="does not exist.*materialize"):
        open_store(create=readonly, readonly=readonly)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"view_hash": "other"}, "another view hash.*expected 'other'; got 'abc'"),
        ({"partitions": 2}, "another partitions: .*expected 2; got 4"),
    ],
)
def test_a_store_of_another_view_is_refused(open_store: OpenStore, changes: dict[str, Any], expected: str) -> None:
    open_store().close()
    with pytest.raises(StoreError, match=expected):
        open_store(create=False, **changes)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.dictionaries(st.text(min_size=1, max_size=8).filter(lambda s: s.isprintable()), st.integers(0, 3), max_size=12),
        min_size=1,
        max_size=4,
    )
)
def test_after_any_commits_a_read_gives_the_last_value_of_every_id(
    open_store: OpenStore, tmp_path_factory: pytest.TempPathFactory, commits: list[dict[str, int]]
) -> None:
    expected: dict[str, int] = {}
    with open_store(str(tmp_path_factory.mktemp("any") / "store")) as store:
        for offset, values in enumerate(commits):
            put(store, {name: state(value, records=value) for name, value in values.items()}, offset=offset)
            expected |= values
        names = [*expected, "never"]
        wanted = [state(expected.get(name, 0), records=expected.get(name, 0)) for name in names]
        assert store.get_many(names).states == wanted


def test_a_store_names_every_entity_with_a_state_or_profile_values_page_by_page(store: OnlineStore) -> None:
    put(store, {f"u{i}": state(i) for i in range(100)}, {f"u{i}": b"{}" for i in range(90, 120)})
    named = [list(store.entities(shard, page=7)) for shard in range(PARTITIONS)]
    assert sorted({name for pages in named for page in pages for name in page}) == sorted(f"u{i}" for i in range(120))
    assert all(shard_of(name) == shard for shard, pages in enumerate(named) for page in pages for name in page)
    store.erase(["u5", "u119"])
    left = {name for shard in range(PARTITIONS) for page in store.entities(shard) for name in page}
    assert left == {f"u{i}" for i in range(120)} - {"u5", "u119"}


def test_an_empty_store_names_nobody(store: OnlineStore) -> None:
    assert not [name for shard in range(PARTITIONS) for page in store.entities(shard) for name in page]
