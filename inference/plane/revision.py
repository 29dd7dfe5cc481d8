"""One revision: its process is watched, started again with back-off, drained and stopped; and the connections to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiohttp
from yarl import URL

from inference.plane.document import Predictor
from inference.plane.process import Command, ServerProcess, last_line
from inference.plane.settings import LOOPBACK, PlaneSettings

TICK_S: Final = 0.005
OK: Final = 200


class Revision:
    """A predictor and the process that serves it, one at a time.

    Attributes:
        predictor: what it runs.
        ready: whether its model answers now.
        usable: whether its process lives and its model has answered: a stable revision is asked then, also while it is too
            busy to answer probes, because nobody stands in for it.
        in_flight: requests that it is answering.
        restarts: times that its process ended unasked.
        port, pid: of its process; None while there is none that listens.
        trouble: one line on why its last process ended; empty where none has.
    """

    def __init__(
        self, predictor: Predictor, command: Command, log: Path, settings: PlaneSettings, changed: Callable[[Revision], None]
    ) -> None:
        """Prepare it.

        Args:
            log: file for what its processes write to their standard error.
            changed: called whenever ``ready`` or ``restarts`` has changed.
        """
        self.predictor = predictor
        self.ready = False
        self.usable = False
        self.in_flight = 0
        self.restarts = 0
        self.port: int | None = None
        self.pid: int | None = None
        self.trouble = ""
        self._command = command
        self._log = log
        self._settings = settings
        self._changed = changed
        self._stopping = asyncio.Event()
        self._ready_since_s: float | None = None
        self._session: aiohttp.ClientSession | None = None
        self._supervisor: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start its process, and keep one running until ``stop``."""
        self._supervisor = asyncio.create_task(self._supervise(), name=f"revision {self.name}")

    @property
    def name(self) -> str:
        return self.predictor.name

    @property
    def connections(self) -> aiohttp.ClientSession:
        """Connections to its process.

        Raises:
            aiohttp.ClientConnectionError: there is none.
        """
        if self._session is None:
            raise aiohttp.ClientConnectionError("no process")
        return self._session

    def url(self, path_and_query: str) -> URL:
        """Address of a path on its process; of one that is percent-encoded already."""
        return URL(f"http://{LOOPBACK}:{self.port}{path_and_query}", encoded=True)

    async def drain(self, grace_s: float) -> None:
        """Wait until no request is in flight. Those that still are after ``grace_s`` are cut: they lose their connection."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + grace_s
        # One pause first: a request that was given this revision may be a task that has not begun yet.
        await asyncio.sleep(TICK_S)
        while self.in_flight and clock() < deadline:
            await asyncio.sleep(TICK_S)
        if self.in_flight and self._session is not None:
            cut, self._session = self._session, self._connect()
            await cut.close()
        while self.in_flight:
            await asyncio.sleep(TICK_S)

    async def stop(self) -> None:
        """End its process. Requests in flight are lost, so drain it before."""
        self._stopping.set()
        if self._supervisor is not None:
            await self._supervisor

    async def _supervise(self) -> None:
        pause_s = self._settings.backoff_s
        while not self._stopping.is_set():
            self._ready_since_s = None
            await self._run_once()
            if self._stopping.is_set():
                break
            if self._ready_s() > self._settings.steady_s:
                pause_s = self._settings.backoff_s
            self.restarts += 1
            self._changed(self)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
            pause_s = min(pause_s * 2, self._settings.longest_backoff_s)

    async def _run_once(self) -> None:
        """Run one process until it ends, hangs, or is told to stop."""
        try:
            process = await ServerProcess.start(self._command, self._log)
        except OSError as error:
            self.trouble = f"cannot be started: {error}"
            return
        self.pid = process.pid
        ending = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(self._stopping.wait())
        watching = asyncio.create_task(self._watch(process))
        try:
            await asyncio.wait((ending, stopping, watching), return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Told to stop, it may finish; one that hangs or never got ready has had its time.
            self.usable = False
            self._set_ready(False, changed=True)
            code = await process.end(self._settings.stop_timeout_s if self._stopping.is_set() else 0)
            watching.cancel()
            stopping.cancel()
            await asyncio.gather(ending, stopping, watching, return_exceptions=True)
            await self._disconnect()
        hung = not watching.cancelled() and watching.exception() is None
        self.trouble = f"{watching.result() if hung else f'ended with {code}'}: {last_line(self._log)}"

    async def _watch(self, process: ServerProcess) -> str:
        """Ask again and again whether the model answers; says what is wrong once it has not for too long."""
        try:
            self.port = await asyncio.wait_for(process.read_port(), self._settings.start_timeout_s)
        except TimeoutError:
            return f"not ready within {self._settings.start_timeout_s:.0f} s"
        self._session = self._connect()
        failures = 0
        while failures < self._settings.hung_failures:
            failures = 0 if await self._answers() else failures + 1
            if failures == 0 or failures >= self._settings.probe_failures:
                self._set_ready(failures == 0)
            await asyncio.sleep(self._settings.probe_interval_s)
        return f"no answer to {failures} probes"

    async def _answers(self) -> bool:
        timeout = aiohttp.ClientTimeout(total=self._settings.probe_timeout_s)
        try:
            async with self.connections.get(self.url(f"/v2/models/{self.predictor.model}/ready"), timeout=timeout) as response:
                await response.read()
                return response.status == OK
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def _ready_s(self) -> float:
        """Seconds since its process was first ready; 0 where it never was."""
        return 0.0 if self._ready_since_s is None else asyncio.get_running_loop().time() - self._ready_since_s

    def _set_ready(self, ready: bool, *, changed: bool = False) -> None:
        if ready and self._ready_since_s is None:
            self._ready_since_s = asyncio.get_running_loop().time()
            self.usable = True
        if changed or ready != self.ready:
            self.ready = ready
            self._changed(self)

    def _connect(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=self._settings.keep_alive_s),
            timeout=aiohttp.ClientTimeout(total=self.predictor.timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )

    async def _disconnect(self) -> None:
        self.port = self.pid = None
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()
