"""The files below an LMDB store: making, opening and checking them, and what LMDB's errors mean."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lmdb
import orjson

from features.errors import StoreError, StoreUnavailable, explain
from features.online.records import check_identity

MAX_SHARD_BYTES: Final = 16 << 30
"""Limit of one shard's file. It is mapped at once, which costs address space alone; the file grows as it is filled."""

MAX_READERS: Final = 512
IDENTITY_KEY: Final = b"identity"


@dataclass(frozen=True, slots=True)
class Shard:
    """One open environment with its databases."""

    environment: lmdb.Environment
    states: Any
    profiles: Any
    changes: Any
    meta: Any


def _shard_path(path: Path, index: int) -> Path:
    return path / f"shard-{index:03d}"


def create_files(path: Path, identity: Mapping[str, object], partitions: int) -> None:
    """Make an empty store beside its place, then move it there: no half-made store is ever seen."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for index in range(partitions):
        _shard_path(partial, index).mkdir(parents=True)
        with _environment(_shard_path(partial, index), readonly=False) as environment:
            meta = environment.open_db(b"meta")
            environment.open_db(b"states")
            environment.open_db(b"profiles")
            environment.open_db(b"changes")
            with environment.begin(write=True, db=meta) as transaction:
                transaction.put(IDENTITY_KEY, orjson.dumps({**identity, "shard": index}))
            cover_pages(environment)
    partial.rename(path)


def _environment(folder: Path, *, readonly: bool) -> lmdb.Environment:
    return lmdb.open(
        str(folder), map_size=MAX_SHARD_BYTES, max_dbs=5, max_readers=MAX_READERS, max_spare_txns=8,
        readonly=readonly, create=not readonly, readahead=False,
    )  # fmt: skip


def open_shard(path: Path, index: int, identity: Mapping[str, object], readonly: bool, opened: ExitStack) -> Shard:
    """Open and check one shard's environment, to be closed by ``opened``.

    Raises:
        StoreError: it is missing, damaged, or of another store.
        StoreUnavailable: it cannot be opened now.
    """
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
            *(environment.open_db(name, create=False) for name in (b"states", b"profiles", b"changes", b"meta")),
        )
        with environment.begin(db=shard.meta) as transaction:
            stored = orjson.loads(transaction.get(IDENTITY_KEY) or b"{}")
    except (lmdb.Error, orjson.JSONDecodeError) as error:
        raise translate(error, folder) from error
    check_identity(str(folder), {**identity, "shard": index}, stored)
    return shard


def read_identity(path: Path) -> dict[str, Any] | None:
    """What a store says of itself, whatever is wanted of it; None where there is no store.

    Raises:
        StoreError: it is damaged.
        StoreUnavailable: it cannot be opened now.
    """
    folder = _shard_path(path, 0)
    if not (folder / "data.mdb").exists():
        return None
    try:
        with _environment(folder, readonly=True) as environment:
            meta = environment.open_db(b"meta", create=False)
            with environment.begin(db=meta) as transaction:
                identity: dict[str, Any] = orjson.loads(transaction.get(IDENTITY_KEY) or b"{}")
                return identity
    except (lmdb.Error, orjson.JSONDecodeError) as error:
        raise translate(error, folder) from error


def _page_bytes(environment: lmdb.Environment) -> int:
    """The size that the data file must have for every page that the environment counts."""
    return int((environment.info()["last_pgno"] + 1) * environment.stat()["psize"])


def cover_pages(environment: lmdb.Environment) -> None:
    """Grow the file over pages that LMDB counts but did not write, so that a shorter file always means damage."""
    missing_to = _page_bytes(environment)
    with open(Path(environment.path()) / "data.mdb", "r+b") as file:
        if os.fstat(file.fileno()).st_size < missing_to:
            os.posix_fallocate(file.fileno(), 0, missing_to)


def _check_pages(environment: lmdb.Environment, folder: Path) -> None:
    """Refuse a truncated file before any of its pages is touched: reading past its end would kill the process.

    Between a commit and its ``cover_pages`` the file of a healthy store may be short for a moment, hence the retries.
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


def translate(error: Exception, path: Path) -> StoreError | StoreUnavailable:
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
