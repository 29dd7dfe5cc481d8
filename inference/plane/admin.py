"""The plane's admin API: the few calls of Kubernetes' own that steer an InferenceService, with its status codes.

``GET``, ``PUT``, ``PATCH`` and ``DELETE`` on ``/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices/NAME``,
``GET`` on the collection, ``/healthz`` and ``/metrics``. As in Kubernetes, ``metadata.resourceVersion`` is an optimistic
lock: a PUT must name the version it read, a PATCH may ``test`` it, and an old one gets 409 Conflict. A failed ``test`` of
anything else gets 422. An answer of 200 means that the document is on disk, that new requests follow it, and that no request
will any more be answered by a revision that it took off. What cannot be written gets 507, except less for a canary: that takes
effect at once, and ``status.conditions`` says ``Recorded`` False until it is on disk.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final, Protocol

import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from features.errors import PlumblineError
from inference.plane.document import API_VERSION, NAMESPACE
from inference.plane.errors import ConflictError, DocumentError, NotRecorded, PatchError
from inference.plane.patch import apply_patch

COLLECTION: Final = f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/inferenceservices"
JSON_PATCH: Final = "application/json-patch+json"
REASONS: Final = {
    HTTPStatus.BAD_REQUEST: "BadRequest",
    HTTPStatus.NOT_FOUND: "NotFound",
    HTTPStatus.CONFLICT: "Conflict",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "UnsupportedMediaType",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Invalid",
    HTTPStatus.INSUFFICIENT_STORAGE: "NotRecorded",
}
STATUS_OF: Final[dict[type[PlumblineError], HTTPStatus]] = {
    ConflictError: HTTPStatus.CONFLICT,
    DocumentError: HTTPStatus.UNPROCESSABLE_ENTITY,
    PatchError: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotRecorded: HTTPStatus.INSUFFICIENT_STORAGE,
}

Change = Callable[[dict[str, Any] | None], dict[str, Any]]
"""Makes the next document from the current one (None where there is none)."""


class Services(Protocol):
    """What the API steers."""

    def names(self) -> list[str]:
        """Names of the services."""

    def show(self, name: str) -> dict[str, Any] | None:
        """A service's document with its status; None where there is none."""

    async def change(self, name: str, change: Change) -> dict[str, Any]:
        """Replace a service's document, with nobody in between, and act on it; the new one with its status."""

    async def remove(self, name: str) -> bool:
        """Drain a service and forget it; False where there is none."""


def build_admin(services: Services, registry: CollectorRegistry) -> web.Application:
    """The API as an application."""
    app = web.Application(middlewares=[_reply_to_errors])
    calls = AdminCalls(services)
    app.router.add_get(COLLECTION, calls.list_all)
    app.router.add_get(f"{COLLECTION}/{{name}}", calls.get)
    app.router.add_put(f"{COLLECTION}/{{name}}", calls.put)
    app.router.add_patch(f"{COLLECTION}/{{name}}", calls.patch)
    app.router.add_delete(f"{COLLECTION}/{{name}}", calls.delete)

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/metrics", metrics)
    return app


class AdminCalls:
    """One method a call."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def list_all(self, _request: web.Request) -> web.Response:
        """Every service."""
        items = [self._services.show(name) for name in self._services.names()]
        return _reply({"apiVersion": API_VERSION, "kind": "InferenceServiceList", "items": items})

    async def get(self, request: web.Request) -> web.Response:
        """One service with its status."""
        document = self._services.show(request.match_info["name"])
        return _missing(request) if document is None else _reply(document)

    async def put(self, request: web.Request) -> web.Response:
        """Replace a service, or create one."""
        content = await _read_json(request)
        if not isinstance(content, dict):
            raise DocumentError("body is not a document: expected an InferenceService as a JSON object; next: correct the body")
        return _reply(await self._services.change(request.match_info["name"], lambda _current: content))

    async def patch(self, request: web.Request) -> web.Response:
        """Apply a JSON patch to a service."""
        if request.content_type != JSON_PATCH:
            return _refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"expected content type {JSON_PATCH}, got {request.content_type}")
        name = request.match_info["name"]
        operations = await _read_json(request)
        if self._services.show(name) is None:
            return _missing(request)

        def change(current: dict[str, Any] | None) -> dict[str, Any]:
            if current is None:
                raise ConflictError(f"service {name} was deleted meanwhile; next: read it again")
            return apply_patch(current, operations)

        return _reply(await self._services.change(name, change))

    async def delete(self, request: web.Request) -> web.Response:
        """Drain and remove a service."""
        if not await self._services.remove(request.match_info["name"]):
            return _missing(request)
        return _reply({"kind": "Status", "apiVersion": "v1", "status": "Success"})


@web.middleware
async def _reply_to_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except PlumblineError as error:
        status = next((code for kind, code in STATUS_OF.items() if isinstance(error, kind)), None)
        if status is None:
            raise
        return _refuse(status, str(error))
    except orjson.JSONDecodeError as error:
        return _refuse(HTTPStatus.BAD_REQUEST, f"body is no JSON: {error}")


async def _read_json(request: web.Request) -> object:
    content: object = orjson.loads(await request.read())
    return content


def _missing(request: web.Request) -> web.Response:
    return _refuse(HTTPStatus.NOT_FOUND, f"inferenceservices {request.match_info['name']!r} not found")


def _refuse(status: HTTPStatus, message: str) -> web.Response:
    body = {
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": REASONS[status], "code": int(status),
        "message": " ".join(message.split()),
    }  # fmt: skip
    return _reply(body, status)


def _reply(content: object, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(body=orjson.dumps(content), status=status, content_type="application/json")
