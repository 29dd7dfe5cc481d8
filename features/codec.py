"""State bytes: tiles and a header record as 16-byte records, and back.

A state is ``header | tile | tile | ...``, each record two little-endian int64 (key, value), keys ascending. The header
is the record with signal id 0: its key holds the format version and the log partition, its value the log offset of the
entity's last folded event. An entity without tiles is the empty string.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features import layout
from features.errors import StateError, explain
from features.tiles import Ints, Tiles


@dataclass(frozen=True)
class Position:
    """Where an entity's log had been read to when its state was written."""

    log_partition: int
    log_offset: int


def encode_states(tiles: Tiles, log_partition: Ints, log_offset: Ints) -> pa.LargeBinaryArray:
    """The state bytes of owners 0 to n - 1.

    Args:
        tiles: sorted tiles whose owners are below n.
        log_partition: (n,) partition of each owner's log.
        log_offset: (n,) offset of each owner's last folded event.
    Returns:
        (n,) binary values; an owner without tiles is empty.
    """
    count = np.bincount(tiles.owner, minlength=len(log_partition))
    present = count > 0
    records = count + present
    end = np.cumsum(records)
    start = end - records
    data = np.empty((int(end[-1]) if len(end) else 0, 2), dtype="<i8")
    headers = start[present]
    data[headers, 0] = layout.header_key(0) | log_partition[present]
    data[headers, 1] = log_offset[present]
    body = np.ones(len(data), dtype=bool)
    body[headers] = False
    data[body, 0] = tiles.key
    data[body, 1] = tiles.value
    offsets = np.concatenate(([0], end)).astype(np.int64) * layout.RECORD_BYTES
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(count), [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def decode_states(states: list[bytes] | pa.LargeBinaryArray) -> Tiles:
    """The tiles of many states, owners numbered in order; headers are checked and left out.

    Raises:
        StateError: a state is truncated, has no header of this format version, or its keys do not ascend.
    """
    if not isinstance(states, list):
        states = states.to_pylist()
    lengths = np.fromiter(map(len, states), dtype=np.int64, count=len(states))
    ragged = np.flatnonzero(lengths % layout.RECORD_BYTES)
    if len(ragged):
        raise _bad_state(int(ragged[0]), "a multiple of 16 bytes", f"{lengths[ragged[0]]} bytes")
    data = np.frombuffer(b"".join(states), dtype="<i8").reshape(-1, 2)
    owner = np.repeat(np.arange(len(states)), lengths // layout.RECORD_BYTES)
    first = np.concatenate(([True], owner[1:] != owner[:-1])) if len(owner) else np.empty(0, dtype=bool)
    version = data[first, 0] & ~np.int64(layout.BUCKET_MASK)
    wrong = np.flatnonzero(version != layout.header_key(0))
    if len(wrong):
        raise _bad_state(
            int(owner[first][wrong[0]]), f"a header of format {layout.FORMAT_VERSION}", f"key {data[first, 0][wrong[0]]:#x}"
        )
    unsorted = np.flatnonzero((data[1:, 0] <= data[:-1, 0]) & ~first[1:]) if len(data) else np.empty(0, dtype=np.int64)
    if len(unsorted):
        raise _bad_state(
            int(owner[unsorted[0]]), "ascending keys", f"{data[unsorted[0] + 1, 0]:#x} after {data[unsorted[0], 0]:#x}"
        )
    return Tiles(owner[~first], data[~first, 0].astype(np.int64), data[~first, 1].astype(np.int64))


def read_position(state: bytes) -> Position | None:
    """The log position in a state's header; None for a cold entity.

    Raises:
        StateError: the state is truncated or of another format version.
    """
    if not state:
        return None
    decode_states([state])
    key, offset = np.frombuffer(state[: layout.RECORD_BYTES], dtype="<i8")
    return Position(int(key) & layout.BUCKET_MASK, int(offset))


def body_of(state: bytes) -> bytes:
    """The state without its header: what must be equal between paths that have seen the same events."""
    return state[layout.RECORD_BYTES :]


def count_tiles(states: pa.LargeBinaryArray) -> NDArray[np.int64]:
    """(n,) number of tiles of each state, headers left out."""
    offsets = np.frombuffer(states.buffers()[1], dtype=np.int64)[states.offset : states.offset + len(states) + 1]
    counts: Ints = np.maximum(np.diff(offsets) // layout.RECORD_BYTES - 1, 0)
    return counts


def _bad_state(row: int, expected: str, got: str) -> StateError:
    return StateError(
        explain("state bytes are unusable", which=f"state number {row}", expected=expected, got=got,
                next_step="rebuild the store with `plumb features materialize`")
    )  # fmt: skip
