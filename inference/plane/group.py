"""The revisions of one service: which processes run, which of them answer, and how one set gives way to the next."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from inference.plane.document import Predictor, Service
from inference.plane.events import EventSender
from inference.plane.metrics import PlaneMetrics
from inference.plane.proxy import Route
from inference.plane.revision import Revision
from inference.plane.routing import Split

Start = Callable[[Service, Predictor, Callable[[Revision], None]], Revision]
"""Makes and starts a revision that calls back when its readiness changes."""
SetRoute = Callable[[Route], None]
Connect = Callable[[Service], EventSender | None]


class Group:
    """One service's revisions.

    A stable revision that is replaced goes on answering until its successor is ready. A canary that becomes the stable
    predictor keeps its process.
    """

    def __init__(
        self, service: Service, start: Start, set_route: SetRoute, connect: Connect, metrics: PlaneMetrics, drain_s: float
    ) -> None:
        """Start the revisions.

        Args:
            set_route: told how requests are answered, now and after every change.
            connect: opens what sends events for a service.
            drain_s: seconds that requests in flight get when their revision is taken off.
        """
        self._service = service
        self._start = start
        self._set_route = set_route
        self._connect = connect
        self._metrics = metrics
        self._drain_s = drain_s
        self._chance = random.Random()
        self._revisions: dict[Predictor, Revision] = {}
        self._serving: Revision | None = None
        self._route: Route | None = None
        self._sender = connect(service)
        self._leaving: set[asyncio.Task[None]] = set()
        self._stopped = False
        metrics.begin_service(service.name)
        self._start_missing()
        self._refresh()

    async def replace(self, service: Service) -> None:
        """Follow another document; returns once no request is in flight on a revision that no longer gets any."""
        before = self._receivers()
        old = self._sender if service.logger != self._service.logger else None
        self._service = service
        if old is not None or self._sender is None:
            self._sender = self._connect(service)
        self._start_missing()
        self._refresh()
        after = self._receivers()
        if old is not None:
            self._keep(old.close())
        await asyncio.gather(*(revision.drain(self._drain_s) for revision in before if revision not in after))

    async def stop(self) -> None:
        """Drain and end every process, then send the events that wait. Take its route away before."""
        self._stopped = True
        await asyncio.gather(*(self._retire(revision) for revision in self._revisions.values()), *self._leaving)
        if self._sender is not None:
            await self._sender.close()

    def status(self, address: str) -> dict[str, Any]:
        """What the admin API shows beside the document, as KServe does, and ``revisions`` besides."""
        stable, canary = self._revisions[self._service.stable], self._service.canary
        conditions = [_condition("Ready", stable.ready, stable.trouble)]
        shown: dict[str, Any] = {"url": f"{address}/v1/models/{self._service.name}:predict", "deploymentMode": "Standard"}
        if canary is not None:
            revision = self._revisions[canary.predictor]
            conditions.append(_condition("CanaryPredictorReady", revision.ready, revision.trouble))
            entry = {"name": revision.name, "ready": revision.ready, "trafficPercent": canary.percent}
            shown["canaryStatuses"] = [entry]
        weights = self._weights()
        revisions = [
            {
                "name": revision.name, "storageUri": revision.predictor.storage_uri, "ready": revision.ready,
                "restarts": revision.restarts, "port": revision.port, "pid": revision.pid,
                "trafficPercent": weights.get(revision, 0), "trouble": revision.trouble,
            }
            for revision in self._revisions.values()
        ]  # fmt: skip
        return {**shown, "conditions": conditions, "revisions": revisions}

    def _start_missing(self) -> None:
        for predictor in self._service.predictors():
            if predictor not in self._revisions:
                self._revisions[predictor] = self._start(self._service, predictor, lambda _revision: self._refresh())
                self._metrics.begin_revision(self._service.name, predictor.name)

    def _refresh(self) -> None:
        """Decide anew who answers; called on every change of a document, of readiness and of restarts."""
        if self._stopped:
            return
        wanted = self._revisions[self._service.stable]
        canary = self._service.canary
        candidate = self._revisions.get(canary.predictor) if canary is not None else None
        if wanted.ready or self._serving is None:
            self._serving = wanted
        elif not _same_model(self._serving, wanted):
            # Until the successor is ready: whoever runs its version, such as a canary under promotion; else the one before.
            fallback = self._serving if self._serving.usable else wanted
            able = (one for one in self._revisions.values() if one is not candidate and _same_model(one, wanted))
            self._serving = next(able, fallback)
        percent = canary.percent if canary is not None and candidate is not None and candidate.ready else 0
        self._route = Route(
            service=self._service.name,
            split=Split(self._service.name, self._service.salt, percent, self._service.split, self._chance),
            stable=self._serving if self._serving.usable else None,
            canary=candidate if percent else None,
            logger=self._service.logger,
            sender=self._sender,
            timeout_s=self._service.stable.timeout_s,
        )
        self._set_route(self._route)
        self._show_weights()
        for predictor, revision in list(self._revisions.items()):
            if predictor not in self._service.predictors() and revision is not self._serving:
                del self._revisions[predictor]
                self._keep(self._retire(revision))

    def _receivers(self) -> list[Revision]:
        route = self._route
        return [] if route is None else [revision for revision in (route.stable, route.canary) if revision is not None]

    def _weights(self) -> dict[Revision, int]:
        """Percent of each revision that gets requests now."""
        route = self._route
        if route is None:
            return {}
        weights = {} if route.stable is None else {route.stable: 100 - route.split.percent}
        return weights if route.canary is None else {**weights, route.canary: route.split.percent}

    def _show_weights(self) -> None:
        weights = self._weights()
        for revision in self._revisions.values():
            self._metrics.weight.labels(self._service.name, revision.name).set(weights.get(revision, 0))
            self._metrics.ready.labels(self._service.name, revision.name).set(revision.ready)
            self._metrics.restarts.labels(self._service.name, revision.name).set(revision.restarts)

    async def _retire(self, revision: Revision) -> None:
        """Let a revision finish what it has, and end it."""
        await revision.drain(self._drain_s)
        await revision.stop()
        if all(other.name != revision.name for other in self._revisions.values()):
            for gauge in (self._metrics.weight, self._metrics.ready, self._metrics.restarts):
                gauge.remove(self._service.name, revision.name)

    def _keep(self, work: Any) -> None:
        """Run something to its end beside everything else."""
        task = asyncio.create_task(work)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


def _same_model(revision: Revision, wanted: Revision) -> bool:
    mine, other = revision.predictor, wanted.predictor
    return revision.ready and (mine.model, mine.version) == (other.model, other.version)


def _condition(kind: str, ready: bool, trouble: str) -> dict[str, str]:
    condition = {"type": kind, "status": "True" if ready else "False"}
    return condition if ready else {**condition, "reason": "NotReady", "message": trouble or "starting"}
