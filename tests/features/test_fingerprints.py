"""Hashes of inputs: one a row, whatever stands beside it, and different where anything differs."""

from __future__ import annotations

import struct
from hashlib import blake2b

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from features.fingerprints import hash_inputs, hash_states, hash_values

VALUES = st.tuples(st.text(max_size=3), st.integers(-(2**63), 2**63 - 1))


def digest(content: bytes) -> int:
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little", signed=True)


@given(st.lists(VALUES, max_size=40))
def test_a_row_of_values_is_hashed_as_its_json_whatever_rows_stand_beside_it(rows: list[tuple[str, int]]) -> None:
    columns = [[text for text, _ in rows], [number for _, number in rows]]
    assert hash_values(columns, len(rows)).tolist() == [digest(orjson.dumps(row)) for row in rows]


@given(st.lists(st.tuples(st.binary(max_size=3), VALUES), min_size=1, max_size=40))
def test_the_inputs_hash_is_that_of_the_three_others(rows: list[tuple[bytes, tuple[str, int]]]) -> None:
    states = hash_states([state for state, _ in rows])
    profiles = hash_values([[text for _, (text, _) in rows]], len(rows))
    asked = hash_values([[number for _, (_, number) in rows]], len(rows))
    expected = [digest(struct.pack("<qqq", *each)) for each in zip(states, profiles, asked, strict=True)]
    assert hash_inputs(states, profiles, [[number for _, (_, number) in rows]]).tolist() == expected


def test_a_view_without_fields_hashes_an_empty_row_for_each() -> None:
    assert hash_values([], 3).tolist() == [digest(b"[]")] * 3
    assert hash_inputs(np.array([1, 2]), np.array([3, 3]), []).shape == (2,)
