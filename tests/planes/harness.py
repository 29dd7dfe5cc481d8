"""Planes for tests: one in a thread of the test with stand-in servers, and ``plumb up`` with real ones."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import httpx

from inference.plane.admin import COLLECTION
from inference.plane.documents import Documents
from inference.plane.plane import Outside, Plane
from inference.plane.process import Command
from inference.plane.settings import PlaneSettings

ROOT = Path(__file__).parents[2]
STAND_IN = Path(__file__).parent / "stand_in.py"
MODEL = {"name": "kserve-container", "modelFormat": {"name": "plumbline"}}


def service(
    stable: int = 1, *, name: str = "churn", canary: int | None = None, percent: int = 0, **changes: Any
) -> dict[str, Any]:
    """A document of a service with versions of the model churn; ``changes`` go into its predictor."""
    spec: dict[str, Any] = {"predictor": {"model": {**MODEL, "storageUri": f"pvc://plumb-models/churn/{stable}"}, **changes}}
    if canary is not None:
        spec["canary"] = [canary_of(canary, percent)]
    metadata = {"name": name, "annotations": {"serving.kserve.io/deploymentMode": "Standard"}}
    return {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": metadata, "spec": spec}


def canary_of(version: int, percent: int) -> dict[str, Any]:
    model = {**MODEL, "storageUri": f"pvc://plumb-models/churn/{version}"}
    return {"trafficPercent": percent, "predictor": {"name": f"v{version}", "model": model}}


@dataclass
class Client:
    """What a test asks of a running plane."""

    url: str
    admin: str
    http: httpx.Client

    def get(self, name: str = "churn") -> dict[str, Any]:
        reply = self.http.get(f"{self.admin}{COLLECTION}/{name}")
        reply.raise_for_status()
        return dict(reply.json())

    def put(self, document: dict[str, Any]) -> httpx.Response:
        return self.http.put(f"{self.admin}{COLLECTION}/{document['metadata']['name']}", json=document)

    def patch(self, *operations: dict[str, Any], name: str = "churn") -> httpx.Response:
        headers = {"Content-Type": "application/json-patch+json"}
        return self.http.patch(f"{self.admin}{COLLECTION}/{name}", json=list(operations), headers=headers)

    def shift(self, percent: int) -> dict[str, Any]:
        reply = self.patch({"op": "replace", "path": "/spec/canary/0/trafficPercent", "value": percent})
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    def predict(self, *entities: str, name: str = "churn", **headers: str) -> httpx.Response:
        body = {"instances": [{"entity_id": entity} for entity in entities]}
        return self.http.post(f"{self.url}/v1/models/{name}:predict", json=body, headers=headers)

    def metric(self, name: str, **labels: str) -> float:
        """A series' value at the admin port; 0 where there is none."""
        for line in self.http.get(f"{self.admin}/metrics").text.splitlines():
            series, _, value = line.rpartition(" ")
            if series.startswith(f"{name}{{") and all(f'{key}="{text}"' in series for key, text in labels.items()):
                return float(value)
        return 0.0

    def revision(self, name: str, of: str = "churn") -> dict[str, Any]:
        return next((entry for entry in self.get(of)["status"]["revisions"] if entry["name"] == name), {})

    def until(self, holds: Callable[[], Any], timeout_s: float = 30, *, what: str = "") -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline, (
                f"{what or holds} did not come true; {self.http.get(self.admin + COLLECTION).text}"
            )
            time.sleep(0.02)

    def until_ready(self, *revisions: str, of: str = "churn", timeout_s: float = 60) -> None:
        self.until(
            lambda: all(self.revision(name, of).get("ready") for name in revisions), timeout_s, what=f"{revisions} ready"
        )


@dataclass
class Threaded(Client):
    """A plane in a thread, and what it told its operator."""

    told: list[str] = field(default_factory=list)


@contextlib.contextmanager
def plane_in_thread(folder: Path, *, environment: dict[str, str] | None = None, **settings: Any) -> Iterator[Threaded]:
    """A plane with stand-in servers; ends with nothing left running."""
    told: list[str] = []
    addresses: Future[tuple[str, str]] = Future()
    stop: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    def command(_service: Any, predictor: Any) -> Command:
        words = [sys.executable, str(STAND_IN), predictor.name, str(predictor.version)]
        given = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {}), **dict(predictor.environment)}
        return Command(words, given)

    def log(_service: Any, predictor: Any) -> Path:
        return folder / "logs" / f"{predictor.name}.log"

    async def run() -> None:
        stopping = asyncio.Event()
        stop.set_result((asyncio.get_running_loop(), stopping))
        fast = {"probe_interval_s": 0.05, "backoff_s": 0.05, "port": 0, "admin_port": 0, "drain_s": 1.0} | settings
        outside = Outside(command, log, lambda: time.time_ns() // 1_000, told.append)
        plane = Plane(PlaneSettings(**fast), Documents(folder), outside)
        await plane.run(stopping, lambda *found: addresses.set_result(found))

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(lambda: asyncio.run(run()))
        loop, event = stop.result(30)
        try:
            while not (addresses.done() or running.done()):
                time.sleep(0.01)
            if not addresses.done():
                running.result()
            with httpx.Client(timeout=30) as http:
                yield Threaded(*addresses.result(), http, told=told)
        finally:
            if not running.done():
                loop.call_soon_threadsafe(event.set)
            running.result(60)


@dataclass
class Sink:
    """A real HTTP sink: what it was sent, headers in lower case, and where it listens."""

    url: str
    events: list[tuple[dict[str, str], bytes]]

    def of(self, kind: str) -> list[tuple[dict[str, str], bytes]]:
        wanted = f"org.kubeflow.serving.inference.{kind}"
        return [event for event in self.events if event[0]["ce-type"] == wanted]


@contextlib.contextmanager
def sink(*, port: int = 0, delay_s: float = 0.0, status: int = 200) -> Iterator[Sink]:
    """A sink that takes ``delay_s`` for each event and answers with ``status``."""
    events: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            time.sleep(delay_s)
            events.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # the other side may go away while it waits

    with Server(("127.0.0.1", port), Handler) as server, ThreadPoolExecutor(1) as thread:
        thread.submit(server.serve_forever, 0.05)
        try:
            yield Sink(f"http://127.0.0.1:{server.server_port}/", events)
        finally:
            server.shutdown()


@dataclass
class Sent:
    """What a stream of requests got: (entity, status, revision) of each; status 0 where no answer came."""

    answers: list[tuple[str, int, str]] = field(default_factory=list)

    @property
    def codes(self) -> set[int]:
        return {code for _, code, _ in self.answers}

    @property
    def revisions(self) -> set[str]:
        return {revision for _, _, revision in self.answers}


@contextlib.contextmanager
def traffic(url: str, *, rate: int = 200, users: int = 500) -> Iterator[Sent]:
    """Send ``rate`` requests a second for users u0, u1, ..., whatever the answers do; when it ends every one has its answer."""
    sent, stopping = Sent(), threading.Event()

    async def ask(session: aiohttp.ClientSession, number: int) -> None:
        entity = f"u{number % users}"
        place = len(sent.answers)
        sent.answers.append((entity, 0, ""))
        async with session.post(f"{url}/v1/models/churn:predict", json={"instances": [{"entity_id": entity}]}) as reply:
            await reply.read()
            sent.answers[place] = (entity, reply.status, reply.headers.get("x-plumb-revision", ""))

    async def run() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            asking = []
            started = time.monotonic()
            while not stopping.is_set():
                due = int((time.monotonic() - started) * rate)
                asking += [asyncio.create_task(ask(session, number)) for number in range(len(asking), due)]
                await asyncio.sleep(1 / rate)
            await asyncio.gather(*asking, return_exceptions=True)

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(lambda: asyncio.run(run()))
        try:
            yield sent
        finally:
            stopping.set()
            running.result(120)


@dataclass
class Process(Client):
    """A ``plumb up`` of its own."""

    process: subprocess.Popen[str]


@contextlib.contextmanager
def plumb_up(workspace: Path, *arguments: str) -> Iterator[Process]:
    """``plumb up`` on free ports; ends with SIGTERM, unless the test has killed it."""
    command = [sys.executable, "-c", "from plumb.app import main; main()", "--workspace", str(workspace)]
    command += ["up", "--port", "0", "--admin-port", "0", *arguments]
    command += [] if "--prometheus-port" in arguments else ["--no-prometheus"]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"plumb: plane at (\S+) \(admin (\S+)\)\n", line)
        assert found, line
        with httpx.Client(timeout=30) as http:
            yield Process(found[1], found[2], http, process)
    finally:
        process.terminate()
        process.communicate(timeout=60)
