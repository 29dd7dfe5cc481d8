"""``plumb serve`` and ``plumb score``: start a model's server on this machine, and ask a running one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from features.errors import StoreUnavailable, explain
from plumb.errors import CommandError
from plumb.settings import Settings

if TYPE_CHECKING:
    import httpx

DEFAULT_URL = "http://127.0.0.1:8080"
TIMEOUT_S = 30.0
STORE_HELP = "Online store: a folder, or redis://HOST:PORT/DATABASE. PLUMB_STORE or the workspace's own where not given."


def serve(  # noqa: PLR0913 - one argument an option
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Name of a registered model.")],
    version: Annotated[int | None, typer.Option(help="Its version; the champion where not given.")] = None,
    port: Annotated[int, typer.Option(help="HTTP port on 127.0.0.1; 0 takes a free one.")] = 8080,
    grpc_port: Annotated[int, typer.Option(help="gRPC port on 127.0.0.1; 0 takes a free one.")] = 8081,
    store: Annotated[str | None, typer.Option(help=STORE_HELP)] = None,
    lookup_budget_ms: Annotated[int, typer.Option(min=1, help="Milliseconds that a store on a server may take.")] = 50,
    cache_ttl_s: Annotated[float, typer.Option(min=0, help="Seconds for which a looked-up user is not looked up again.")] = 0.0,
    revision: Annotated[str, typer.Option(help="Name of this deployment in replies, metrics and logs.")] = "stable",
    prediction_log: Annotated[bool, typer.Option(help="Log every prediction in the workspace.")] = True,
    whole_rate: Annotated[float, typer.Option(min=0, max=1, help="Share of them logged with state and features.")] = 0.01,
    log_queue_rows: Annotated[int, typer.Option(min=1, help="Predictions that may wait for the log's disk.")] = 200_000,
) -> None:
    """Serve a blessed model over V1, V2 and gRPC until stopped by SIGTERM or Ctrl-C."""
    from models.versions import load

    settings: Settings = ctx.obj
    chosen = load(settings.workspace, model, version)

    from features.online.guarded import Limits
    from inference.server import Addresses, run_server
    from inference.settings import LogSettings, ServerSettings
    from plumb.features import store_of
    from plumb.instants import now_us

    def announce(addresses: Addresses) -> None:
        typer.echo(f"plumb: {model} version {chosen.version} ready at {addresses.url} (gRPC {addresses.grpc})")

    log = LogSettings(settings.workspace.predictions(model), whole_rate, log_queue_rows) if prediction_log else None
    run_server(
        ServerSettings(
            model_name=model,
            model_version=chosen.version,
            model_path=chosen.path,
            store=store or store_of(settings, chosen.view_key, None),
            lookup_budget_s=lookup_budget_ms / 1_000,
            limits=Limits(cache_ttl_s=cache_ttl_s),
            http_port=port,
            grpc_port=grpc_port,
            revision=revision,
            log=log,
        ),
        clock_us=now_us,
        announce=announce,
    )


def score(
    model: Annotated[str, typer.Argument(help="Name of the served model.")],
    user: Annotated[str, typer.Option("--user", help="Id of the entity to score.")],
    now: Annotated[
        str | None, typer.Option("--now", help="ISO 8601 time to score at; the server's clock where not given.")
    ] = None,
    field: Annotated[list[str] | None, typer.Option("--field", metavar="NAME=VALUE", help="Request field; repeatable.")] = None,
    url: Annotated[str, typer.Option(help="Where the server listens.")] = DEFAULT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reply as JSON.")] = False,
) -> None:
    """Score one entity on a running server: why it has this score, and the finished features behind it."""
    import httpx

    from plumb.instants import parse_instant
    from plumb.scores import show

    instance: dict[str, Any] = {"entity_id": user}
    if now is not None:
        instance["now"] = parse_instant(now)
    with httpx.Client(base_url=url, timeout=TIMEOUT_S) as client:
        if field:
            instance |= read_fields(field, call(client, "GET", f"/v2/models/{model}")["inputs"])
        body = {"instances": [instance], "parameters": {"features": True, "explain": True}}
        reply = call(client, "POST", f"/v1/models/{model}:predict", body)
    if as_json:
        typer.echo(json.dumps(reply, indent=2))
        return
    show(reply)


def read_fields(given: list[str], inputs: list[dict[str, Any]]) -> dict[str, str | int]:
    """``NAME=VALUE`` words as request fields, each in the type that the server's metadata names for it.

    Raises:
        CommandError: a word has no ``=``, the model has no such field, or an integer field got other text.
    """
    datatypes = {entry["name"]: entry["datatype"] for entry in inputs if entry["name"] not in ("entity_id", "now")}
    fields: dict[str, str | int] = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or name not in datatypes:
            raise CommandError(
                explain("no such request field", which=repr(word), got=repr(name), next_step="correct --field",
                        expected=f"NAME=VALUE with {' or '.join(datatypes) or 'no field'}")
            )  # fmt: skip
        try:
            fields[name] = int(value) if datatypes[name] == "INT64" else value
        except ValueError as error:
            raise CommandError(
                explain("request field has a wrong type", which=name, expected="an integer", got=repr(value),
                        next_step="correct --field")
            ) from error  # fmt: skip
    return fields


def call(client: httpx.Client, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request; the reply's JSON object.

    Raises:
        StoreUnavailable: nothing listens there, or it did not answer in time.
        CommandError: the server refused the request; its own line says why.
    """
    import httpx

    try:
        response = client.request(method, path, json=body)
    except httpx.TransportError as error:
        raise StoreUnavailable(
            explain("server does not answer", which=str(client.base_url), expected="a running server",
                    got=str(error) or "no reply", next_step="start it: plumb serve MODEL")
        ) from error  # fmt: skip
    try:
        content = response.json()
    except ValueError:
        content = {"error": response.text}
    if response.status_code != httpx.codes.OK or not isinstance(content, dict):
        reason = content.get("error") if isinstance(content, dict) else response.text
        raise CommandError(f"server replied {response.status_code}: {reason}")
    return content
