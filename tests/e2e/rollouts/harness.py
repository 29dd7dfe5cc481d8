"""A plane, a controller and a client that counts: what a test of whole rollouts starts, and what it asks of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from planes.harness import ROOT, Process, plumb_up, service
from services.servers import free_port, process_environment

PLUMB = [sys.executable, "-c", "from plumb.app import main; main()"]
MOST_WAITING = 100
WAIT_S = 600
"""A server loads for ten seconds of CPU, which a busy machine may take minutes for."""


@dataclass(frozen=True)
class Answer:
    """One request as the client saw it: who asked, when it was sent and answered (monotonic seconds; UTC microseconds), the
    status, 0 where no answer came, and the revision that answered."""

    entity: str
    sent_us: int
    sent_s: float
    answered_s: float
    status: int
    revision: str


@dataclass
class Load:
    """What a stream of requests got."""

    sent: int = 0
    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0
    """That it was sent for."""

    @property
    def lost(self) -> int:
        """Requests without a good answer."""
        return self.sent - sum(answer.status == 200 for answer in self.answers)

    @property
    def rate(self) -> float:
        """Requests a second that the machine held."""
        return self.sent / self.seconds

    def first(self, revision: str) -> Answer:
        """The first answer of a revision."""
        return min((answer for answer in self.answers if answer.revision == revision), key=lambda answer: answer.answered_s)

    def last(self, revision: str) -> Answer:
        """The last answer of a revision."""
        return max((answer for answer in self.answers if answer.revision == revision), key=lambda answer: answer.answered_s)


@contextlib.contextmanager
def sending(
    url: str, *, rate: int, users: int, name: str = "churn", user: Callable[[int], int] = lambda number: number
) -> Iterator[Load]:
    """Send ``rate`` requests a second, each for the next of ``users`` users; ends when all are answered.

    ``user`` says which user the n-th of them is.

    Whatever answers take, unless ``MOST_WAITING`` are waited for: then the machine is too slow for that rate, and ``Load.rate``
    says what it held.
    """
    seen, stopping = Load(), threading.Event()

    async def ask(session: aiohttp.ClientSession, number: int) -> None:
        entity, sent_us, sent_s = f"u{user(number % users):06d}", time.time_ns() // 1_000, time.monotonic()
        status, revision = 0, ""
        try:
            async with session.post(f"{url}/v1/models/{name}:predict", json={"instances": [{"entity_id": entity}]}) as reply:
                await reply.read()
                status, revision = reply.status, reply.headers.get("x-plumb-revision", "")
        except aiohttp.ClientError:
            pass  # a request without an answer stays one: status 0
        seen.answers.append(Answer(entity, sent_us, sent_s, time.monotonic(), status, revision))

    async def run() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            asking: set[asyncio.Task[None]] = set()
            started = time.monotonic()
            while not stopping.is_set():
                due = int((time.monotonic() - started) * rate)
                while seen.sent < due and len(asking) < MOST_WAITING:
                    task = asyncio.create_task(ask(session, seen.sent))
                    seen.sent += 1
                    asking.add(task)
                    task.add_done_callback(asking.discard)
                await asyncio.sleep(2 / rate)
            seen.seconds = time.monotonic() - started
            await asyncio.gather(*asking)

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(lambda: asyncio.run(run()))
        try:
            yield seen
        finally:
            stopping.set()
            running.result(120)


@dataclass
class Stage:
    """A workspace with a plane, and a port on which a controller takes events."""

    workspace: Path
    plane: Process
    port: int
    log: Path

    def plumb(self, *arguments: str, expect: int = 0) -> str:
        """Run a command to its end; gives what it printed."""
        command = [*PLUMB, "--workspace", str(self.workspace), *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=process_environment(), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout

    def show(self, rollout: str = "churn") -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self.plumb("rollouts", "show", rollout, "--json"))
        return facts

    def weight(self) -> int:
        """The canary's percent as the plane's document says; 0 where there is none."""
        return sum(entry["trafficPercent"] for entry in self.plane.get()["spec"].get("canary", []))

    def until(self, holds: Callable[[], Any], timeout_s: float = WAIT_S, what: str = "it") -> None:
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline, f"{what} did not come true; {self.log.read_text()[-3000:]}"
            time.sleep(0.1)


@contextlib.contextmanager
def stage(workspace: Path, folder: Path, *options: str, version: int) -> Iterator[Stage]:
    """``plumb up``, with these options, and one version of churn whose events go to a controller's port."""
    port, path = free_port(), folder / "churn.yaml"
    path.write_text(yaml.safe_dump(service(version, logger={"mode": "all", "url": f"http://127.0.0.1:{port}/events"})))
    with plumb_up(workspace, "--service", str(path), *options) as plane:
        plane.until_ready("stable", timeout_s=WAIT_S)
        yield Stage(workspace, plane, port, folder / "controller.log")


def start_plane(place: Stage) -> None:
    """Start ``plumb up`` again on the ports that it had; the caller ends it."""
    ports = [address.rpartition(":")[2] for address in (place.plane.url, place.plane.admin)]
    command = [*PLUMB, "--workspace", str(place.workspace), "up", "--no-prometheus"]
    command += ["--port", ports[0], "--admin-port", ports[1]]
    process = subprocess.Popen(command, cwd=ROOT, env=process_environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "plane at" in line, line
    place.plane.process = process


def start_controller(
    place: Stage, *options: str, tick_s: float = 0.5, lease_s: float = 5, port: int | None = None
) -> subprocess.Popen[str]:
    """``plumb rollouts run``; the caller ends it."""
    command = [*PLUMB, "--workspace", str(place.workspace), "rollouts", "run", "--plane", place.plane.admin]
    command += [
        "--port",
        str(place.port if port is None else port),
        "--tick",
        str(tick_s),
        "--lease",
        str(lease_s),
        "--ready-within",
        "600",
        *options,
    ]
    with place.log.open("a") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=process_environment(), stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "controller at" in line, line + place.log.read_text()[-3000:]
    return process


@contextlib.contextmanager
def controlled(place: Stage, *words: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A controller for as long as the block runs; it must end cleanly."""
    process = start_controller(place, *words, **options)
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


def kill(process: subprocess.Popen[str]) -> None:
    """kill -9, at once."""
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def write_plan(path: Path, *stages: tuple[int, int, int], gates: tuple[dict[str, Any], ...] = ()) -> Path:
    """A plan file of (percent, bake_s, least_users) stages."""
    names = ("percent", "bake_s", "least_users")
    content: dict[str, Any] = {"stages": [dict(zip(names, entry, strict=True)) for entry in stages], "blind_s": 20}
    content["gates"] = list(gates) or [
        {"kind": "errors", "tolerance": 0.05}, {"kind": "degraded", "tolerance": 0.1}, {"kind": "score", "tolerance": 0.2},
    ]  # fmt: skip
    path.write_text(yaml.safe_dump(content))
    return path
