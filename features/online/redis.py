"""The online store on Redis: plain string keys, one hash slot for each shard of one view version (``redis_commands``).

A batch of any number of shards is one MGET of states and positions together, so a reply is one snapshot. A commit is one
WATCH/MULTI/EXEC on the shard's position: a third of the server's time that a Lua script takes for the same values.

A Redis that comes back without its last writes comes back with the position that belongs to the values it still has: the
next commit conflicts, and the writer goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import orjson
import redis

from features.errors import StoreError, StoreMissing, StoreUnavailable, explain
from features.online.records import (
    changed_entities,
    check_identity,
    check_position,
    check_states,
    collect_changes,
    group_by_shard,
    identify,
    keyed_values,
    pack_watermark,
    unpack_watermark,
)
from features.online.redis_commands import BatchRead, Keys
from features.online.redis_server import Channel, address_of, check_server, talking
from features.online.store import CHANGELOG_COMMITS, ChangeCursor, Changes, Lookup, OnlineStore, Watermark

Result = TypeVar("Result")
Transaction = Any
"""redis-py's Pipeline, half of which has no types."""
MAX_ATTEMPTS: Final = 100
"""How often a change of a shard starts again because another one came between."""


class RedisStore:
    """``features.online.store.OnlineStore`` on one Redis server; safe to use from several threads."""

    def __init__(self, pool: redis.ConnectionPool, view_key: str, view_hash: str, partitions: int, readonly: bool) -> None:
        self.view_key = view_key
        self.view_hash = view_hash
        self.partitions = partitions
        self._pool = pool
        self._client = redis.Redis(connection_pool=pool)
        self._readonly = readonly
        self._address = address_of(pool)
        self._keys = Keys(view_key, partitions)
        self._channel = Channel(pool)

    @classmethod
    def open(
        cls,
        pool: redis.ConnectionPool,
        *,
        view_key: str,
        view_hash: str,
        partitions: int,
        create: bool = False,
        readonly: bool = False,
    ) -> Self:
        """Open one view version's store.

        Args:
            pool: from ``connect``; the stores of several views may share one.
            view_key: the view's name and version.
            view_hash: ``Catalog.view_hash`` of that view.
            partitions: number of log partitions, and so of shards.
            create: make an empty store where there is none.
            readonly: refuse writes; a server opens its store this way.

        Raises:
            StoreError: there is no store, it belongs to another version, view or partitioning, or the server may evict.
            StoreUnavailable: the server does not answer.
        """
        store = cls(pool, view_key, view_hash, partitions, readonly)
        with talking(store._address):
            check_server(store._client, store._address)
            identity = identify(view_key, view_hash, partitions)
            key = store._keys.identity
            if create and not readonly:
                store._client.set(key, orjson.dumps(identity), nx=True)
            stored: Any = store._client.get(key)
        if stored is None:
            raise StoreMissing(
                explain("online store does not exist", which=store._address, expected=f"keys of view {view_key}",
                        got="none", next_step="run `plumb features materialize`")
            )  # fmt: skip
        check_identity(store._address, identity, orjson.loads(stored))
        return store

    def get_many(self, entity_ids: Sequence[str], *, profiles: bool = True) -> Lookup:
        read = self._keys.read(entity_ids, profiles)
        return self._ask([read])[0]

    def get_views(self, wanted: Sequence[tuple[OnlineStore, Sequence[str]]]) -> list[Lookup]:
        reads: list[BatchRead] = []
        for store, entity_ids in wanted:
            if not isinstance(store, RedisStore) or store._address != self._address:
                raise StoreError(
                    explain("views of one read are in different stores", which=store.view_key,
                            expected=f"a store at {self._address}", got=getattr(store, "_address", type(store).__name__),
                            next_step="materialize the model's views into one store")
                )  # fmt: skip
            reads.append(store._keys.read(entity_ids, True))
        return self._ask(reads)

    def watermark(self, shard: int) -> Watermark:
        with talking(self._address):
            stored: Any = self._client.get(self._keys.position[shard])
        return unpack_watermark(stored)

    def claim(self, shard: int) -> Watermark:
        def write(transaction: Transaction, stored: Watermark) -> Watermark:
            claimed = replace(stored, epoch=stored.epoch + 1)
            transaction.multi()
            transaction.set(self._keys.position[shard], pack_watermark(claimed))
            return claimed

        return self._change(shard, write)

    def commit(
        self,
        shard: int,
        states: Mapping[str, bytes],
        profiles: Mapping[str, bytes],
        watermark: Watermark,
        *,
        expected_previous: int,
    ) -> None:
        which = f"shard {shard} of {self.view_key} at {self._address}"
        new_states, new_profiles = (keyed_values(shard, self.partitions, values) for values in (states, profiles))
        check_states(new_states, which)
        values = [(self._keys.state_prefix[shard] + key, value) for key, value in new_states]
        values += [(self._keys.profile_prefix[shard] + key, value) for key, value in new_profiles]
        kept = [part for pair in values if pair[1] for part in pair]
        gone = [key for key, value in values if not value]

        def write(transaction: Transaction, stored: Watermark) -> None:
            check_position(stored, watermark, expected_previous, which)
            transaction.multi()
            if kept:
                transaction.execute_command("MSET", *kept)
            if gone:
                transaction.delete(*gone)
            changed = changed_entities(stored, watermark, {*states, *profiles})
            if changed != set():
                self._log_change(transaction, shard, watermark.log_offset, changed)
            transaction.set(self._keys.position[shard], pack_watermark(watermark))

        self._change(shard, write)

    def changes(self, shard: int, after: ChangeCursor | None = None) -> Changes:
        key = self._keys.changes[shard]
        with talking(self._address):
            if after is not None:
                found: Any = self._client.xrange(key, min=_entry_id(after))
                entries = [(_cursor_of(entry_id), orjson.loads(fields[b"ids"])) for entry_id, fields in found]
                # Where the entry is gone, commits were lost or have left the changelog: nobody can say what else changed.
                if entries and entries[0][0] == after:
                    return collect_changes(entries)
            newest: Any = self._client.xrevrange(key, count=1)
        return Changes((), _cursor_of(newest[0][0]) if newest else None, complete=after is None and not newest)

    def entities(self, shard: int, page: int = 4_096) -> Iterator[list[str]]:
        states, profiles = self._keys.state_prefix[shard], self._keys.profile_prefix[shard]
        with talking(self._address):
            for prefix in (states, profiles):
                cursor, first = 0, True
                while first or cursor:
                    found: Any = self._client.scan(cursor, match=prefix + b"*", count=page)
                    cursor, first = found[0], False
                    names = list(dict.fromkeys(key[len(prefix) :] for key in found[1]))
                    if prefix == profiles and names:
                        present: Any = self._client.mget([states + name for name in names])
                        names = [name for name, state in zip(names, present, strict=True) if state is None]
                    yield [name.decode() for name in names]

    def erase(self, entity_ids: Sequence[str]) -> int:
        return sum(self._erase(shard, keys) for shard, keys in group_by_shard(entity_ids, self.partitions).items())

    def close(self) -> None:
        self._client.close()
        self._pool.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _ask(self, reads: list[BatchRead]) -> list[Lookup]:
        """Batch reads that are sent together; one of no entity is not asked."""
        with talking(self._address):
            replies = iter(self._channel.ask([read.command for read in reads if read.placed]))
        return [read.lookup(next(replies) if read.placed else []) for read in reads]

    def _change(self, shard: int, write: Callable[[Transaction, Watermark], Result]) -> Result:
        """Change a shard in one transaction that holds only while its position is as ``write`` was told."""
        if self._readonly:
            raise StoreError(
                explain("online store was opened for reading", which=self._address, expected="a store open for writing",
                        got="readonly", next_step="open it with readonly=False in the one process that writes")
            )  # fmt: skip
        key = self._keys.position[shard]
        for _ in range(MAX_ATTEMPTS):
            transaction: Transaction
            with talking(self._address), self._client.pipeline() as transaction:
                transaction.watch(key)
                result = write(transaction, unpack_watermark(transaction.get(key)))
                try:
                    transaction.execute()
                except redis.WatchError:
                    continue
                return result
        raise StoreUnavailable(
            explain("shard changes too often", which=f"shard {shard} of {self.view_key}", expected="one writer",
                    got=f"{MAX_ATTEMPTS} changes by others meanwhile", next_step="look for a second writer and try again")
        )  # fmt: skip

    def _erase(self, shard: int, keys: list[bytes]) -> int:
        pairs = [(self._keys.state_prefix[shard] + key, self._keys.profile_prefix[shard] + key) for key in keys]

        def write(transaction: Transaction, stored: Watermark) -> int:
            present = [key for key, pair in zip(keys, pairs, strict=True) if transaction.exists(*pair)]
            transaction.multi()
            if present:
                transaction.delete(*(part for pair in pairs for part in pair))
                self._log_change(transaction, shard, stored.log_offset, {key.decode() for key in present})
            return len(present)

        return self._change(shard, write)

    def _log_change(self, transaction: Transaction, shard: int, log_offset: int, names: set[str] | None) -> None:
        """Append to the changelog, None standing for "any entity"."""
        ids = orjson.dumps(sorted(names) if names else None)
        transaction.xadd(
            self._keys.changes[shard], {b"ids": ids}, id=f"{log_offset + 1}-*", maxlen=CHANGELOG_COMMITS, approximate=False
        )


def _entry_id(cursor: ChangeCursor) -> str:
    return f"{cursor.log_offset + 1}-{cursor.sequence}"


def _cursor_of(entry_id: bytes) -> ChangeCursor:
    after_offset, sequence = entry_id.split(b"-")
    return ChangeCursor(int(after_offset) - 1, int(sequence))
