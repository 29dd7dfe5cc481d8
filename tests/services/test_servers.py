"""The servers that tests start: real, on loopback alone, apart from each other, and gone afterwards."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
import redis
from services.servers import HOST, ServerMissing, find_program, process_environment, run_redis, run_server
from sqlalchemy import create_engine, make_url, text

STARTER = """
import sys, time
from services.servers import run_postgresql, run_redis
with run_redis() as port, run_postgresql() as url:
    print(port, url.rsplit(":", 1)[1].split("/")[0], flush=True)
    time.sleep(60)
"""


def test_postgresql_keeps_what_a_transaction_wrote(postgresql_url: str) -> None:
    engine = create_engine(postgresql_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE kept (number integer)"))
        connection.execute(text("INSERT INTO kept VALUES (7)"))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT number FROM kept")).scalar_one() == 7
        assert connection.execute(text("SHOW listen_addresses")).scalar_one() == HOST
    engine.dispose()


def test_every_test_gets_an_empty_database_of_its_own(postgresql_url: str) -> None:
    url = make_url(postgresql_url)
    with psycopg.connect(host=url.host, port=url.port, user=url.username, dbname=url.database) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert tables == (0,)


@pytest.mark.parametrize("value", ["first", "second"])
def test_redis_is_empty_for_every_test(redis_url: str, value: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        assert client.dbsize() == 0
        client.set("key", value)
        assert client.get("key") == value
        assert client.config_get("bind") == {"bind": HOST}


def test_a_server_takes_options_and_is_gone_after_its_block() -> None:
    with run_redis("--cluster-enabled", "yes") as port, redis.Redis(port=port) as client:
        assert client.info("cluster") == {"cluster_enabled": 1}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port), timeout=1)


def test_servers_end_with_the_process_that_started_them_even_if_it_is_killed() -> None:
    # Nobody is left to remove what the killed process's servers wrote, so it goes where this test removes it.
    scratch = tempfile.TemporaryDirectory(prefix="plumbline-killed-", ignore_cleanup_errors=True)
    Path(scratch.name).chmod(0o755)
    command, environment = [sys.executable, "-c", STARTER], process_environment(TMPDIR=scratch.name)
    with scratch, subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as starter:
        assert starter.stdout is not None
        ports = [int(word) for word in starter.stdout.readline().split()]
        assert len(ports) == 2
        starter.send_signal(signal.SIGKILL)
        starter.wait()
        deadline = time.monotonic() + 20
        while any(listens(port) for port in ports) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [port for port in ports if listens(port)] == []


def test_a_program_that_is_missing_or_ends_at_once_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ServerMissing, match="^no-such-server is not installed; .*next: run tests/services/install.sh$"):
        find_program("no-such-server")
    with (
        pytest.raises(ServerMissing, match="^broken did not start: bad option$"),
        run_server(lambda _: ["sh", "-c", "echo bad option; exit 3"], tmp_path / "broken.log", listens),
    ):
        pass


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0
