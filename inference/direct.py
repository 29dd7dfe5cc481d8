"""V1 predictions in JSON, answered before FastAPI and KServe's data plane see them.

For a small request those two cost several times what parsing, lookup and graph do. Everything else passes on to KServe:
other paths and models, CloudEvents, other content types, V2; so does nothing that they would answer differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, Protocol

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

INTERNAL_ERROR: Final = "internal error; see the log"
JSON_TYPES: Final = ("application/json", "application/json; charset=utf-8", "application/json;charset=utf-8")


class Predictions(Protocol):
    """A model that answers bodies with bodies."""

    name: str
    ready: bool

    async def predict_v1(self, body: bytes, headers: Mapping[str, str]) -> bytes: ...


class DirectPredictions:
    """ASGI application before another one; see the module."""

    def __init__(self, app: ASGIApp, model: Predictions, statuses: Mapping[type[Exception], HTTPStatus]) -> None:
        """Stand before an application.

        Args:
            app: answers whatever is not answered here.
            model: the served one.
            statuses: what each kind of error is answered with; another one with 500, and it goes on to the server's log.
        """
        self._app = app
        self._model = model
        self._path = f"/v1/models/{model.name}:predict"
        self._statuses = statuses
        self._kinds = tuple(statuses)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request here, or pass it on."""
        if scope["type"] != "http" or scope["path"] != self._path or scope["method"] != "POST" or not self._model.ready:
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if "ce-specversion" in headers or headers.get("content-type", JSON_TYPES[0]).lower() not in JSON_TYPES:
            await self._app(scope, receive, send)
            return
        body = await _read(receive)
        if body is None:
            return
        try:
            status, reply = HTTPStatus.OK, await self._model.predict_v1(body, headers)
        except self._kinds as error:
            status = next(status for kind, status in self._statuses.items() if isinstance(error, kind))
            reply = _explain(error)
        except Exception:
            await _respond(send, HTTPStatus.INTERNAL_SERVER_ERROR, _explain(INTERNAL_ERROR))
            raise
        await _respond(send, status, reply)


async def _respond(send: Send, status: HTTPStatus, reply: bytes) -> None:
    length = str(len(reply)).encode()
    fields = [(b"content-type", b"application/json"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": reply})


def _explain(error: Exception | str) -> bytes:
    return orjson.dumps({"error": " ".join(str(error).split())})


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None where the caller went away."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        whole: bytes = message["body"]
        return whole
    parts = []
    while message["type"] == "http.request":
        parts.append(message["body"])
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()
    return None
