"""A load generator that costs little: HTTP/1.1 requests packed beforehand, on kept connections, in a process of its own.

``python -m benchmarks.serving_load`` reads one JSON object from its standard input and writes one: see ``Load``, ``Result``.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import orjson
import uvloop

OK: Final = b"HTTP/1.1 200"
LENGTH: Final = b"content-length:"


@dataclass(frozen=True)
class Load:
    """What to send, and how.

    Attributes:
        port: on 127.0.0.1.
        path: of every request.
        bodies: sent in turn, each connection from a place of its own.
        clients: connections; each sends its next request when it has its answer.
        seconds: for how long.
        rate: 0, or requests a second of an open loop: a request is sent when its time has come, whatever became of those
            before, and its time is counted from then.
    """

    port: int
    path: str
    bodies: list[str]
    clients: int
    seconds: float
    rate: float = 0.0


@dataclass(frozen=True)
class Result:
    """What came of it: answers with status 200 and others, seconds of wall and processor, latencies in milliseconds."""

    answered: int
    failed: int
    wall_s: float
    cpu_s: float
    p50_ms: float
    p99_ms: float


class Connection(asyncio.Protocol):
    """One kept connection with one request under way."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[bool] | None = None
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Whatever was under way has failed."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(False)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of the answer until it is whole."""
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        place = self._buffer.lower().find(LENGTH, 0, end) + len(LENGTH)
        size = int(self._buffer[place : self._buffer.index(b"\r\n", place)])
        if len(self._buffer) >= end + 4 + size and self._answer is not None:
            answered = self._buffer.startswith(OK)
            self._buffer = b""
            self._answer.set_result(answered)

    async def ask(self, request: bytes) -> bool:
        """Whether the answer has status 200."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer


def pack(load: Load) -> list[bytes]:
    """The requests as they go over the wire."""
    head = f"POST {load.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: "
    return [f"{head}{len(body.encode())}\r\n\r\n".encode() + body.encode() for body in load.bodies]


async def send(load: Load) -> Result:
    """Play the load and measure it."""
    loop = asyncio.get_running_loop()
    requests = pack(load)
    taken: list[float] = []
    failed = 0
    connections = [
        (await loop.create_connection(Connection, "127.0.0.1", load.port))[1]
        for _ in range(load.clients)
    ]  # fmt: skip
    started, cpu = time.perf_counter(), time.process_time()
    until = started + load.seconds

    async def work(number: int, connection: Connection) -> None:
        nonlocal failed
        place, due = number * len(requests) // load.clients, started + number / max(load.rate, 1)
        while True:
            if load.rate:
                await asyncio.sleep(due - time.perf_counter())
            sent = due if load.rate else time.perf_counter()
            if sent >= until:
                return
            answered = await connection.ask(requests[place % len(requests)])
            taken.append(time.perf_counter() - sent)
            failed += not answered
            place += 1
            due += load.clients / load.rate if load.rate else 0

    await asyncio.gather(*(work(number, connection) for number, connection in enumerate(connections)))
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    p50_s, p99_s = np.percentile(taken, [50, 99]).tolist()
    return Result(len(taken) - failed, failed, wall_s, cpu_s, p50_s * 1e3, p99_s * 1e3)


def main() -> None:
    """Play the load that stands on the standard input."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(send(Load(**orjson.loads(sys.stdin.buffer.read()))))
    sys.stdout.buffer.write(orjson.dumps(asdict(result)))


if __name__ == "__main__":
    main()
