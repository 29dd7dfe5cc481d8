"""A TCP proxy that can be slow or gone: how a network fails between two real processes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Final

HOST: Final = "127.0.0.1"
CHUNK_BYTES: Final = 65_536


class Proxy:
    """Passes bytes on to a port. ``delay_s`` holds each answer back; ``cut`` ends all connections and refuses new ones."""

    def __init__(self, upstream: int) -> None:
        self.delay_s = 0.0
        self.port = 0
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Go away, as a server that has died."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)

    def restore(self) -> None:
        """Come back at the same port."""
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, ahead = await asyncio.open_connection(HOST, self._upstream)
        self._writers |= {writer, ahead}
        await asyncio.gather(self._pass_on(reader, ahead, slowed=False), self._pass_on(behind, writer, slowed=True))
        self._writers -= {writer, ahead}

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slowed: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(CHUNK_BYTES):
                if slowed and self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(data)
                await writer.drain()
        writer.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()


@contextlib.contextmanager
def run_proxy(upstream: int) -> Iterator[Proxy]:
    """A proxy before a port of this machine, in a thread of this process."""
    proxy = Proxy(upstream)
    thread = threading.Thread(target=proxy._run, daemon=True)
    thread.start()
    try:
        proxy.restore()
        yield proxy
    finally:
        proxy.cut()
        proxy._loop.call_soon_threadsafe(proxy._loop.stop)
        thread.join(10)
        proxy._loop.close()
