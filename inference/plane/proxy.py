"""The way of a request: whom it is about, which revision answers, its reply; and what is counted and sent about it.

A request whose process is lost on the way is asked again, once, of the stable revision, and counts as an error of the one
that lost it. Scoring changes nothing, so asking twice is safe. Any answer of a revision, an error too, is passed on as it is.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from time import perf_counter
from typing import Final

import aiohttp
import orjson
from aiohttp import web

from inference.plane.bodies import entities_v1, first_entity_v2, join_replies, read_v1, take_rows
from inference.plane.document import Logger
from inference.plane.events import REQUEST, RESPONSE, EventSender, LoggedEvent
from inference.plane.metrics import PlaneMetrics
from inference.plane.revision import Revision
from inference.plane.routing import Split

PATH: Final = re.compile(r"/(v[12])/models/([^/:?]+)((?:[:/?].*)?)")
V1_PREDICT: Final = ":predict"
V2_INFER: Final = "/infer"
REVISION_HEADER: Final = "x-plumb-revision"
REQUEST_ID_HEADER: Final = "x-request-id"
EVENT_ID_HEADER: Final = "ce-id"
HEADER_BYTES_HEADER: Final = "inference-header-content-length"
NOT_FORWARDED: Final = frozenset({
    "connection", "content-encoding", "content-length", "expect", "host", "keep-alive", "proxy-authenticate",
    "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip
NOT_RETURNED: Final = NOT_FORWARDED - {"content-encoding"} | {"date", "server"}
JSON: Final = "application/json"


@dataclass(frozen=True)
class Route:
    """How one service's requests are answered now; always replaced as a whole.

    Attributes:
        service, model: its name in URLs here, and on its processes.
        split: ``percent`` is 0 unless the canary is ready.
        stable, canary: those that may be asked; None where it is not ready, or there is none.
        logger, sender: what is told about requests, and by whom.
        timeout_s: seconds that an answer may take.
    """

    service: str
    split: Split
    stable: Revision | None
    canary: Revision | None
    logger: Logger | None
    sender: EventSender | None
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it is passed on; ``id`` is that of its events, header names are in lower case."""

    method: str
    version: str
    rest: str
    headers: Mapping[str, str]
    id: str
    content_type: str


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and the revision that gave it (empty: none); ``lost`` where its process failed instead."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes
    revision: str
    lost: bool = False


class Proxy:
    """Answers inference requests by the routes that the plane sets."""

    def __init__(self, metrics: PlaneMetrics, clock_us: Callable[[], int]) -> None:
        self.routes: dict[str, Route] = {}
        self._metrics = metrics
        self._clock_us = clock_us

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer one request."""
        found = PATH.fullmatch(request.raw_path)
        if found is None:
            return self._answer_for_plane(request)
        version, name, rest = found.groups()
        body = await request.read()
        # Read once the body is there. What is asked of a revision from now on has begun by the time that its drain looks.
        route = self.routes.get(name)
        if route is None:
            return _refuse(HTTPStatus.NOT_FOUND, f"no such service: {name}; expected {' or '.join(self.routes) or 'none yet'}")
        headers = {key.lower(): value for key, value in request.headers.items() if key.lower() not in NOT_FORWARDED}
        request_id = headers.setdefault(REQUEST_ID_HEADER, headers.get(EVENT_ID_HEADER) or uuid.uuid4().hex)
        content_type = headers.get("content-type", JSON)
        asked = Asked(request.method, version, rest, headers, headers.get(EVENT_ID_HEADER, request_id), content_type)
        reply = await self._answer(route, asked, body)
        response = web.Response(body=reply.body, status=reply.status, headers=reply.headers)
        if reply.revision:
            response.headers[REVISION_HEADER] = reply.revision
        response.headers[REQUEST_ID_HEADER] = request_id
        return response

    async def _answer(self, route: Route, asked: Asked, body: bytes) -> Reply:
        """Choose who answers, and ask."""
        path = asked.rest.partition("?")[0]
        if asked.method != "POST" or not path.endswith(V1_PREDICT if asked.version == "v1" else V2_INFER):
            return await self._ask(route, route.stable, asked, body, None)
        if route.canary is None:
            return await self._ask(route, route.stable, asked, body, asked.id)
        if asked.version == "v2":
            length = asked.headers.get(HEADER_BYTES_HEADER, "")
            entity_id = first_entity_v2(body, int(length) if length.isdecimal() else None)
            chosen = route.canary if route.split.takes(entity_id) else route.stable
            return await self._ask(route, chosen, asked, body, asked.id)
        content = read_v1(body)
        stable_rows, canary_rows = route.split.divide([None] if content is None else entities_v1(content))
        if content is None or not canary_rows or not stable_rows:
            chosen = route.canary if canary_rows else route.stable
            return await self._ask(route, chosen, asked, body, asked.id)
        divided: tuple[tuple[Revision | None, list[int]], ...] = ((route.stable, stable_rows), (route.canary, canary_rows))
        if canary_rows[0] == 0:
            divided = (divided[1], divided[0])
        asking = (
            self._ask(route, revision, asked, take_rows(content, rows), f"{asked.id}.{place}")
            for place, (revision, rows) in enumerate(divided)
        )
        return _join(await asyncio.gather(*asking), [rows for _, rows in divided])

    async def _ask(self, route: Route, revision: Revision | None, asked: Asked, body: bytes, event_id: str | None) -> Reply:
        """Ask a revision, and the stable one where its process is lost. ``event_id`` None: nobody is told."""
        if revision is None:
            self._metrics.unrouted.labels(route.service).inc()
            return _unavailable(f"{route.service} is not ready")
        started, arrived_us = perf_counter(), self._clock_us()
        reply = await self._attempt(route, revision, asked, body)
        final = reply
        if reply.lost:
            now = self.routes.get(route.service, route)
            if now.stable is not None:
                self._metrics.retries.labels(route.service, revision.name).inc()
                final = await self._attempt(now, now.stable, asked, body)
        if event_id is not None and route.sender is not None and route.logger is not None:
            # Both are sent now, when the answer is known: a request that is still being answered takes no place in the queue.
            latency_ms = (perf_counter() - started) * 1_000
            facts = (route.service, revision.name, asked.content_type)
            if route.logger.wants(REQUEST):
                route.sender.offer(LoggedEvent(REQUEST, event_id, arrived_us, *facts, body))
            if route.logger.wants(RESPONSE):
                at_us = arrived_us + round(latency_ms * 1_000)
                retried_on = final.revision if reply.lost and not final.lost else None
                event = LoggedEvent(RESPONSE, event_id, at_us, *facts, final.body, reply.status, latency_ms, retried_on)
                route.sender.offer(event)
        return final

    async def _attempt(self, route: Route, revision: Revision, asked: Asked, body: bytes) -> Reply:
        """Ask one revision, and count how it went."""
        started = perf_counter()
        revision.in_flight += 1
        try:
            async with revision.connections.request(
                asked.method,
                revision.url(f"/{asked.version}/models/{revision.predictor.model}{asked.rest}"),
                data=body,
                headers=asked.headers,
                timeout=aiohttp.ClientTimeout(total=route.timeout_s),
                allow_redirects=False,
            ) as response:
                content = await response.read()
                headers = [(key, value) for key, value in response.headers.items() if key.lower() not in NOT_RETURNED]
                reply = Reply(response.status, headers, content, revision.name)
        except TimeoutError:
            status, text = HTTPStatus.GATEWAY_TIMEOUT, f"{revision.name} did not answer within {route.timeout_s:g} s"
            reply = Reply(status, [("Content-Type", JSON)], _error(text), revision.name)
        except (aiohttp.ClientError, OSError):
            status, text = HTTPStatus.BAD_GATEWAY, f"the process of {revision.name} failed"
            reply = Reply(status, [("Content-Type", JSON)], _error(text), revision.name, lost=True)
        finally:
            revision.in_flight -= 1
        self._metrics.requests.labels(route.service, revision.name, str(int(reply.status))).inc()
        self._metrics.seconds.labels(route.service, revision.name).observe(perf_counter() - started)
        return reply

    def _answer_for_plane(self, request: web.BaseRequest) -> web.Response:
        """Server-wide calls of V1 and V2, which no single revision can answer."""
        if request.path == "/v2/health/live":
            return _reply({"live": True})
        if request.path == "/v2/health/ready":
            ready = bool(self.routes) and all(route.stable is not None for route in self.routes.values())
            return _reply({"ready": ready}, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)
        if request.path in ("/v1/models", "/v2/models"):
            return _reply({"models": sorted(self.routes)})
        if request.path in ("/v2", "/v2/"):
            return _reply(
                {"name": "plumbline", "version": "1", "extensions": ["model_repository_extension", "binary_tensor_data"]}
            )
        return _refuse(HTTPStatus.NOT_FOUND, f"no such path: {request.path}; expected /v1/models/NAME or /v2/models/NAME")


def _join(replies: Sequence[Reply], rows: Sequence[Sequence[int]]) -> Reply:
    """One reply from those of a divided request; the first that failed, if one did."""
    failed = next((reply for reply in replies if reply.status != HTTPStatus.OK), None)
    if failed is not None:
        return failed
    parts = [(reply.revision, mine, reply.body) for reply, mine in zip(replies, rows, strict=True)]
    names = ",".join(dict.fromkeys(reply.revision for reply in replies))
    return Reply(HTTPStatus.OK, [("Content-Type", JSON)], join_replies(parts), names)


def _unavailable(text: str) -> Reply:
    headers = [("Content-Type", JSON), ("Retry-After", "1")]
    return Reply(HTTPStatus.SERVICE_UNAVAILABLE, headers, _error(text), "")


def _refuse(status: HTTPStatus, text: str) -> web.Response:
    return _reply({"error": text}, status)


def _reply(content: object, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(body=orjson.dumps(content), status=status, content_type=JSON)


def _error(text: str) -> bytes:
    return orjson.dumps({"error": text})
