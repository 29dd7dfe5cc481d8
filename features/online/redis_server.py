"""One Redis server: connecting to it, whether it can be trusted with states, and what its errors mean."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import orjson
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from features.errors import StoreError, StoreUnavailable, explain
from features.online.redis_commands import Keys

DEFAULT_TIMEOUT_S: Final = 5.0
READ_BYTES: Final = 256 << 10
"""Bytes taken from the socket at once: fewer calls for large replies than with the client's 64 KiB."""
LEAST_VERSION: Final = (7, 0)
"""From here on Redis numbers the entries of a stream within a position by itself."""


def connect(url: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> redis.ConnectionPool:
    """Connections to one server, made as they are needed; nothing is tried twice, the caller decides.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, as redis-py takes them.
        timeout_s: seconds that connecting, sending, and each wait for more of a reply may take.

    Raises:
        StoreError: the address cannot be read.
    """
    try:
        return redis.ConnectionPool.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, socket_read_size=READ_BYTES,
            retry=Retry(NoBackoff(), 0),
        )  # fmt: skip
    except ValueError as error:
        raise StoreError(
            explain("address of the online store cannot be read", which=repr(url.rpartition("@")[2])[:80],
                    expected="redis://HOST:PORT/DATABASE", got=str(error), next_step="correct the address")
        ) from error  # fmt: skip


class Channel(threading.local):
    """One connection a thread, kept: taking one from the pool for each read would cost a third of a single read."""

    def __init__(self, pool: redis.ConnectionPool) -> None:
        self._pool = pool
        self._connection: Any = None

    def ask(self, commands: list[bytes]) -> list[Any]:
        """Send packed commands together and give their replies; a connection that was closed meanwhile is made anew once.

        Raises:
            redis.RedisError: the server cannot be reached, does not answer in time, or refuses.
        """
        fresh = self._connection is None
        try:
            return self._ask(commands)
        except redis.ConnectionError:
            if fresh:
                raise
        return self._ask(commands)

    def _ask(self, commands: list[bytes]) -> list[Any]:
        connection = self._connection or self._pool.get_connection()
        self._connection = None
        try:
            connection.send_packed_command(commands)
            replies = [connection.read_response(disable_decoding=True) for _ in commands]
            self._connection = connection
        finally:
            if self._connection is None:
                # What is still to come would be taken for the answer to the next question.
                connection.disconnect()
                self._pool.release(connection)
        return replies


def address_of(pool: redis.ConnectionPool) -> str:
    """Where the pool connects to, without the password."""
    where = pool.connection_kwargs
    host = where.get("path") or f"{where.get('host', 'localhost')}:{where.get('port', 6379)}"
    return f"redis {host} database {where.get('db', 0)}"


def check_server(client: redis.Redis, address: str) -> None:
    """Refuse a server that is too old, or that may drop values on its own: a dropped state reads like a cold user."""
    server: Any = client.info("server")
    if tuple(int(part) for part in server["redis_version"].split(".")[:2]) < LEAST_VERSION:
        raise StoreError(
            explain("Redis server is too old", which=address, expected=".".join(map(str, LEAST_VERSION)),
                    got=server["redis_version"], next_step="upgrade the server")
        )  # fmt: skip
    memory: Any = client.info("memory")
    if memory["maxmemory"] and memory["maxmemory_policy"].startswith("allkeys"):
        raise StoreError(
            explain("Redis server may evict states", which=address, expected="maxmemory-policy noeviction",
                    got=memory["maxmemory_policy"], next_step="set maxmemory-policy to noeviction")
        )  # fmt: skip


def read_identity(pool: redis.ConnectionPool, view_key: str) -> dict[str, Any] | None:
    """What the server says of a view's store, whatever is wanted of it; None where there is none.

    Raises:
        StoreUnavailable: it does not answer.
    """
    with talking(address_of(pool)), redis.Redis(connection_pool=pool) as client:
        stored: Any = client.get(Keys(view_key, 1).identity)
    return orjson.loads(stored) if stored else None


@contextmanager
def talking(address: str) -> Iterator[None]:
    """Redis' errors as ours: what can pass by itself is unavailable, everything else needs a person."""
    try:
        yield
    except redis.OutOfMemoryError as error:
        raise StoreError(
            explain("online store is full", which=address, expected="memory below the server's maxmemory",
                    got=str(error), next_step="give the server more memory, or shard over more servers")
        ) from error  # fmt: skip
    except (redis.AuthenticationError, redis.ResponseError) as error:
        if isinstance(error, redis.exceptions.ReadOnlyError):
            raise _unavailable(address, error) from error
        raise StoreError(
            explain("online store refuses the request", which=address, expected="a Redis server that answers",
                    got=str(error), next_step="check the address, its password and its server")
        ) from error  # fmt: skip
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise _unavailable(address, error) from error


def _unavailable(address: str, error: Exception) -> StoreUnavailable:
    return StoreUnavailable(
        explain("online store cannot be used now", which=address, expected="an answer from Redis in time",
                got=str(error) or type(error).__name__, next_step="look at the server and try again")
    )  # fmt: skip
