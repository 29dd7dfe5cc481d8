"""What stands in a logged prediction for the graph's inputs: 64 bits of BLAKE2b over bytes that any path can make again.

``state`` is hashed as its bytes, header included: equal hashes mean equal tiles and the same last event. Values are hashed
as the JSON array of one row, fields in the view's order, as the graph was given them, defaults filled in. The inputs' hash
covers these two and the request's values, so it says whether anything differed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

Ints = NDArray[np.int64]

HASH_BYTES: Final = 8
_THREE: Final = struct.Struct("<qqq")


def hash_states(states: Sequence[bytes]) -> Ints:
    """(n,) one number for each state's bytes."""
    return _hash(states)


def hash_values(columns: Sequence[Sequence[Any]], rows: int) -> Ints:
    """(n,) one number for each row of values.

    Args:
        columns: one sequence of n texts or integers for each field, in the view's order.
        rows: n, which a view without fields cannot tell.
    """
    if not columns:
        return np.repeat(_hash([b"[]"]), rows)
    # Profiles and candidates repeat a lot: what is distinct is hashed once.
    first, place = _find_distinct([pa.array(column) for column in columns])
    distinct = [[column[row] for row in first] for column in columns]
    return _hash(list(map(orjson.dumps, zip(*distinct, strict=True))))[place]


def hash_inputs(state_hash: Ints, profile_hash: Ints, request: Sequence[Sequence[Any]]) -> Ints:
    """(n,) one number for all that the graph was given but ``now``.

    Args:
        request: one sequence of n values for each request field, in the view's order.
    """
    asked = hash_values(request, len(state_hash))
    first, place = _find_distinct([pa.array(column) for column in (state_hash, profile_hash, asked)])
    rows = zip(state_hash[first].tolist(), profile_hash[first].tolist(), asked[first].tolist(), strict=True)
    return _hash([_THREE.pack(*row) for row in rows])[place]


def _find_distinct(columns: Sequence[pa.Array]) -> tuple[list[int], Ints]:
    """The first row of each distinct row, and for every row which of these it equals."""
    place = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        values = column.dictionary_encode()
        codes = place * len(values.dictionary) + values.indices.to_numpy()
        place = pa.array(codes).dictionary_encode().indices.to_numpy().astype(np.int64)
    first = np.empty(int(place.max(initial=-1)) + 1, np.int64)
    first[place[::-1]] = np.arange(len(place))[::-1]
    return first.tolist(), place


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=HASH_BYTES).digest()


def _hash(contents: Sequence[bytes]) -> Ints:
    return np.frombuffer(b"".join(map(_digest, contents)), "<i8")
