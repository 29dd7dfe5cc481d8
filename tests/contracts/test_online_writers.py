"""What every online store promises to those who write, follow and erase."""

from __future__ import annotations

import pytest
from contracts.online_values import PARTITIONS, commit, ids_of, put, state
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from features.errors import StoreError
from features.online.store import CHANGELOG_COMMITS, NO_OFFSET, ChangeCursor, CommitConflict, OnlineStore, Watermark


def test_a_fill_of_several_commits_leaves_its_shard_where_it_was_until_the_last(store: OnlineStore) -> None:
    first, second = ids_of(1, 2)
    mine = store.claim(1)
    store.commit(1, {first: state(1)}, {}, Watermark(NO_OFFSET, 0, 0, mine.epoch, filling_to=70), expected_previous=NO_OFFSET)
    assert store.watermark(1) == Watermark(NO_OFFSET, 0, 0, mine.epoch, 70)
    store.commit(1, {second: state(2)}, {}, Watermark(70, 5, 6, mine.epoch), expected_previous=NO_OFFSET)
    assert store.watermark(1) == Watermark(70, 5, 6, mine.epoch, NO_OFFSET)
    assert store.get_many([first, second]).states == [state(1), state(2)]


def test_nobody_goes_on_from_a_half_filled_shard_but_the_fill(store: OnlineStore) -> None:
    mine = store.claim(1)
    store.commit(1, {}, {}, Watermark(NO_OFFSET, 0, 0, mine.epoch, filling_to=70), expected_previous=NO_OFFSET)
    stream = store.claim(1)
    assert stream.filling_to == 70
    with pytest.raises(StoreError, match="half filled.*log offset 70; got log offset 3"):
        store.commit(1, {}, {}, Watermark(3, 1, 1, stream.epoch), expected_previous=NO_OFFSET)
    later = store.claim(1)
    store.commit(1, {}, {}, Watermark(NO_OFFSET, 0, 0, later.epoch, filling_to=90), expected_previous=NO_OFFSET)
    store.commit(1, {}, {}, Watermark(90, 1, 1, later.epoch), expected_previous=NO_OFFSET)
    store.commit(1, {}, {}, Watermark(91, 1, 1, later.epoch), expected_previous=90)


def test_the_promise_of_freshness_does_not_move_backwards(store: OnlineStore) -> None:
    store.commit(0, {}, {}, Watermark(5, 1, 100, 0), expected_previous=NO_OFFSET)
    with pytest.raises(StoreError, match="backwards.*as of >= 100; got log offset 5 as of 99"):
        store.commit(0, {}, {}, Watermark(5, 1, 99, 0), expected_previous=5)


def test_a_subscriber_reads_which_entities_changed_since_its_last_look(store: OnlineStore) -> None:
    a, b, c = ids_of(2, 3)
    assert store.changes(2) == store.changes(2, None)
    assert (store.changes(2).cursor, store.changes(2).complete) == (None, True)
    commit(store, 2, 10, a)
    start = store.changes(2)
    assert (start.entity_ids, start.complete) == ((), False)
    assert start.cursor is not None
    assert start.cursor.log_offset == 10
    commit(store, 2, 11, a, b)
    commit(store, 2, 12, c, b)
    found = store.changes(2, start.cursor)
    assert (set(found.entity_ids), len(found.entity_ids), found.complete) == ({a, b, c}, 3, True)
    again = store.changes(2, found.cursor)
    assert (again.entity_ids, again.cursor, again.complete) == ((), found.cursor, True)


def test_commits_at_one_offset_are_told_apart_in_the_changelog(store: OnlineStore) -> None:
    a, b, c = ids_of(2, 3)
    commit(store, 2, 10, a)
    first = store.changes(2).cursor
    commit(store, 2, 10, b)
    second = store.changes(2, first)
    commit(store, 2, 10, c)
    assert second.entity_ids == (b,)
    assert store.changes(2, second.cursor).entity_ids == (c,)


def test_a_subscriber_that_fell_behind_the_changelog_is_told(store: OnlineStore) -> None:
    name = ids_of(3, 1)[0]
    commit(store, 3, 0, name)
    behind = store.changes(3).cursor
    for offset in range(1, CHANGELOG_COMMITS):
        commit(store, 3, offset, name)
    assert store.changes(3, behind).complete
    commit(store, 3, CHANGELOG_COMMITS, name)
    found = store.changes(3, behind)
    assert not found.complete
    assert found.cursor == store.changes(3).cursor


def test_after_a_fill_a_subscriber_must_look_at_every_entity(store: OnlineStore) -> None:
    name = ids_of(3, 1)[0]
    commit(store, 3, 0, name)
    start = store.changes(3).cursor
    epoch = store.watermark(3).epoch
    store.commit(3, {name: state(2)}, {}, Watermark(0, 0, 0, epoch, filling_to=9), expected_previous=0)
    store.commit(3, {name: state(3)}, {}, Watermark(9, 0, 0, epoch), expected_previous=0)
    found = store.changes(3, start)
    assert not found.complete
    commit(store, 3, 12, name)
    assert store.changes(3, found.cursor).complete


def test_a_cursor_of_a_commit_that_the_store_has_lost_is_not_trusted(store: OnlineStore) -> None:
    commit(store, 0, 10, ids_of(0, 1)[0])
    found = store.changes(0, ChangeCursor(12, 0))
    assert (found.entity_ids, found.complete, found.cursor) == ((), False, store.changes(0).cursor)


def test_an_erased_entity_is_gone_and_the_shard_stays_where_it_was(store: OnlineStore) -> None:
    put(store, {f"u{i}": state(i) for i in range(20)}, {"u3": b"{}", "p": b"{}"})
    marks = [store.watermark(shard) for shard in range(PARTITIONS)]
    assert store.erase(["u3", "p", "u7", "nobody", "u7"]) == 3
    found = store.get_many(["u3", "p", "u7", "u8"])
    assert (found.states, found.profiles) == ([b"", b"", b"", state(8)], [None] * 4)
    assert [store.watermark(shard) for shard in range(PARTITIONS)] == marks
    assert store.erase(["u3", "nobody"]) == 0


def test_an_erasure_is_in_the_changelog_and_does_not_stop_the_writer(store: OnlineStore) -> None:
    a, b = ids_of(1, 2)
    commit(store, 1, 10, a, b)
    start = store.changes(1).cursor
    store.erase([a])
    assert store.changes(1, start).entity_ids == (a,)
    commit(store, 1, 11, b)
    assert set(store.changes(1, start).entity_ids) == {a, b}


class Writers(RuleBasedStateMachine):
    """Writers that are paused, replaced and resumed at any point, beside a model of what may be in the shard."""

    store: OnlineStore

    @initialize()
    def start(self) -> None:
        self.names = ids_of(0, 3)
        before = self.store.claim(0)
        if before.log_offset > NO_OFFSET:
            self.store.erase(self.names)
        self.base = before.log_offset
        self.writers = [before]
        self.position = before
        self.values: dict[str, bytes] = {}

    @rule()
    def take_over(self) -> None:
        self.writers.append(self.store.claim(0))
        self.position = self.writers[-1]

    @rule(which=st.integers(0, 5), steps=st.integers(0, 3), chosen=st.sets(st.integers(0, 2)))
    def commit_by_any_writer(self, which: int, steps: int, chosen: set[int]) -> None:
        """Each writer goes on from the position that it saw last, as a process does that was stopped and resumed."""
        index = which % len(self.writers)
        seen = self.writers[index]
        after = Watermark(seen.log_offset + steps, 0, 0, seen.epoch)
        values = {self.names[i]: state(seen.epoch * 1_000 + after.log_offset) for i in chosen}
        if seen == self.position:
            self.store.commit(0, values, {}, after, expected_previous=seen.log_offset)
            self.values |= values
            self.position = self.writers[index] = after
            return
        with pytest.raises(CommitConflict) as caught:
            self.store.commit(0, values, {}, after, expected_previous=seen.log_offset)
        assert f"expected epoch {seen.epoch} at log offset {seen.log_offset}" in str(caught.value)
        assert f"got epoch {self.position.epoch} at log offset {self.position.log_offset}" in str(caught.value)

    @invariant()
    def the_store_holds_what_the_writers_in_charge_wrote(self) -> None:
        found = self.store.get_many(self.names)
        assert found.states == [self.values.get(name, b"") for name in self.names]
        assert found.watermarks == {0: self.position}


def test_a_paused_and_resumed_writer_never_writes_after_it_was_replaced(store: OnlineStore) -> None:
    # The assertions are the machine's: each replaced writer is refused, and after every step the store is compared.
    machine = type("WritersOfOneStore", (Writers,), {"store": store})
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=20, deadline=None))
