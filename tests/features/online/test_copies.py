from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from features.online.copies import LocalCopies
from features.online.store import Lookup, Watermark

MARK = Watermark(5, 5, 5, 1)


def found(count: int, size: int = 100) -> Lookup:
    return Lookup([bytes(size)] * count, [None] * count, [0] * count, {0: MARK}, [None] * count)


def make(max_bytes: int = 1 << 20, max_age_us: int = 1_000_000) -> LocalCopies:
    return LocalCopies(max_bytes, max_age_us)


def kept(copies: LocalCopies, *names: str, since_us: int = 0, now_us: int = 0) -> list[bool]:
    return [copy is not None for copy in copies.get_many(names, since_us=since_us, now_us=now_us, profiles=False)]


def put(copies: LocalCopies, *names: str, size: int = 100, now_us: int = 0) -> None:
    copies.put_many(names, found(len(names), size), now_us=now_us, profiles=False)


def test_what_was_read_lately_stays_and_the_rest_goes() -> None:
    """A copy takes about 500 bytes and a generation a third of 40,000: it is full after some 25."""
    copies = make(40_000)
    for number in range(100):
        put(copies, "hot", f"{number:02d}")
    assert kept(copies, "hot", "99", "95", "00", "40") == [True, True, True, False, False]
    assert copies.used_bytes <= 40_000


def test_reading_the_same_entities_again_takes_no_more_room() -> None:
    copies = make(40_000)
    put(copies, "early")
    for _ in range(1_000):
        put(copies, "a", "b", "c")
    assert kept(copies, "early", "a") == [True, True]


def test_a_copy_is_as_young_as_its_last_reading() -> None:
    copies = make()
    put(copies, "a", "b", now_us=10)
    put(copies, "a", now_us=20)
    assert kept(copies, "a", "b", since_us=20) == [True, False]


def test_a_copy_beyond_its_age_is_neither_given_out_nor_held_for_ever() -> None:
    copies = make(max_age_us=100)
    put(copies, "a", now_us=1_000)
    assert kept(copies, "a", now_us=1_100) == [True]
    assert kept(copies, "a", now_us=1_101) == [False]
    put(copies, "b", now_us=1_200)
    put(copies, "c", now_us=1_300)
    assert len(copies) < 3


def test_a_batch_too_large_to_be_kept_is_not() -> None:
    copies = make(4_000)
    put(copies, "a", "b", "c")
    assert len(copies) == 0


def test_a_copy_without_profile_does_not_stand_for_one_with_it() -> None:
    copies = make()
    put(copies, "a")
    assert copies.get_many(["a"], since_us=0, now_us=0, profiles=True) == [None]
    copies.put_many(["a"], found(1), now_us=0, profiles=True)
    assert kept(copies, "a") == [True]


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 2_000)), max_size=60))
def test_copies_never_take_more_bytes_than_allowed(puts: list[tuple[str, int]]) -> None:
    copies = make(16_000)
    for name, size in puts:
        put(copies, name, size=size)
        assert 0 <= copies.used_bytes <= 16_000
        assert kept(copies, name) == [True]


def test_the_overhead_counted_for_a_copy_covers_what_python_takes() -> None:
    """Distinct ids and states, as they come from a store; measured, because it sizes a server's memory."""
    count, size = 20_000, 400
    copies = make(1 << 30)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for first in range(0, count, 100):
        names = [f"user-{number:09d}" for number in range(first, first + 100)]
        states = [number.to_bytes(size, "little") for number in range(first, first + 100)]
        lookup = Lookup(states, [None] * 100, [0] * 100, {0: MARK}, [None] * 100)
        copies.put_many(names, lookup, now_us=1 << 50, profiles=False)
    taken = (tracemalloc.get_traced_memory()[0] - before) / count
    tracemalloc.stop()
    assert taken <= copies.used_bytes / count <= 1.5 * taken
