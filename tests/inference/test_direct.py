"""V1 predictions that are answered before the application: what is answered here, and what passes on."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from inference.direct import DirectPredictions
from inference.errors import RequestError


class Echo:
    """A model that gives a body back, or raises what it was told to."""

    name = "churn"
    ready = True

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    async def predict_v1(self, body: bytes, headers: Mapping[str, str]) -> bytes:
        if self._error is not None:
            raise self._error
        return body


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """What stands behind: says what reached it."""
    await PlainTextResponse(f"passed on: {await Request(scope, receive).body()!r}")(scope, receive, send)


async def ask(model: Echo, **request: object) -> httpx.Response:
    direct = DirectPredictions(application, model, {RequestError: HTTPStatus.BAD_REQUEST})
    transport = httpx.ASGITransport(direct, raise_app_exceptions=False)
    asked = {"method": "POST", "url": "/v1/models/churn:predict", "content": b"{}"} | request
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        return await client.request(**asked)


@pytest.mark.anyio
async def test_a_prediction_in_json_is_answered_here() -> None:
    reply = await ask(Echo(), content=b'{"instances": []}')
    assert (reply.status_code, reply.content) == (200, b'{"instances": []}')
    assert reply.headers["content-type"] == "application/json"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "request_",
    [
        {"url": "/v1/models/other:predict"},
        {"headers": {"content-type": "application/cloudevents+json"}},
        {"headers": {"ce-specversion": "1.0"}},
        {"method": "PUT"},
    ],
    ids=["another model", "another content type", "a CloudEvent", "another method"],
)
async def test_whatever_the_application_would_answer_differently_reaches_it_with_its_body(request_: dict[str, object]) -> None:
    assert (await ask(Echo(), **request_)).text == "passed on: b'{}'"


@pytest.mark.anyio
async def test_a_known_error_has_its_status_and_its_one_line() -> None:
    reply = await ask(Echo(RequestError("entity_id is\n missing")))
    assert (reply.status_code, reply.json()) == (400, {"error": "entity_id is missing"})


@pytest.mark.anyio
async def test_an_unforeseen_error_tells_the_caller_nothing_and_the_server_everything() -> None:
    reply = await ask(Echo(ZeroDivisionError("a secret")))
    assert (reply.status_code, reply.json()) == (500, {"error": "internal error; see the log"})
    direct = DirectPredictions(application, Echo(ZeroDivisionError("a secret")), {})
    with pytest.raises(ZeroDivisionError):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(direct), base_url="http://server") as client:
            await client.post("/v1/models/churn:predict", content=b"{}")
