"""Node-local copies of what was read last: bounded in bytes, the least recently used go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Final

from features.online.store import Lookup, Watermark

OVERHEAD_BYTES: Final = 400
"""What a copy takes beside the bytes of id, state and profile; ``tests/features/online/test_copies.py`` measures it."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One entity as it was read from the store.

    Attributes:
        state, profile: as in a ``Lookup``.
        with_profile: whether the profile was read too.
        watermark: the shard's position then.
        read_us: when, UTC microseconds.
    """

    state: bytes
    profile: bytes | None
    with_profile: bool
    watermark: Watermark
    read_us: int


class LocalCopies:
    """Copies by entity id; safe to use from several threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._copies: OrderedDict[str, Copy] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    @property
    def used_bytes(self) -> int:
        """Bytes of all copies, overhead included."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._copies)

    def get_many(self, entity_ids: Sequence[str], *, since_us: int, profiles: bool) -> list[Copy | None]:
        """The copies that were read at ``since_us`` or later, with profile values where they are asked for."""
        found: list[Copy | None] = []
        with self._lock:
            for entity_id in entity_ids:
                copy = self._copies.get(entity_id)
                if copy is None or copy.read_us < since_us or (profiles and not copy.with_profile):
                    found.append(None)
                else:
                    self._copies.move_to_end(entity_id)
                    found.append(copy)
        return found

    def put_many(self, entity_ids: Sequence[str], found: Lookup, *, read_us: int, profiles: bool) -> None:
        """Keep what the store just answered."""
        rows = zip(entity_ids, found.states, found.profiles, found.shards, strict=True)
        with self._lock:
            for entity_id, state, profile, shard in rows:
                old = self._copies.pop(entity_id, None)
                if old is not None:
                    self._bytes -= _size(entity_id, old)
                copy = Copy(state, profile, profiles, found.watermarks[shard], read_us)
                self._copies[entity_id] = copy
                self._bytes += _size(entity_id, copy)
            while self._bytes > self._max_bytes:
                self._bytes -= _size(*self._copies.popitem(last=False))

    def drop(self, entity_ids: Sequence[str]) -> None:
        """Forget these entities."""
        with self._lock:
            for entity_id in entity_ids:
                if (copy := self._copies.pop(entity_id, None)) is not None:
                    self._bytes -= _size(entity_id, copy)

    def drop_before(self, read_us: int) -> None:
        """Forget every copy that was read earlier."""
        with self._lock:
            for entity_id, copy in list(self._copies.items()):
                if copy.read_us < read_us:
                    del self._copies[entity_id]
                    self._bytes -= _size(entity_id, copy)


def _size(entity_id: str, copy: Copy) -> int:
    return OVERHEAD_BYTES + len(entity_id) + len(copy.state) + len(copy.profile or b"")
