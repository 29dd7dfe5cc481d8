"""One run of a server process: started on a tether, its port read from what it says, ended with SIGTERM and then SIGKILL."""

from __future__ import annotations

import asyncio
import re
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inference.plane.settings import LOOPBACK

READY_LINE: Final = re.compile(rf"ready at http://{re.escape(LOOPBACK)}:(\d+)".encode())
"""What ``plumb serve`` says on its standard output once it accepts requests."""


@dataclass(frozen=True)
class Command:
    """How a process is started."""

    words: Sequence[str]
    environment: Mapping[str, str]


class ServerProcess:
    """A started process. Its standard input is the tether (``inference.plane.tether``): it closes with this process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, command: Command, log: Path) -> ServerProcess:
        """Start a process that writes its standard error to ``log``; the log of the run before is kept beside it.

        Raises:
            OSError: it cannot be started.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_suffix(".previous.log"))
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *command.words, env=dict(command.environment), stdin=PIPE, stdout=PIPE, stderr=errors
            )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def read_port(self) -> int:
        """The port that it listens on, once it says so; waits for ever where it never does."""
        output = self._process.stdout
        assert output is not None
        while line := await output.readline():
            if found := READY_LINE.search(line):
                self._reading = asyncio.create_task(_discard(output))
                return int(found[1])
        await self.wait()
        return await asyncio.Future()

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        return await self._process.wait()

    async def end(self, grace_s: float) -> int:
        """Ask it to end, and kill it where it has not after ``grace_s`` seconds; its exit code."""
        if self._process.returncode is None:
            if grace_s > 0:
                self._process.terminate()
                try:
                    await asyncio.wait_for(self._process.wait(), grace_s)
                except TimeoutError:
                    self._process.kill()
            else:
                self._process.kill()
        code = await self._process.wait()
        if self._reading is not None:
            await self._reading
        return code


async def _discard(output: asyncio.StreamReader) -> None:
    """Read what nobody wants, so that the process never waits for a reader."""
    while await output.read(65_536):
        pass


def last_line(log: Path) -> str:
    """The last line that a process has logged."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1][:300] if lines else "nothing in its log"
