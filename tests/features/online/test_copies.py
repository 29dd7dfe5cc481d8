from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from features.online.copies import OVERHEAD_BYTES, LocalCopies
from features.online.store import Lookup, Watermark

MARK = Watermark(5, 5, 5, 1)


def found(count: int, size: int = 100) -> Lookup:
    return Lookup([bytes(size)] * count, [None] * count, [0] * count, {0: MARK}, [None] * count)


def kept(copies: LocalCopies, *names: str, since_us: int = 0) -> list[bool]:
    return [copy is not None for copy in copies.get_many(names, since_us=since_us, profiles=False)]


def test_the_least_recently_used_go_first() -> None:
    copies = LocalCopies(3 * (OVERHEAD_BYTES + 101))
    copies.put_many(["a", "b", "c"], found(3), read_us=0, profiles=False)
    assert kept(copies, "a") == [True]
    copies.put_many(["d"], found(1), read_us=0, profiles=False)
    assert kept(copies, "a", "b", "c", "d") == [True, False, True, True]


def test_a_copy_is_as_young_as_its_last_reading() -> None:
    copies = LocalCopies(1 << 20)
    copies.put_many(["a", "b"], found(2), read_us=10, profiles=False)
    copies.put_many(["a"], found(1), read_us=20, profiles=False)
    assert kept(copies, "a", "b", since_us=20) == [True, False]


def test_a_copy_without_profile_does_not_stand_for_one_with_it() -> None:
    copies = LocalCopies(1 << 20)
    copies.put_many(["a"], found(1), read_us=0, profiles=False)
    assert copies.get_many(["a"], since_us=0, profiles=True) == [None]
    copies.put_many(["a"], found(1), read_us=0, profiles=True)
    assert kept(copies, "a") == [True]


def test_dropped_copies_are_gone_and_take_no_bytes() -> None:
    copies = LocalCopies(1 << 20)
    copies.put_many(["a", "b", "c"], found(3), read_us=0, profiles=False)
    copies.drop(["a", "nobody"])
    assert kept(copies, "a", "b", "c") == [False, True, True]
    copies.drop(["b", "c"])
    assert (len(copies), copies.used_bytes) == (0, 0)


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 2_000)), max_size=60))
def test_copies_never_take_more_bytes_than_allowed(puts: list[tuple[str, int]]) -> None:
    copies = LocalCopies(4_000)
    for name, size in puts:
        copies.put_many([name], found(1, size), read_us=0, profiles=False)
        assert 0 <= copies.used_bytes <= 4_000
        assert kept(copies, name) == [True]


def test_the_overhead_counted_for_a_copy_covers_what_python_takes() -> None:
    """Distinct ids and states, as they come from a store; measured, because it sizes a server's memory."""
    count, size = 20_000, 400
    copies = LocalCopies(1 << 30)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for first in range(0, count, 100):
        names = [f"user-{number:09d}" for number in range(first, first + 100)]
        states = [number.to_bytes(size, "little") for number in range(first, first + 100)]
        lookup = Lookup(states, [None] * 100, [0] * 100, {0: MARK}, [None] * 100)
        copies.put_many(names, lookup, read_us=1 << 50, profiles=False)
    taken = (tracemalloc.get_traced_memory()[0] - before) / count
    tracemalloc.stop()
    assert taken <= copies.used_bytes / count <= 1.5 * taken
