"""The split as mathematics: sticky, monotone in the percentage, of the right share, and new for each salt."""

from __future__ import annotations

import random
from math import sqrt

from hypothesis import given
from hypothesis import strategies as st

from inference.plane.document import RANDOM
from inference.plane.routing import BUCKETS, Split, bucket_of

PERCENT = st.integers(0, 100)
ENTITIES = st.lists(st.text(), max_size=30)


def test_a_bucket_is_the_hash_of_service_salt_and_entity() -> None:
    # hashlib.blake2b(b"churn/v2/u1", digest_size=8).hexdigest() is b79f62a2927c1ac7; read as a little-endian number,
    # 0xc71a7c92a2629fb7 = 14_346_916_532_173_578_167. Written down so that no release moves users to other buckets.
    assert bucket_of("churn", "v2", "u1") == 8_167


@given(st.text(), PERCENT, PERCENT)
def test_who_is_in_the_canary_stays_in_it_as_it_grows(entity: str, one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert not (Split("churn", "s", low).takes(entity) and not Split("churn", "s", high).takes(entity))


@given(st.text() | st.none())
def test_nobody_is_in_a_canary_at_zero_and_everybody_in_one_at_a_hundred(entity: str | None) -> None:
    for mode in ("sticky", RANDOM):
        assert not Split("churn", "s", 0, mode).takes(entity)
        assert Split("churn", "s", 100, mode).takes(entity)


@given(ENTITIES, PERCENT, st.sampled_from(["sticky", RANDOM]))
def test_dividing_gives_each_row_to_one_side_in_order(entities: list[str], percent: int, mode: str) -> None:
    stable, canary = Split("churn", "s", percent, mode).divide(entities)
    assert sorted(stable + canary) == list(range(len(entities)))
    assert stable == sorted(stable)
    assert canary == sorted(canary)
    if mode == "sticky":
        assert [row for row, entity in enumerate(entities) if Split("churn", "s", percent).takes(entity)] == canary
    else:
        assert not stable or not canary


@given(st.text(max_size=10), st.integers(1, 99), st.sampled_from(["sticky", RANDOM]))
def test_the_share_is_within_six_standard_errors_of_the_percentage(salt: str, percent: int, mode: str) -> None:
    count = 4_000
    split = Split("churn", salt, percent, mode, random.Random(7))
    share = sum(split.takes(f"user-{number}") for number in range(count)) / count
    expected = percent / 100
    assert abs(share - expected) < 6 * sqrt(expected * (1 - expected) / count)


def test_two_salts_of_one_length_draw_independent_users() -> None:
    # Independent draws of 10 % meet in 1 %: 200 of 20,000, standard deviation 14.
    first, second = Split("churn", "rollout-1", 10), Split("churn", "rollout-2", 10)
    both = sum(first.takes(f"u{number}") and second.takes(f"u{number}") for number in range(20_000))
    assert abs(both - 200) < 6 * 14


def test_a_request_that_names_nobody_goes_to_stable_unless_all_go_to_the_canary() -> None:
    assert not Split("churn", "s", 99).takes(None)
    assert Split("churn", "s", 40).divide([None, "u1"])[0][0] == 0


@given(st.text())
def test_a_bucket_is_in_range_whatever_the_entity(entity: str) -> None:
    assert 0 <= bucket_of("churn", "s", entity) < BUCKETS
