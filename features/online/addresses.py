"""Opening an online store by its address: a folder (LMDB) or a URL (Redis)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from features.declarations import Catalog, View
from features.errors import StoreError, explain
from features.online import lmdb_files
from features.online.lmdb import LmdbStore
from features.online.store import OnlineStore

REDIS_SCHEMES: Final = ("redis://", "rediss://", "unix://")
DEFAULT_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True)
class ViewVersion:
    """Whose values a store holds: ``view_key`` and ``view_hash`` of one view version, sharded like its log."""

    view_key: str
    view_hash: str
    partitions: int

    @classmethod
    def of(cls, catalog: Catalog, view: View) -> ViewVersion:
        """The version that a catalog declares."""
        return cls(view.key, catalog.view_hash(view), catalog.log_partitions)


def is_url(address: str) -> bool:
    """Whether an address names a server; else it is a folder."""
    return "://" in address


def beside(address: str, view_key: str) -> str:
    """Address of another view's store at the same place: a server holds all views, a folder stands beside those of others."""
    return address if is_url(address) else str(Path(address).parent / view_key)


def stored_version(address: str, view_key: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> ViewVersion | None:
    """The version that an address holds under a key, declared or not; None where it holds none.

    Raises:
        StoreError: the store is damaged.
        StoreUnavailable: it cannot be read now.
    """
    if is_url(address):
        from features.online.redis_server import connect, read_identity

        identity = read_identity(connect(address, timeout_s), view_key)
    else:
        identity = lmdb_files.read_identity(Path(address))
    return ViewVersion(view_key, identity["view_hash"], identity["partitions"]) if identity else None


def open_store(
    address: str, version: ViewVersion, *, create: bool = False, readonly: bool = False, timeout_s: float = DEFAULT_TIMEOUT_S
) -> OnlineStore:
    """Open the store of a view version.

    Args:
        address: folder of an LMDB store, or ``redis://``, ``rediss://`` or ``unix://`` and what redis-py takes after it.
        version: whose values are wanted.
        create: make an empty store where there is none.
        readonly: refuse writes.
        timeout_s: for a server: seconds that connecting and each wait for an answer may take.

    Raises:
        StoreError: there is no store, it is of another version, or the address is of no known kind.
        StoreUnavailable: it cannot be opened now.
    """
    if not is_url(address):
        return LmdbStore.open(
            Path(address),
            view_key=version.view_key,
            view_hash=version.view_hash,
            partitions=version.partitions,
            create=create,
            readonly=readonly,
        )
    if not address.startswith(REDIS_SCHEMES):
        raise StoreError(
            explain("address of the online store is of no known kind", which=repr(address.partition("://")[0]),
                    expected=f"a folder, or {', '.join(REDIS_SCHEMES)}", got=repr(address.partition("://")[0]),
                    next_step="correct --store")
        )  # fmt: skip
    from features.online.redis import RedisStore
    from features.online.redis_server import connect

    return RedisStore.open(
        connect(address, timeout_s),
        view_key=version.view_key,
        view_hash=version.view_hash,
        partitions=version.partitions,
        create=create,
        readonly=readonly,
    )
