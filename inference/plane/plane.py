"""The local data plane: services from their documents, inference on one loopback port, the admin API on another."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from features.errors import explain
from inference.plane.admin import Change, build_admin
from inference.plane.document import Predictor, Service
from inference.plane.documents import Documents
from inference.plane.errors import PlaneError
from inference.plane.events import EventSender, SenderLimits
from inference.plane.group import Group
from inference.plane.metrics import PlaneMetrics
from inference.plane.process import Command
from inference.plane.proxy import Proxy, Route
from inference.plane.revision import Revision
from inference.plane.settings import LOOPBACK, PlaneSettings


@dataclass(frozen=True)
class Outside:
    """What the command line provides.

    Attributes:
        command: how the server process of a service's predictor is started.
        log: file for what that process writes to its standard error.
        clock_us: UTC microseconds.
        tell: shows the operator a line.
    """

    command: Callable[[Service, Predictor], Command]
    log: Callable[[Service, Predictor], Path]
    clock_us: Callable[[], int]
    tell: Callable[[str], None]


class Plane:
    """Runs the services of one folder of documents. Every change is on disk before anybody acts on it, but for less traffic."""

    def __init__(self, settings: PlaneSettings, documents: Documents, outside: Outside) -> None:
        self._settings = settings
        self._documents = documents
        self._outside = outside
        self._metrics = PlaneMetrics()
        self._proxy = Proxy(self._metrics, outside.clock_us)
        self._groups: dict[str, Group] = {}
        self._changing = asyncio.Lock()
        self._address = ""

    async def run(self, stopping: asyncio.Event, announce: Callable[[str, str], None]) -> None:
        """Serve until told to stop; then take no more requests, finish those in flight, and end every process.

        Args:
            announce: told the addresses of inference and of the admin API once both accept requests; the services may not
                be ready yet.
        Raises:
            PlaneError: a port is taken.
        """
        grace_s = self._settings.stop_timeout_s
        server = web.Server(self._proxy.handle, request_factory=self._read_request, access_log=None)
        inference = web.ServerRunner(server, shutdown_timeout=grace_s)
        admin = web.AppRunner(build_admin(self, self._metrics.registry), access_log=None, shutdown_timeout=grace_s)
        ports = _bind(self._settings.port, "--port"), _bind(self._settings.admin_port, "--admin-port")
        self._address, admin_address = (f"http://{LOOPBACK}:{port.getsockname()[1]}" for port in ports)
        writing = asyncio.create_task(self._write_pending())
        try:
            # Who may ask finds every service: one that has no group yet would look as if it did not exist.
            for name in self._documents.names():
                self._groups[name] = self._build(self._service(name))
                self._show_pending(name)
            await _listen(inference, ports[0], "--port")
            await _listen(admin, ports[1], "--admin-port")
            announce(self._address, admin_address)
            await stopping.wait()
        finally:
            writing.cancel()
            await admin.cleanup()
            await inference.cleanup()
            await asyncio.gather(*(group.stop() for group in self._groups.values()))

    def names(self) -> list[str]:
        """Names of the services."""
        return self._documents.names()

    def show(self, name: str) -> dict[str, Any] | None:
        """A service's document with its status; None where there is none."""
        document, group = self._documents.read(name), self._groups.get(name)
        if document is None or group is None:
            return None
        status, trouble = group.status(self._address), self._documents.pending.get(name)
        recorded = {"type": "Recorded", "status": "False" if trouble else "True"}
        recorded |= {"reason": "NotOnDisk", "message": trouble} if trouble else {}
        return {**document, "status": {**status, "conditions": [*status["conditions"], recorded]}}

    async def change(self, name: str, change: Change) -> dict[str, Any]:
        """Store the document that ``change`` makes of the current one, then act on it; the new one with its status.

        Raises:
            DocumentError, ConflictError, PatchError, NotRecorded: nothing was changed.
        """
        async with self._changing:
            document = change(self._documents.read(name))
            now_us = self._outside.clock_us()
            service = await asyncio.to_thread(self._documents.write, name, document, now_us)
            self._show_pending(name)
            group = self._groups.get(name)
            if group is None:
                self._groups[name] = self._build(service)
            else:
                await group.replace(service)
            shown = self.show(name)
            assert shown is not None
            return shown

    async def remove(self, name: str) -> bool:
        """Drain a service's revisions, end them and forget it; False where there is none."""
        async with self._changing:
            group = self._groups.pop(name, None)
            if group is None:
                return False
            await asyncio.to_thread(self._documents.delete, name)
            self._proxy.routes.pop(name, None)
            await group.stop()
            return True

    def _show_pending(self, name: str) -> None:
        trouble = self._documents.pending.get(name)
        self._metrics.pending.labels(name).set(bool(trouble))
        if trouble:
            self._outside.tell(f"{name}: in effect but not on disk: {trouble}")

    async def _write_pending(self) -> None:
        """Try again and again to write what could not be written."""
        while True:
            await asyncio.sleep(self._settings.rewrite_s)
            if not self._documents.pending:
                continue
            async with self._changing:
                for name in await asyncio.to_thread(self._documents.write_pending):
                    self._show_pending(name)
                    self._outside.tell(f"{name}: on disk again")

    def _build(self, service: Service) -> Group:
        for field in service.ignored:
            self._outside.tell(f"{service.name}: {field} has no meaning on one machine and is ignored")
        return Group(service, self._start, self._set_route, self._connect, self._metrics, self._settings.drain_s)

    def _service(self, name: str) -> Service:
        service = self._documents.service(name)
        assert service is not None
        return service

    def _start(self, service: Service, predictor: Predictor, changed: Callable[[Revision], None]) -> Revision:
        def tell_and_change(revision: Revision) -> None:
            if revision.ready:
                self._outside.tell(f"{service.name}/{revision.name} ready: {predictor.model} version {predictor.version}")
            elif revision.trouble:
                self._outside.tell(f"{service.name}/{revision.name} not ready: {revision.trouble}")
            changed(revision)

        command, log = self._outside.command(service, predictor), self._outside.log(service, predictor)
        revision = Revision(predictor, command, log, self._settings, tell_and_change)
        revision.start()
        return revision

    def _set_route(self, route: Route) -> None:
        self._proxy.routes[route.service] = route

    def _connect(self, service: Service) -> EventSender | None:
        if service.logger is None:
            return None
        self._metrics.begin_events(service.name)
        sent, dropped = self._metrics.events_sent.labels(service.name), self._metrics.events_dropped

        def count_dropped(reason: str) -> None:
            dropped.labels(service.name, reason).inc()

        limits = SenderLimits(self._settings.events, self._settings.event_bytes)
        return EventSender(service.logger.url, f"{self._address}/", sent.inc, count_dropped, limits, self._outside.tell)

    def _read_request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        loop = asyncio.get_running_loop()
        limit = self._settings.max_body_bytes
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=limit)


def _bind(port: int, option: str) -> socket.socket:
    """Take a loopback port without accepting anything yet.

    Raises:
        PlaneError: it is taken.
    """
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind((LOOPBACK, port))
    except OSError as error:
        held.close()
        raise _taken(port, option, error) from error
    return held


async def _listen(runner: web.BaseRunner, held: socket.socket, option: str) -> None:
    """Accept connections on a port that is bound."""
    await runner.setup()
    try:
        await web.SockSite(runner, held).start()
    except OSError as error:
        raise _taken(held.getsockname()[1], option, error) from error


def _taken(port: int, option: str, error: OSError) -> PlaneError:
    return PlaneError(
        explain("port cannot be bound", which=f"{LOOPBACK}:{port}", expected="a free port", got=str(error),
                next_step=f"stop what uses it or pass another {option}")
    )  # fmt: skip
