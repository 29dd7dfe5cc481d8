"""Rollouts over HTTP, for loopback: the same questions and requests as on the command line, and where events come in.

``GET /v1/rollouts[?service=]``, ``GET /v1/rollouts/NAME``, ``POST /v1/rollouts`` and ``POST /v1/rollouts/NAME/ACTION`` (pause,
resume, promote, abort, rollback); ``POST /events`` (or ``/``) for CloudEvents, ``GET /healthz`` and ``GET /metrics``. NAME is a
rollout's number or a service. A request is recorded and answered with 202; the controller does it within a tick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict

from features.errors import PlumblineError, TemporaryError
from features.workspace import Workspace
from monitoring.rollout import operations
from monitoring.rollout.collector import Collector
from monitoring.rollout.journal import Request as Asked
from monitoring.rollout.plan import DEFAULT_PLAN, Plan, read_plan
from monitoring.rollout.records import list_rollouts
from monitoring.rollout.traffic import Traffic


@dataclass(frozen=True)
class Desk:
    """What the API works with.

    Attributes:
        choose: the version to be rolled out of a model, where one is named and where none is; raises where it may not be.
        suit: the plan by which a model can be judged; raises where the given one cannot.
        clock_us: UTC microseconds.
        forward: where each event goes on to, whoever else wants it.
    """

    workspace: Workspace
    traffic: Traffic
    collector: Collector
    choose: Callable[[str, int | None], int]
    suit: Callable[[str, Plan], Plan]
    clock_us: Callable[[], int]
    registry: CollectorRegistry
    forward: Callable[[Mapping[str, str], bytes], None] | None = None


class Start(BaseModel):
    """Body of a request for a rollout; ``plan`` as in a plan file, the default one where not given."""

    model_config = ConfigDict(extra="forbid")
    service: str
    version: int | None = None
    who: str
    why: str
    plan: dict[str, Any] | None = None


class Change(BaseModel):
    """Body of a request to change a rollout."""

    model_config = ConfigDict(extra="forbid")
    who: str
    why: str


def build_api(desk: Desk) -> FastAPI:
    """The API as an application."""
    app = FastAPI(title="Plumbline rollouts", openapi_url="/v1/openapi.json")
    app.exception_handler(PlumblineError)(_reply_to_error)

    async def take_event(request: Request) -> Response:
        body = await request.body()
        if desk.forward is not None:
            desk.forward(request.headers, body)
        read = desk.collector.receive(request.headers, body)
        return Response(status_code=202 if read else 400)

    # Hundreds a second come here: straight to the function, past FastAPI's reading of arguments.
    for path in ("/", "/events"):
        app.router.add_route(path, take_event, methods=["POST"])

    @app.get("/healthz")
    def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok")

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(desk.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/rollouts")
    def list_all(service: str | None = None) -> list[dict[str, Any]]:
        return [operations.describe_standing(entry) for entry in list_rollouts(desk.workspace, service)]

    @app.get("/v1/rollouts/{name}")
    def show(name: str) -> dict[str, Any]:
        return operations.describe_rollout(desk.workspace, name, desk.clock_us())

    @app.post("/v1/rollouts", status_code=202)
    def start(body: Start) -> dict[str, Any]:
        plan = DEFAULT_PLAN if body.plan is None else read_plan(body.plan)
        routing = desk.traffic.read(body.service)
        version, plan = desk.choose(routing.stable.model, body.version), desk.suit(routing.stable.model, plan)
        asked = Asked(body.who, body.why, desk.clock_us())
        return operations.describe_standing(operations.start_rollout(desk.workspace, routing, version, plan, asked))

    @app.post("/v1/rollouts/{name}/{action}", status_code=202)
    def change(name: str, action: str, body: Change) -> dict[str, Any]:
        asked = Asked(body.who, body.why, desk.clock_us())
        return asdict(operations.ask(desk.workspace, name, action, asked))

    return app


async def _reply_to_error(_request: Request, error: Exception) -> JSONResponse:
    """503 for what may pass, 409 for what is refused; the body's ``error`` is one line."""
    status = 503 if isinstance(error, TemporaryError) else 409
    return JSONResponse({"error": " ".join(str(error).split())}, status_code=status)
