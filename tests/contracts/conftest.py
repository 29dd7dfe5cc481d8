"""Every adapter of the online store, opened alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from contracts.online_values import PARTITIONS
from redis import Redis

from features.online.lmdb import LmdbStore
from features.online.redis import RedisStore
from features.online.redis_server import connect
from features.online.store import OnlineStore

ADAPTERS = ("lmdb", "redis")
OpenStore = Callable[..., OnlineStore]


@pytest.fixture(params=ADAPTERS)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Opens the store of a name; another name is another, empty store. Views share one Redis, as in production."""
    databases: dict[str, int] = {}

    def arguments(changes: dict[str, Any]) -> dict[str, Any]:
        return {"view_key": "buyer@1", "view_hash": "abc", "partitions": PARTITIONS, "create": True, **changes}

    def open_lmdb(name: str = "store", **changes: Any) -> OnlineStore:
        return LmdbStore.open(tmp_path / name, **arguments(changes))

    def open_redis(name: str = "store", **changes: Any) -> OnlineStore:
        url = request.getfixturevalue("redis_url").removesuffix("/0")
        place = name if "view_key" not in changes else "store"
        if place not in databases:
            databases[place] = len(databases) % 16
            with Redis.from_url(f"{url}/{databases[place]}") as client:
                client.flushdb()
        return RedisStore.open(connect(f"{url}/{databases[place]}"), **arguments(changes))

    return {"lmdb": open_lmdb, "redis": open_redis}[request.param]


@pytest.fixture
def store(open_store: OpenStore) -> Iterator[OnlineStore]:
    with open_store() as opened:
        yield opened
