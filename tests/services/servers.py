"""Real servers for tests: each started on a free loopback port with a folder of its own, and stopped with its test process.

Their programs come from the system's packages; ``install.sh`` beside this file installs them where they are missing.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 20.0
STARTS: Final = 3
DEBIAN_POSTGRESQL: Final = Path("/usr/lib/postgresql")
UNPRIVILEGED: Final = ("postgres", "nobody")


class ServerMissing(Exception):
    """A program is not installed, or it does not start; the text is one line."""


@dataclass(frozen=True)
class Account:
    """Who a server runs as: PostgreSQL refuses to run as root."""

    uid: int
    gid: int

    @property
    def prefix(self) -> list[str]:
        """Words before a command that make it run as this account, and end when the process that started it ends."""
        switch = [] if self.uid == os.getuid() else [f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        return [find_program("setpriv"), *switch, "--pdeathsig", "INT"]


@contextlib.contextmanager
def run_redis(*options: str) -> Iterator[int]:
    """A Redis server that keeps nothing on disk; gives its port.

    Args:
        options: further ones, as on its command line (``"--cluster-enabled", "yes"``).
    """
    program = find_program("redis-server")
    account = Account(os.getuid(), os.getgid())
    with temporary_folder(account) as folder:

        def command(port: int) -> list[str]:
            fixed = ["--bind", HOST, "--port", str(port), "--dir", str(folder), "--save", "", "--appendonly", "no"]
            return [*account.prefix, program, *fixed, *options]

        with run_server(command, folder / "redis.log", redis_answers) as port:
            yield port


@contextlib.contextmanager
def run_postgresql() -> Iterator[str]:
    """A PostgreSQL server with a database ``plumbline``; gives its SQLAlchemy URL."""
    with postgresql_folder() as (folder, command), run_server(command, folder / "postgresql.log", postgresql_answers) as port:
        yield postgresql_url(port)


@dataclass
class Restartable:
    """A PostgreSQL server that a test ends and starts again, with the same data on the same port."""

    port: int
    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return postgresql_url(self.port)

    def start(self) -> None:
        """Start it, and wait until it takes sessions."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(self.command, cwd=self.log.parent, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        if not wait_until_it_answers(self.process, self.port, postgresql_answers):
            raise ServerMissing(f"PostgreSQL did not start: {self.log.read_text(errors='replace')[-300:]}")

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT rolls back what is open and ends in order, SIGQUIT leaves it for recovery, as a crash does."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(STOP_TIMEOUT_S)


@contextlib.contextmanager
def run_restartable_postgresql() -> Iterator[Restartable]:
    """A PostgreSQL server of the caller's own, started."""
    with postgresql_folder() as (folder, command):
        port = free_port()
        server = Restartable(port, command(port), folder / "postgresql.log")
        server.start()
        try:
            yield server
        finally:
            if server.process is not None:
                stop(server.process)


def postgresql_url(port: int) -> str:
    """Its maintenance database, for SQLAlchemy."""
    return f"postgresql+psycopg://plumbline@{HOST}:{port}/postgres"


@contextlib.contextmanager
def postgresql_folder() -> Iterator[tuple[Path, Callable[[int], list[str]]]]:
    """A folder with an empty database cluster, and the command that serves it on a port."""
    initdb, postgres = find_program("initdb"), find_program("postgres")
    account = unprivileged_account()
    with temporary_folder(account) as folder:
        data = folder / "data"
        words = [initdb, "--pgdata", str(data), "--username=plumbline", "--auth=trust", "--encoding=UTF8", "--no-sync"]
        made = subprocess.run([*account.prefix, *words], cwd=folder, capture_output=True, text=True, check=False)
        if made.returncode:
            raise ServerMissing(f"initdb failed: {' '.join(made.stderr.split())}")

        def command(port: int) -> list[str]:
            settings = {"listen_addresses": HOST, "port": port, "unix_socket_directories": "", "fsync": "off"}
            options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
            return [*account.prefix, postgres, "-D", str(data), *options]

        yield folder, command


@contextlib.contextmanager
def run_server(command: Callable[[int], list[str]], log: Path, answers: Callable[[int], bool]) -> Iterator[int]:
    """Start a server on a free port, wait until it answers, stop it at the end.

    Between choosing a port and binding it another process may take it; then another port is tried.
    """
    for _ in range(STARTS):
        port = free_port()
        with log.open("wb") as out:
            process = subprocess.Popen(
                command(port), cwd=log.parent, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
        try:
            if wait_until_it_answers(process, port, answers):
                yield port
                return
        finally:
            stop(process)
    last = log.read_text(errors="replace").strip().splitlines()[-1:]
    raise ServerMissing(f"{log.stem} did not start: {' '.join(last) or 'it wrote nothing'}")


def wait_until_it_answers(process: subprocess.Popen[bytes], port: int, answers: Callable[[int], bool]) -> bool:
    """False where the process ended or the time is up."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        if answers(port):
            return process.poll() is None
        time.sleep(0.05)
    return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGINT is a fast, orderly stop for both servers; one that does not heed it is killed."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def redis_answers(port: int) -> bool:
    """Does it reply to PING?"""
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith((b"+PONG", b"-LOADING")) is True
    except OSError:
        return False


def postgresql_answers(port: int) -> bool:
    """Does it take a session? It accepts connections before it is ready for one."""
    import psycopg

    try:
        psycopg.connect(host=HOST, port=port, user="plumbline", dbname="postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def find_program(name: str) -> str:
    """Path of an installed program; Debian keeps PostgreSQL's out of PATH.

    Raises:
        ServerMissing: it is not installed.
    """
    packaged = sorted(DEBIAN_POSTGRESQL.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    found = shutil.which(name) or (str(packaged[-1]) if packaged else None)
    if found is None:
        raise ServerMissing(f"{name} is not installed; expected it on PATH; next: run tests/services/install.sh")
    return found


def unprivileged_account() -> Account:
    """Ourselves, or for root an account that has no rights."""
    if os.getuid() != 0:
        return Account(os.getuid(), os.getgid())
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    chosen = next(known[name] for name in UNPRIVILEGED if name in known)
    return Account(chosen.pw_uid, chosen.pw_gid)


@contextlib.contextmanager
def temporary_folder(account: Account) -> Iterator[Path]:
    """A folder that the account owns and that others cannot read; pytest's own are closed to other accounts."""
    folder = Path(tempfile.mkdtemp(prefix="plumbline-server-"))
    try:
        os.chown(folder, account.uid, account.gid)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def process_environment(**extra: str) -> dict[str, str]:
    """The environment of a process that a test starts: ours, with the tests' shared modules on its path."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent), **extra}
