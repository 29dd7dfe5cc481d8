"""Reads that always answer: a short-lived cache before the store, a breaker around it, copies or nothing behind it.

What did not come from the store in time is said for each entity (``Lookup.degraded``): the cause, and whether a node-local
copy or nothing at all stands in for the value. An entity without state or profile gets its defaults in the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from zlib import crc32

from features import layout
from features.errors import StoreUnavailable
from features.online.breaker import Breaker
from features.online.copies import Copy, LocalCopies
from features.online.records import encode_entity_ids
from features.online.store import MIXED, Lookup, OnlineReader, Watermark

STORE_UNAVAILABLE: Final = "store_unavailable"
"""The store did not answer within the time budget."""
BREAKER_OPEN: Final = "breaker_open"
"""The store was not asked, because it has not answered of late."""
LOCAL_COPY: Final = "local_copy"
DEFAULTS: Final = "defaults"
STORE: Final = "store"
CACHE: Final = "cache"
SOURCES: Final = (STORE, CACHE, LOCAL_COPY, DEFAULTS)
"""Where the value of an entity came from."""


@dataclass(frozen=True)
class Limits:
    """How far a guarded store goes to spare its store and to answer without it.

    Attributes:
        cache_ttl_s: an entity read this recently is not read again; 0 reads always.
        copies_bytes: most bytes of node-local copies; 0 keeps none.
        copy_age_s: a copy older than this is never used: deletions and corrections must reach every answer.
        failures_to_open: after this many failed reads in a row the store is left alone.
        open_s: for how long.
    """

    cache_ttl_s: float = 0.0
    copies_bytes: int = 64 << 20
    copy_age_s: float = 3_600.0
    failures_to_open: int = 5
    open_s: float = 5.0


@dataclass
class _Rows:
    """A reply in the making."""

    states: list[bytes]
    profiles: list[bytes | None]
    degraded: list[str | None]
    watermarks: dict[int, Watermark] = field(default_factory=dict)

    def put(self, row: int, shard: int, copy: Copy, reason: str | None) -> None:
        self.states[row], self.profiles[row], mark, _, _ = copy
        self.degraded[row] = reason
        self.lower(shard, mark)

    def lower(self, shard: int, mark: Watermark) -> None:
        """A shard's position is the oldest one that any of its values stands for."""
        known = self.watermarks.get(shard)
        if known is not None and known.profiles_as_of_us != mark.profiles_as_of_us:
            known, mark = (replace(each, profiles_as_of_us=MIXED) for each in (known, mark))
            self.watermarks[shard] = known
        if known is None or (mark.as_of_us, mark.log_offset) < (known.as_of_us, known.log_offset):
            self.watermarks[shard] = mark


class GuardedStore:
    """``OnlineReader`` over another one, which is asked less often and may be down; safe to use from several threads."""

    def __init__(
        self,
        store: OnlineReader,
        limits: Limits,
        clock_us: Callable[[], int],
        observe: Callable[[str, int], None] = lambda source, count: None,
    ) -> None:
        """Guard a store.

        Args:
            store: its own timeouts are the time budget of a read.
            limits: see ``Limits``.
            clock_us: gives the time, UTC microseconds.
            observe: told after each read how many entities came from which of ``SOURCES``.
        """
        self.view_key = store.view_key
        self.partitions = store.partitions
        self.breaker = Breaker(limits.failures_to_open, limits.open_s)
        self.copies = LocalCopies(limits.copies_bytes, round(limits.copy_age_s * layout.US_PER_S))
        self._store = store
        self._ttl_us = round(limits.cache_ttl_s * layout.US_PER_S)
        self._keeps_copies = limits.copies_bytes > 0
        self._clock_us = clock_us
        self._observe = observe

    def get_many(self, entity_ids: Sequence[str], *, profiles: bool = True) -> Lookup:
        now_us = self._clock_us()
        if self._ttl_us and self._keeps_copies:
            cached = self.copies.get_many(entity_ids, since_us=now_us - self._ttl_us, now_us=now_us, profiles=profiles)
            if any(copy is not None for copy in cached):
                return self._complete(entity_ids, cached, now_us, profiles)
        found, cause = self._ask(entity_ids, now_us, profiles)
        if found is not None:
            self._observe(STORE, len(entity_ids))
            return found
        return self._complete(entity_ids, [None] * len(entity_ids), now_us, profiles, cause=cause)

    def _ask(self, entity_ids: Sequence[str], now_us: int, profiles: bool) -> tuple[Lookup | None, str]:
        """The store's own answer, or None and why there is none."""
        if not self.breaker.allows(now_us):
            return None, BREAKER_OPEN
        try:
            found = self._store.get_many(entity_ids, profiles=profiles)
        except StoreUnavailable:
            self.breaker.failed(self._clock_us())
            return None, STORE_UNAVAILABLE
        self.breaker.succeeded()
        if self._keeps_copies:
            self.copies.put_many(entity_ids, found, now_us=now_us, profiles=profiles)
        return found, ""

    def _complete(
        self, entity_ids: Sequence[str], cached: list[Copy | None], now_us: int, profiles: bool, cause: str = ""
    ) -> Lookup:
        """Put a reply together from cached entities, the store (unless ``cause`` says why not), copies and defaults."""
        count = len(entity_ids)
        placed = [crc32(key) % self.partitions for key in encode_entity_ids(entity_ids)]
        rows = _Rows([b""] * count, [None] * count, [None] * count)
        for row, copy in enumerate(cached):
            if copy is not None:
                rows.put(row, placed[row], copy, None)
        missing = [row for row, copy in enumerate(cached) if copy is None]
        wanted = [entity_ids[row] for row in missing]
        self._observe(CACHE, count - len(missing))
        found = None
        if missing and not cause:
            found, cause = self._ask(wanted, now_us, profiles)
        if found is None:
            self._stand_in(rows, placed, list(zip(missing, wanted, strict=True)), now_us, profiles, cause)
        else:
            self._observe(STORE, len(missing))
            for row, state, profile in zip(missing, found.states, found.profiles, strict=True):
                rows.states[row], rows.profiles[row] = state, profile
            for shard, mark in found.watermarks.items():
                rows.lower(shard, mark)
        return Lookup(rows.states, rows.profiles, placed, rows.watermarks, rows.degraded)

    def _stand_in(
        self, rows: _Rows, placed: list[int], missing: list[tuple[int, str]], now_us: int, profiles: bool, cause: str
    ) -> None:
        """Local copies of any allowed age for what the store did not give, else nothing; each says so."""
        wanted = [entity_id for _, entity_id in missing]
        copies = self.copies.get_many(wanted, since_us=0, now_us=now_us, profiles=profiles)
        for (row, _), copy in zip(missing, copies, strict=True):
            if copy is None:
                rows.degraded[row] = f"{cause}_{DEFAULTS}"
            else:
                rows.put(row, placed[row], copy, f"{cause}_{LOCAL_COPY}")
        stood_in = sum(copy is not None for copy in copies)
        self._observe(LOCAL_COPY, stood_in)
        self._observe(DEFAULTS, len(missing) - stood_in)
