"""Fixtures over ``servers``: one server of each kind for a test process, emptied for every test that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from services.kafka import run_kafka
from services.servers import run_postgresql, run_redis


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """SQLAlchemy URL of a PostgreSQL server's maintenance database, the same for all tests of the process."""
    with run_postgresql() as url:
        yield url


@pytest.fixture
def postgresql_url(postgresql_server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """SQLAlchemy URL of an empty database of the test's own."""
    import psycopg

    server, _, _ = postgresql_server.rpartition("/")
    name = f"test_{abs(hash(request.node.nodeid)):x}"
    with psycopg.connect(f"{server.replace('+psycopg', '')}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield f"{server}/{name}"
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def redis_server() -> Iterator[int]:
    """Port of a Redis server on 127.0.0.1, the same for all tests of the process."""
    with run_redis() as port:
        yield port


@pytest.fixture
def redis_url(redis_server: int) -> str:
    """URL of that server with nothing in it."""
    import redis

    url = f"redis://127.0.0.1:{redis_server}/0"
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture(scope="session")
def kafka_server() -> Iterator[str]:
    """Bootstrap address of a Kafka broker on 127.0.0.1, the same for all tests of the process; each makes its own topics."""
    with run_kafka() as servers:
        yield servers


@pytest.fixture(params=["sqlite", "postgresql"])
def control_url(request: pytest.FixtureRequest) -> str:
    """What a workspace names as its control database; every test that asks for it runs over each kind."""
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgresql_url"))
