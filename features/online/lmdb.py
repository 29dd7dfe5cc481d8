"""The embedded online store: one LMDB environment for each shard of one view version.

An environment holds three databases: ``states`` and ``profiles`` by entity id, and ``meta`` with the store's identity
and the shard's position. Reading maps the file, so any number of server processes share one copy in memory beside the
one process that writes. LMDB allows one open store per folder and process.
"""

from __future__ import annotations

import os
import shutil
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from zlib import crc32

import lmdb
import orjson

from features import layout
from features.errors import StoreError, StoreUnavailable, explain
from features.online.store import Lookup, Watermark, check_position, encode_entity_id
from features.partitions import PARTITION_HASH

STORE_FORMAT: Final = 1
MAX_SHARD_BYTES: Final = 16 << 30
"""Limit of one shard's file. It is mapped at once, which costs address space alone; the file grows as it is filled."""

MAX_READERS: Final = 512
IDENTITY_KEY: Final = b"identity"
WATERMARK_KEY: Final = b"watermark"
WATERMARK_RECORD: Final = struct.Struct("<qqqq")
BATCH_FROM: Final = 4
"""From this many ids on, one cursor call for each database is faster than one read for each id."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One open environment with its databases."""

    environment: lmdb.Environment
    states: Any
    profiles: Any
    meta: Any


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
        identity = _identity(view_key, view_hash, partitions)
        if not path.exists():
            if not create or readonly:
                raise StoreError(
                    explain("online store does not exist", which=str(path), expected=f"files of view {view_key}",
                            got="no such folder", next_step="run `plumb features materialize`")
                )  # fmt: skip
            _create(path, identity)
        with ExitStack() as opened:
            shards = tuple(_open_shard(path, index, identity, readonly, opened) for index in range(partitions))
            opened.pop_all()
        return cls(path, view_key, view_hash, shards)

    def get_many(self, entity_ids: Sequence[str]) -> Lookup:
        keys = [encode_entity_id(entity_id) for entity_id in entity_ids]
        partitions = self.partitions
        placed = [crc32(key) % partitions for key in keys]
        keys_of: dict[int, list[bytes]] = {}
        for key, shard in zip(keys, placed, strict=True):
            keys_of.setdefault(shard, []).append(key)
        states: dict[bytes, bytes] = {}
        profiles: dict[bytes, bytes] = {}
        watermarks: dict[int, Watermark] = {}
        try:
            for shard, wanted in keys_of.items():
                watermarks[shard] = _read_shard(self._shards[shard], wanted, states, profiles)
        except lmdb.Error as error:
            raise _translate(error, self.path) from error
        return Lookup([states.get(key, b"") for key in keys], [profiles.get(key) for key in keys], placed, watermarks)

    def watermark(self, shard: int) -> Watermark:
        entry = self._shards[shard]
        try:
            with entry.environment.begin(db=entry.meta) as transaction:
                return _watermark_of(transaction.get(WATERMARK_KEY))
        except lmdb.Error as error:
            raise _translate(error, self.path) from error

    def claim(self, shard: int) -> Watermark:
        entry = self._shards[shard]
        try:
            with entry.environment.begin(write=True, db=entry.meta) as transaction:
                stored = _watermark_of(transaction.get(WATERMARK_KEY))
                claimed = replace(stored, epoch=stored.epoch + 1)
                transaction.put(WATERMARK_KEY, _pack(claimed))
            _cover_pages(entry.environment)
        except lmdb.Error as error:
            raise _translate(error, self.path) from error
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
        new_states, new_profiles = self._keyed(shard, states), self._keyed(shard, profiles)
        _check_states(new_states, which)
        entry = self._shards[shard]
        try:
            with entry.environment.begin(write=True) as transaction:
                stored = _watermark_of(transaction.get(WATERMARK_KEY, db=entry.meta))
                check_position(stored, watermark, expected_previous, which)
                _replace(transaction, entry.states, new_states)
                _replace(transaction, entry.profiles, new_profiles)
                transaction.put(WATERMARK_KEY, _pack(watermark), db=entry.meta)
            _cover_pages(entry.environment)
        except lmdb.Error as error:
            raise _translate(error, self.path) from error

    def close(self) -> None:
        for shard in self._shards:
            shard.environment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _keyed(self, shard: int, values: Mapping[str, bytes]) -> list[tuple[bytes, bytes]]:
        """Values under their stored keys, in key order: sequential inserts fill LMDB's pages."""
        keyed = sorted((encode_entity_id(entity_id), value) for entity_id, value in values.items())
        for key, _ in keyed:
            if crc32(key) % self.partitions != shard:
                raise StoreError(
                    explain("entity belongs to another shard", which=repr(key.decode()), expected=f"shard {shard}",
                            got=f"shard {crc32(key) % self.partitions}", next_step="partition entities by their id")
                )  # fmt: skip
        return keyed


def _read_shard(shard: Shard, keys: list[bytes], states: dict[bytes, bytes], profiles: dict[bytes, bytes]) -> Watermark:
    """Add what the shard has under ``keys`` to ``states`` and ``profiles``, all from one snapshot."""
    with shard.environment.begin() as transaction:
        if len(keys) < BATCH_FROM:
            for key in keys:
                if state := transaction.get(key, db=shard.states):
                    states[key] = state
                if profile := transaction.get(key, db=shard.profiles):
                    profiles[key] = profile
        else:
            states.update(transaction.cursor(shard.states).getmulti(keys))
            profiles.update(transaction.cursor(shard.profiles).getmulti(keys))
        return _watermark_of(transaction.get(WATERMARK_KEY, db=shard.meta))


def _replace(transaction: lmdb.Transaction, database: Any, values: list[tuple[bytes, bytes]]) -> None:
    transaction.cursor(database).putmulti([(key, value) for key, value in values if value])
    for key, value in values:
        if not value:
            transaction.delete(key, db=database)


def _watermark_of(record: bytes | None) -> Watermark:
    return Watermark(*WATERMARK_RECORD.unpack(record)) if record else Watermark()


def _pack(watermark: Watermark) -> bytes:
    return WATERMARK_RECORD.pack(watermark.log_offset, watermark.ingest_time_us, watermark.as_of_us, watermark.epoch)


def _check_states(states: list[tuple[bytes, bytes]], which: str) -> None:
    for key, state in states:
        if len(state) % layout.RECORD_BYTES:
            raise StoreError(
                explain("state is truncated", which=f"{key.decode()!r} for {which}",
                        expected=f"a multiple of {layout.RECORD_BYTES} bytes", got=f"{len(state)} bytes",
                        next_step="fold the entity again")
            )  # fmt: skip


def _identity(view_key: str, view_hash: str, partitions: int) -> dict[str, Any]:
    """What must be equal for the stored bytes to mean what the reader takes them for."""
    return {
        "store_format": STORE_FORMAT,
        "state_format": layout.FORMAT_VERSION,
        "partition_hash": PARTITION_HASH,
        "partitions": partitions,
        "view_key": view_key,
        "view_hash": view_hash,
    }


def _shard_path(path: Path, index: int) -> Path:
    return path / f"shard-{index:03d}"


def _create(path: Path, identity: dict[str, Any]) -> None:
    """Make an empty store beside its place, then move it there: no half-made store is ever seen."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for index in range(identity["partitions"]):
        _shard_path(partial, index).mkdir(parents=True)
        with _environment(_shard_path(partial, index), readonly=False) as environment:
            meta = environment.open_db(b"meta")
            environment.open_db(b"states")
            environment.open_db(b"profiles")
            with environment.begin(write=True, db=meta) as transaction:
                transaction.put(IDENTITY_KEY, orjson.dumps({**identity, "shard": index}))
            _cover_pages(environment)
    partial.rename(path)


def _environment(folder: Path, *, readonly: bool) -> lmdb.Environment:
    return lmdb.open(
        str(folder), map_size=MAX_SHARD_BYTES, max_dbs=4, max_readers=MAX_READERS, max_spare_txns=8,
        readonly=readonly, create=not readonly, readahead=False,
    )  # fmt: skip


def _open_shard(path: Path, index: int, identity: dict[str, Any], readonly: bool, opened: ExitStack) -> Shard:
    folder = _shard_path(path, index)
    if not (folder / "data.mdb").exists():
        raise StoreError(
            explain("online store is incomplete", which=str(folder), expected=f"{identity['partitions']} shards",
                    got="no data.mdb", next_step="move the store's folder away and materialize again")
        )  # fmt: skip
    try:
        environment = opened.enter_context(_environment(folder, readonly=readonly))
        _check_pages(environment, folder)
        environment.reader_check()
        shard = Shard(
            environment,
            *(environment.open_db(name, create=False) for name in (b"states", b"profiles", b"meta")),
        )
        with environment.begin(db=shard.meta) as transaction:
            stored = orjson.loads(transaction.get(IDENTITY_KEY) or b"{}")
    except (lmdb.Error, orjson.JSONDecodeError) as error:
        raise _translate(error, folder) from error
    _check_identity(folder, {**identity, "shard": index}, stored)
    return shard


def _check_identity(folder: Path, expected: dict[str, Any], stored: dict[str, Any]) -> None:
    for name, value in expected.items():
        if stored.get(name) != value:
            raise StoreError(
                explain(f"online store is of another {name.replace('_', ' ')}", which=str(folder), expected=f"{value!r}",
                        got=repr(stored.get(name)), next_step="materialize into another folder, or serve the fitting view")
            )  # fmt: skip


def _page_bytes(environment: lmdb.Environment) -> int:
    """The size that the data file must have for every page that the environment counts."""
    return int((environment.info()["last_pgno"] + 1) * environment.stat()["psize"])


def _cover_pages(environment: lmdb.Environment) -> None:
    """Grow the file over pages that LMDB counts but did not write, so that a shorter file always means damage."""
    missing_to = _page_bytes(environment)
    with open(Path(environment.path()) / "data.mdb", "r+b") as file:
        if os.fstat(file.fileno()).st_size < missing_to:
            os.posix_fallocate(file.fileno(), 0, missing_to)


def _check_pages(environment: lmdb.Environment, folder: Path) -> None:
    """Refuse a truncated file before any of its pages is touched: reading past its end would kill the process.

    Between a commit and its ``_cover_pages`` the file of a healthy store may be short for a moment, hence the retries.
    """
    for _ in range(5):
        needed, found = _page_bytes(environment), (folder / "data.mdb").stat().st_size
        if found >= needed:
            return
        time.sleep(0.01)
    raise StoreError(
        explain("online store is truncated", which=str(folder / "data.mdb"), expected=f"{needed} bytes",
                got=f"{found} bytes", next_step="move the store's folder away and materialize again")
    )  # fmt: skip


def _translate(error: Exception, path: Path) -> StoreError | StoreUnavailable:
    """LMDB's error as ours: what can pass by itself is unavailable, everything else is damage."""
    if isinstance(error, lmdb.MapFullError):
        return StoreError(
            explain("online store is full", which=str(path), expected=f"at most {MAX_SHARD_BYTES} bytes a shard",
                    got=str(error), next_step="use more log partitions, or a store on many machines")
        )  # fmt: skip
    if isinstance(error, lmdb.ReadonlyError):
        return StoreError(
            explain("online store was opened for reading", which=str(path), expected="a store open for writing",
                    got=str(error), next_step="open it with readonly=False in the one process that writes")
        )  # fmt: skip
    temporary = (lmdb.ReadersFullError, lmdb.LockError, lmdb.DiskError, lmdb.MemoryError, lmdb.MapResizedError)
    if isinstance(error, temporary) or "already open" in str(error):
        return StoreUnavailable(
            explain("online store cannot be used now", which=str(path), expected="a free reader slot, disk and memory",
                    got=str(error), next_step="close other processes or handles of the store and try again")
        )  # fmt: skip
    return StoreError(
        explain("online store is damaged", which=str(path), expected="LMDB files that this version wrote",
                got=str(error) or type(error).__name__, next_step="move the store's folder away and materialize again")
    )  # fmt: skip
