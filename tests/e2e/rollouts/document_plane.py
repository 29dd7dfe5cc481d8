"""The plane's documents and admin API without processes behind them: a test says which revisions answer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry
from services.servers import free_port

from inference.plane.admin import build_admin
from inference.plane.documents import Documents

SERVICE = "churn"
START_US = 1_700_000_000_000_000


def document(version: int, name: str = SERVICE) -> dict[str, Any]:
    """A service that serves one version."""
    model = {"modelFormat": {"name": "plumbline"}, "storageUri": f"pvc://plumb-models/churn/{version}"}
    metadata = {"name": name, "annotations": {"team": "growth"}}
    return {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": metadata,
            "spec": {"predictor": {"model": model, "logger": {"mode": "all", "url": "http://127.0.0.1:9/events"}}}}  # fmt: skip


class DocumentPlane:
    """Services as the plane keeps them; ``unready`` names revisions whose model does not answer."""

    def __init__(self, folder: Path) -> None:
        self.documents = Documents(folder)
        self.unready: set[str] = set()
        self.history: list[int] = []
        """The canary's percent after every change; 0 where there is none."""

    def names(self) -> list[str]:
        return self.documents.names()

    def show(self, name: str) -> dict[str, Any] | None:
        content, service = self.documents.read(name), self.documents.service(name)
        if content is None or service is None:
            return None
        ready = {entry.name: entry.name not in self.unready for entry in service.predictors()}
        canary = service.canary
        statuses = [] if canary is None else [
            {"name": canary.predictor.name, "ready": ready[canary.predictor.name], "trafficPercent": canary.percent}
        ]  # fmt: skip
        conditions = [{"type": "Ready", "status": str(ready[service.stable.name])}]
        return {**content, "status": {"canaryStatuses": statuses, "conditions": conditions}}

    async def change(self, name: str, change: Callable[[dict[str, Any] | None], dict[str, Any]]) -> dict[str, Any]:
        service = self.documents.write(name, change(self.documents.read(name)), START_US)
        self.history.append(service.canary.percent if service.canary else 0)
        shown = self.show(name)
        assert shown is not None
        return shown

    async def remove(self, name: str) -> bool:
        self.documents.delete(name)
        return True


@contextlib.contextmanager
def serve_admin(plane: DocumentPlane) -> Iterator[str]:
    """Its admin API on loopback, in a thread; gives the URL."""
    port, loop, ready = free_port(), asyncio.new_event_loop(), threading.Event()
    runner = web.AppRunner(build_admin(plane, CollectorRegistry()))

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        ready.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(20)
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
