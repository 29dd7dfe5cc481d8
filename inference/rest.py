"""KServe's REST front end on 127.0.0.1: V1 and V2, one-line errors, no log line a request."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from kserve.errors import InvalidInput, ModelNotFound, ModelNotReady, ServerNotReady, UnsupportedProtocol
from kserve.protocol.rest.server import RESTServer
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.importer import import_from_string

from features.errors import PlumblineError, StoreUnavailable
from inference import metrics
from inference.direct import INTERNAL_ERROR, DirectPredictions
from inference.endpoint import ScoringModel
from inference.errors import RequestError, bad_request
from inference.merging import Overloaded

STATUS_OF: dict[type[Exception], HTTPStatus] = {
    RequestError: HTTPStatus.BAD_REQUEST,
    InvalidInput: HTTPStatus.BAD_REQUEST,
    ModelNotFound: HTTPStatus.NOT_FOUND,
    NotImplementedError: HTTPStatus.NOT_IMPLEMENTED,
    UnsupportedProtocol: HTTPStatus.NOT_IMPLEMENTED,
    ModelNotReady: HTTPStatus.SERVICE_UNAVAILABLE,
    ServerNotReady: HTTPStatus.SERVICE_UNAVAILABLE,
    StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    Overloaded: HTTPStatus.SERVICE_UNAVAILABLE,
    PlumblineError: HTTPStatus.INTERNAL_SERVER_ERROR,
}


def one_line(error: Exception) -> str:
    """An error's text without line breaks."""
    return " ".join(str(error).split())


class LoopbackRESTServer(RESTServer):
    """Serves on a socket that is already bound; KServe itself would bind every address."""

    def __init__(self, listener: socket.socket, model: ScoringModel, revision: str, **kserve: Any) -> None:
        super().__init__("kserve.model_server:app", http_port=listener.getsockname()[1], **kserve)
        self.config.host = listener.getsockname()[0]
        self.config.access_log = False
        # Whoever reads a caller's address reads it at the plane or at the mesh before us.
        self.config.proxy_headers = False
        self._listener = listener
        self._model = model
        self._revision = revision

    @property
    def started(self) -> bool:
        """Whether connections are being accepted."""
        return bool(self._server.started)

    def stop(self) -> None:
        """Stop accepting and finish requests in flight; ``start`` then returns."""
        self._server.should_exit = True

    async def start(self) -> None:
        """Serve until the process is told to stop; requests in flight are finished first."""
        self.create_application()
        self.config.app = DirectPredictions(import_from_string(self.config.app), self._model, STATUS_OF)
        await self._server.serve(sockets=[self._listener])

    def _add_middlewares(self, app: FastAPI) -> None:
        app.add_middleware(JsonByDefault)

    def _add_exception_handlers(self, app: FastAPI) -> None:
        for kind, status in STATUS_OF.items():
            app.add_exception_handler(kind, _reply_with(status))
        app.add_exception_handler(RequestValidationError, self._reply_to_invalid_body)
        app.add_exception_handler(Exception, _reply_with(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_ERROR))

    async def _reply_to_invalid_body(self, request: Request, error: Exception) -> JSONResponse:
        """A V2 body that is no V2 request: FastAPI would answer 422 with a list of findings."""
        metrics.REQUESTS.labels(self._model.name, self._revision, metrics.BAD_REQUEST).inc()
        first = error.errors()[0] if isinstance(error, RequestValidationError) else {}
        place = ".".join(str(part) for part in first.get("loc", ()) if part not in ("InferenceRequest", "bytes"))
        reason = bad_request(
            "not a V2 request", which=place or "body", expected="inputs with name, shape, datatype, data",
            got=str(first.get("msg", error)),
        )  # fmt: skip
        return JSONResponse({"error": one_line(reason)}, HTTPStatus.BAD_REQUEST)


class JsonByDefault:
    """Reads a POST that names no content type as JSON: common V2 clients leave it out, and FastAPI would refuse them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with a content type where it had none."""
        if scope["type"] == "http" and scope["method"] == "POST":
            names = {name for name, _ in scope["headers"]}
            if b"content-type" not in names and b"inference-header-content-length" not in names:
                scope = {**scope, "headers": [*scope["headers"], (b"content-type", b"application/json")]}
        await self._app(scope, receive, send)


def _reply_with(status: HTTPStatus, text: str = "") -> Callable[[Request, Exception], Awaitable[JSONResponse]]:
    async def reply(_request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": text or one_line(error)}, status)

    return reply
