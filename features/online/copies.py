"""Node-local copies of what was read last, bounded in bytes and in age.

Copies live in two generations: new ones join the young, and when that has taken its share or has grown old, it becomes the
old one and the one before is forgotten. That keeps what was read lately, as a list by last use would, for much less time an
entity, and every read of the store pays that time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from threading import Lock
from typing import Final

from features.online.store import Lookup, Watermark

OVERHEAD_BYTES: Final = 400
"""What a copy takes beside the bytes of id, state and profile; ``tests/features/online/test_copies.py`` measures it."""


Copy = tuple[bytes, bytes | None, Watermark, int, bool]
"""One entity as it was read from the store: state, profile, the shard's position then, when (UTC microseconds), and whether
the profile was read too. A plain tuple, because every read of the store makes one for each of its entities."""


class LocalCopies:
    """Copies by entity id; safe to use from several threads."""

    def __init__(self, max_bytes: int, max_age_us: int) -> None:
        """No copies yet.

        Args:
            max_bytes: bound of all copies; a batch that would take more than a sixth of it is not kept.
            max_age_us: older copies are not given out.
        """
        self._share_bytes = max_bytes // 3
        self._max_age_us = max_age_us
        self._young: dict[str, Copy] = {}
        self._old: dict[str, Copy] = {}
        self._at_most_bytes = 0
        """Of the young ones: what replaced an earlier copy is counted twice until it would matter."""
        self._young_since_us = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())

    @property
    def used_bytes(self) -> int:
        """Bytes of all copies, overhead included."""
        return sum(_size(generation) for generation in (self._young, self._old))

    def get_many(self, entity_ids: Sequence[str], *, since_us: int, now_us: int, profiles: bool) -> list[Copy | None]:
        """The copies that were read at ``since_us`` or later, with profile values where they are asked for."""
        since_us = max(since_us, now_us - self._max_age_us)
        young, old = self._young, self._old
        found = (young.get(entity_id) or old.get(entity_id) for entity_id in entity_ids)
        return [copy if copy and copy[3] >= since_us and (copy[4] or not profiles) else None for copy in found]

    def put_many(self, entity_ids: Sequence[str], found: Lookup, *, now_us: int, profiles: bool) -> None:
        """Keep what the store just answered."""
        size = OVERHEAD_BYTES * len(entity_ids) + sum(map(len, entity_ids)) + sum(map(len, found.states))
        size += sum(map(len, filter(None, found.profiles)))
        if size > self._share_bytes // 2:
            return
        marks = map(found.watermarks.__getitem__, found.shards)
        rows = zip(found.states, found.profiles, marks, repeat(now_us), repeat(profiles), strict=False)
        with self._lock:
            self._young.update(zip(entity_ids, rows, strict=True))
            self._at_most_bytes += size
            full = False
            if self._at_most_bytes > self._share_bytes:
                self._at_most_bytes = _size(self._young)
                full = self._at_most_bytes > self._share_bytes // 2
            if full or now_us - self._young_since_us > self._max_age_us // 2:
                self._old, self._young, self._at_most_bytes, self._young_since_us = self._young, {}, 0, now_us


def _size(generation: dict[str, Copy]) -> int:
    values = sum([len(copy[0]) + (len(copy[1]) if copy[1] else 0) for copy in generation.values()])
    return OVERHEAD_BYTES * len(generation) + sum(map(len, generation)) + values
