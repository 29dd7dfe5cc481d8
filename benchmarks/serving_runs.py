"""Server processes of the serving benchmark, and one load on one of them with the processor time that each side took."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
import redis

from benchmarks.serving_load import Load, Result

START_TIMEOUT_S: Final = 600.0
TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Target:
    """What answers at one port: processes, their store, and the path of predictions."""

    name: str
    port: int
    processes: tuple[subprocess.Popen[bytes], ...]
    path: str

    def ask(self, body: dict[str, Any]) -> Any:
        """The predictions of one V1 body."""
        reply = httpx.post(f"http://127.0.0.1:{self.port}{self.path}", json=body, timeout=60)
        reply.raise_for_status()
        return reply.json()["predictions"]


@dataclass(frozen=True)
class Run:
    """One load on one target; ``server_cpu_s`` holds its processes and the store."""

    target: str
    load: Load
    predictions: int
    result: Result
    server_cpu_s: float

    @property
    def rate(self) -> float:
        """Predictions a second of wall time."""
        return self.predictions * self.result.answered / self.result.wall_s

    @property
    def per_cpu_s(self) -> float:
        """Predictions a second of the servers' processor time."""
        return self.predictions * self.result.answered / self.server_cpu_s


@contextlib.contextmanager
def process(*words: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """This Python with these words, ended with the context."""
    with log.open("wb") as output:
        started = subprocess.Popen([sys.executable, *words], stdout=output, stderr=output)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(30)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def wait_until_ready(port: int, started: subprocess.Popen[bytes], log: Path) -> None:
    """Until a server says that it is ready.

    Raises:
        RuntimeError: it has ended, or has not become ready in time.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and started.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/v2/health/ready", timeout=10).status_code == httpx.codes.OK:
                return
        time.sleep(0.2)
    raise RuntimeError(f"server at port {port} did not start: {log.read_text(errors='replace')[-500:]}")


def play(target: Target, load: Load, predictions: int, store: redis.Redis[bytes]) -> Run:
    """Send a load from a process of its own.

    Args:
        predictions: in one request.

    Raises:
        RuntimeError: a request was not answered with status 200.
    """
    before = _cpu_s(target, store)
    command = [sys.executable, "-m", "benchmarks.serving_load"]
    done = subprocess.run(command, input=orjson.dumps(asdict(load)), stdout=subprocess.PIPE, check=True)
    result = Result(**orjson.loads(done.stdout))
    if result.failed:
        raise RuntimeError(f"{target.name} failed {result.failed} of {result.answered + result.failed} requests")
    return Run(target.name, load, predictions, result, _cpu_s(target, store) - before)


def _cpu_s(target: Target, store: redis.Redis[bytes]) -> float:
    """Processor seconds of the target's processes and of the store so far."""
    total = 0.0
    for each in target.processes:
        fields = Path(f"/proc/{each.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / TICKS
    info: Any = store.info("cpu")
    return float(total + info["used_cpu_sys"] + info["used_cpu_user"])
