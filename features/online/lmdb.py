"""The embedded online store: one LMDB environment for each shard of one view version.

An environment holds four databases: ``states`` and ``profiles`` by entity id, ``changes`` with the names of the
entities that the newest commits changed, and ``meta`` with the store's identity and the shard's position. Reading maps
the file, so any number of server processes share one copy in memory beside the one process that writes. LMDB allows one
open store per folder and process.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from zlib import crc32

import lmdb
import orjson

from features.errors import StoreMissing, explain
from features.online.lmdb_files import Shard, cover_pages, create_files, open_shard, translate
from features.online.records import (
    changed_entities,
    check_position,
    check_states,
    collect_changes,
    encode_entity_ids,
    group_by_shard,
    identify,
    keyed_values,
    pack_watermark,
    unpack_watermark,
)
from features.online.store import CHANGELOG_COMMITS, NO_OFFSET, ChangeCursor, Changes, Lookup, OnlineStore, Watermark

WATERMARK_KEY: Final = b"watermark"
CHANGE_KEY: Final = struct.Struct(">QQ")
"""Key of a changelog entry, in the order of its commits: log offset + 1, number among the commits of that offset."""
BATCH_FROM: Final = 4
"""From this many ids on, one cursor call for each database is faster than one read for each id."""


class LmdbStore:
    """``features.online.store.OnlineStore`` on local files; safe to read from several threads."""

    def __init__(self, path: Path, view_key: str, view_hash: str, shards: tuple[Shard, ...]) -> None:
        self.path = path
        self.view_key = view_key
        self.view_hash = view_hash
        self.partitions = len(shards)
        self._shards = shards

    @classmethod
    def open(
        cls, path: Path, *, view_key: str, view_hash: str, partitions: int, create: bool = False, readonly: bool = False
    ) -> Self:
        """Open one view version's store.

        Args:
            path: folder with one sub-folder a shard.
            view_key: the view's name and version.
            view_hash: ``Catalog.view_hash`` of that view.
            partitions: number of log partitions, and so of shards.
            create: make an empty store where there is none.
            readonly: refuse writes; a server opens its store this way.

        Raises:
            StoreError: there is no store, it is damaged, or it belongs to another version, view or partitioning.
            StoreUnavailable: the files cannot be opened now, for example because this process has them open already.
        """
        identity = identify(view_key, view_hash, partitions)
        if not path.exists():
            if not create or readonly:
                raise StoreMissing(
                    explain("online store does not exist", which=str(path), expected=f"files of view {view_key}",
                            got="no such folder", next_step="run `plumb features materialize`")
                )  # fmt: skip
            create_files(path, identity, partitions)
        with ExitStack() as opened:
            shards = tuple(open_shard(path, index, identity, readonly, opened) for index in range(partitions))
            opened.pop_all()
        return cls(path, view_key, view_hash, shards)

    def get_many(self, entity_ids: Sequence[str], *, profiles: bool = True) -> Lookup:
        keys = encode_entity_ids(entity_ids)
        partitions = self.partitions
        placed = [crc32(key) % partitions for key in keys]
        keys_of: dict[int, list[bytes]] = {}
        for key, shard in zip(keys, placed, strict=True):
            keys_of.setdefault(shard, []).append(key)
        states: dict[bytes, bytes] = {}
        found: dict[bytes, bytes] | None = {} if profiles else None
        watermarks: dict[int, Watermark] = {}
        try:
            for shard, wanted in keys_of.items():
                watermarks[shard] = _read_shard(self._shards[shard], wanted, states, found)
        except lmdb.Error as error:
            raise translate(error, self.path) from error
        nothing: list[None] = [None] * len(keys)
        return Lookup(
            states=[states.get(key, b"") for key in keys],
            profiles=[found.get(key) for key in keys] if found is not None else list(nothing),
            shards=placed,
            watermarks=watermarks,
            degraded=list(nothing),
        )

    def get_views(self, wanted: Sequence[tuple[OnlineStore, Sequence[str]]]) -> list[Lookup]:
        return [store.get_many(entity_ids) for store, entity_ids in wanted]

    def watermark(self, shard: int) -> Watermark:
        entry = self._shards[shard]
        try:
            with entry.environment.begin(db=entry.meta) as transaction:
                return unpack_watermark(transaction.get(WATERMARK_KEY))
        except lmdb.Error as error:
            raise translate(error, self.path) from error

    def claim(self, shard: int) -> Watermark:
        entry = self._shards[shard]
        with self._writing(entry) as transaction:
            stored = unpack_watermark(transaction.get(WATERMARK_KEY, db=entry.meta))
            claimed = replace(stored, epoch=stored.epoch + 1)
            transaction.put(WATERMARK_KEY, pack_watermark(claimed), db=entry.meta)
        return claimed

    def commit(
        self,
        shard: int,
        states: Mapping[str, bytes],
        profiles: Mapping[str, bytes],
        watermark: Watermark,
        *,
        expected_previous: int,
    ) -> None:
        which = f"shard {shard} of {self.view_key} in {self.path}"
        # In key order: sequential inserts fill LMDB's pages.
        new_states, new_profiles = (keyed_values(shard, self.partitions, values) for values in (states, profiles))
        check_states(new_states, which)
        entry = self._shards[shard]
        with self._writing(entry) as transaction:
            stored = unpack_watermark(transaction.get(WATERMARK_KEY, db=entry.meta))
            check_position(stored, watermark, expected_previous, which)
            _replace(transaction, entry.states, new_states)
            _replace(transaction, entry.profiles, new_profiles)
            changed = changed_entities(stored, watermark, {*states, *profiles})
            if changed != set():
                _log_change(transaction, entry, watermark.log_offset, changed)
            transaction.put(WATERMARK_KEY, pack_watermark(watermark), db=entry.meta)

    def changes(self, shard: int, after: ChangeCursor | None = None) -> Changes:
        entry = self._shards[shard]
        try:
            with entry.environment.begin(db=entry.changes) as transaction:
                cursor = transaction.cursor()
                if after is None:
                    return Changes((), _cursor_of(cursor.key()) if cursor.last() else None, not cursor.key())
                key = CHANGE_KEY.pack(after.log_offset + 1, after.sequence)
                # Where the entry is gone, commits were lost or have left the changelog: nobody can say what else changed.
                complete = bool(cursor.set_key(key))
                rows = [(key, orjson.loads(value)) for key, value in cursor if complete]
        except lmdb.Error as error:
            raise translate(error, self.path) from error
        if not complete:
            return replace(self.changes(shard), complete=False)
        return collect_changes([(_cursor_of(key), names) for key, names in rows])

    def entities(self, shard: int, page: int = 4_096) -> Iterator[list[str]]:
        entry = self._shards[shard]
        try:
            for keys in _pages(entry, entry.states, page):
                yield [key.decode() for key in keys]
            for keys in _pages(entry, entry.profiles, page):
                with entry.environment.begin(db=entry.states) as transaction:
                    yield [key.decode() for key in keys if transaction.get(key) is None]
        except lmdb.Error as error:
            raise translate(error, self.path) from error

    def erase(self, entity_ids: Sequence[str]) -> int:
        erased = 0
        for shard, keys in group_by_shard(entity_ids, self.partitions).items():
            entry = self._shards[shard]
            with self._writing(entry) as transaction:
                gone = [key for key in keys if _delete_entity(transaction, entry, key)]
                if gone:
                    stored = unpack_watermark(transaction.get(WATERMARK_KEY, db=entry.meta))
                    _log_change(transaction, entry, stored.log_offset, {key.decode() for key in gone})
            erased += len(gone)
        return erased

    def close(self) -> None:
        for shard in self._shards:
            shard.environment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _writing(self, entry: Shard) -> Iterator[lmdb.Transaction]:
        """One write transaction, which an exception aborts as a whole."""
        try:
            with entry.environment.begin(write=True) as transaction:
                yield transaction
            cover_pages(entry.environment)
        except lmdb.Error as error:
            raise translate(error, self.path) from error


def _read_shard(shard: Shard, keys: list[bytes], states: dict[bytes, bytes], profiles: dict[bytes, bytes] | None) -> Watermark:
    """Add what the shard has under ``keys`` to ``states`` and ``profiles``, all from one snapshot."""
    wanted = [(shard.states, states)] if profiles is None else [(shard.states, states), (shard.profiles, profiles)]
    with shard.environment.begin() as transaction:
        for database, found in wanted:
            if len(keys) < BATCH_FROM:
                found.update((key, value) for key in keys if (value := transaction.get(key, db=database)))
            else:
                found.update(transaction.cursor(database).getmulti(keys))
        return unpack_watermark(transaction.get(WATERMARK_KEY, db=shard.meta))


def _pages(shard: Shard, database: Any, page: int) -> Iterator[list[bytes]]:
    """Keys in their order; a transaction a page, because an old one would keep the pages of all later commits alive."""
    after = b""
    while True:
        with shard.environment.begin(db=database) as transaction:
            cursor = transaction.cursor()
            found = cursor.set_range(after + b"\0") if after else cursor.first()
            keys = list(islice(cursor.iternext(keys=True, values=False), page)) if found else []
        if not keys:
            return
        yield keys
        after = keys[-1]


def _replace(transaction: lmdb.Transaction, database: Any, values: list[tuple[bytes, bytes]]) -> None:
    transaction.cursor(database).putmulti([(key, value) for key, value in values if value])
    for key, value in values:
        if not value:
            transaction.delete(key, db=database)


def _delete_entity(transaction: lmdb.Transaction, shard: Shard, key: bytes) -> bool:
    deleted = [transaction.delete(key, db=database) for database in (shard.states, shard.profiles)]
    return any(deleted)


def _log_change(transaction: lmdb.Transaction, shard: Shard, log_offset: int, names: set[str] | None) -> None:
    """Append to the changelog, None standing for "any entity", and drop what is beyond its bound."""
    cursor = transaction.cursor(shard.changes)
    newest = _cursor_of(cursor.key()) if cursor.last() else ChangeCursor(NO_OFFSET - 1, 0)
    sequence = newest.sequence + 1 if newest.log_offset == log_offset else 0
    transaction.put(CHANGE_KEY.pack(log_offset + 1, sequence), orjson.dumps(sorted(names) if names else None), db=shard.changes)
    for _ in range(transaction.stat(shard.changes)["entries"] - CHANGELOG_COMMITS):
        cursor.first()
        cursor.delete()


def _cursor_of(key: bytes | memoryview) -> ChangeCursor:
    after_offset, sequence = CHANGE_KEY.unpack(key)
    return ChangeCursor(after_offset - 1, sequence)
