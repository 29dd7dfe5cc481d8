"""``plumb rollouts``: start a canary, watch it, change it; and the controller that steps it.

Commands that change something record a request with who and why; the controller does it within a tick, and says so in the
timeline. They need the control database only, except ``start``, which asks the plane what is served.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from features.errors import explain
from plumb.errors import CommandError
from plumb.instants import now_us
from plumb.models import operator
from plumb.rollout_view import show_list, show_rollout
from plumb.settings import Settings

if TYPE_CHECKING:
    from monitoring.rollout.plan import Plan
    from monitoring.rollout.traffic import PlaneTraffic

app = typer.Typer(help="Canaries: started, judged against the stable revision, promoted or rolled back.", no_args_is_help=True)

DEFAULT_PLANE = "http://127.0.0.1:8001"
DEFAULT_PORT = 8002
WAIT_POLL_S = 0.2
PORT_HELP = "Port on 127.0.0.1 for events and the HTTP API; 0 takes a free one."
LEASE_HELP = "Seconds after which another controller may take over."
READY_HELP = "Seconds that a canary's model may take until it answers; then it is taken off."
ROWS_HELP = "Most requests kept between two looks; more are dropped."
FORWARD_HELP = "URL that gets every event too, such as the drift detector's: http://127.0.0.1:8010/."
RETRAIN_HELP = "Whether drift of what is served opens a training run."
COOL_DOWN_HELP = "Seconds between two training runs of a model that drift opens."
KFP_HELP = "Where the KFP API of the cluster is that runs them; this machine runs them where not given."
PLAN_HELP = "YAML with stages and gates; 5, 25 and 50 % where not given."
WAIT_HELP = "Seconds to wait until the controller has done it."
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
RolloutArgument = Annotated[str, typer.Argument(metavar="ROLLOUT", help="A rollout's number, or a service for its newest one.")]
WhyOption = Annotated[str, typer.Option("--why", help="Kept in the timeline beside your name.")]
WaitOption = Annotated[float, typer.Option("--wait", min=0, help=WAIT_HELP)]
PlaneOption = Annotated[
    str | None, typer.Option("--plane", help=f"Admin API of the data plane; the running plane's, else {DEFAULT_PLANE}.")
]


@app.command("start")
def start(  # noqa: PLR0913 - one argument an option
    ctx: typer.Context,
    service: Annotated[str, typer.Argument(help="Name of an InferenceService on the plane.")],
    why: WhyOption,
    version: Annotated[
        int | None, typer.Option("--version", help="A blessed version of its model; the candidate where not given.")
    ] = None,
    plan: Annotated[Path | None, typer.Option("--plan", help=PLAN_HELP)] = None,
    plane: PlaneOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask for a version of the service's model to be rolled out as a canary."""
    from components.rollouts import choose_canary, suit_plan
    from monitoring.rollout.journal import Request
    from monitoring.rollout.operations import describe_standing, start_rollout

    settings: Settings = ctx.obj
    read = read_plan_file(plan)
    with open_plane(settings, plane) as traffic:
        routing = traffic.read(service)
    chosen, read = choose_canary(settings.workspace, routing.stable.model, version), suit_plan(routing.stable.model, read)
    made = start_rollout(settings.workspace, routing, chosen.version, read, Request(operator(), why, now_us()))
    if as_json:
        typer.echo(json.dumps(describe_standing(made), indent=2))
        return
    facts = made.facts
    typer.echo(
        f"rollout {facts.id} of {service}: {facts.model} version {facts.stable_version} -> {facts.canary_version} is asked for"
    )
    typer.echo(f"watch it: plumb rollouts show {facts.id}")


@app.command("list")
def list_all(
    ctx: typer.Context,
    service: Annotated[str | None, typer.Argument(help="Of this service only.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List rollouts, the newest first."""
    from monitoring.rollout.operations import describe_standing
    from monitoring.rollout.records import list_rollouts

    settings: Settings = ctx.obj
    found = [describe_standing(entry) for entry in list_rollouts(settings.workspace, service)]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    show_list(found)


@app.command("show")
def show(ctx: typer.Context, rollout: RolloutArgument, plane: PlaneOption = None, as_json: JsonOption = False) -> None:
    """Show one rollout: what runs, what each gate says, what comes next and when, and everything that has happened."""
    from features.errors import PlumblineError
    from monitoring.rollout.operations import describe_rollout

    settings: Settings = ctx.obj
    facts = describe_rollout(settings.workspace, rollout, now_us())
    try:
        with open_plane(settings, plane) as traffic:
            facts["plane"] = asdict(traffic.read(facts["service"]))
    except PlumblineError as error:
        facts["plane"] = {"error": str(error)}
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    show_rollout(facts, now_us())


def _change(action: str, help_text: str) -> None:
    """One sub-command for one request to the controller."""

    def change(
        ctx: typer.Context, rollout: RolloutArgument, why: WhyOption, wait: WaitOption = 15, as_json: JsonOption = False
    ) -> None:
        from monitoring.rollout.journal import Request
        from monitoring.rollout.operations import ask

        settings: Settings = ctx.obj
        command = ask(settings.workspace, rollout, action, Request(operator(), why, now_us()))
        facts = wait_until_done(settings, command.rollout_id, command.id, wait)
        if as_json:
            typer.echo(json.dumps(facts, indent=2))
        elif facts["done_at_us"] is None:
            typer.echo(f"{action} of rollout {command.rollout_id} is asked for; no controller has done it yet")
        else:
            typer.echo(f"{action} of rollout {command.rollout_id}: {facts['result']}")
        if facts["result"].startswith("refused"):
            raise typer.Exit(2)

    app.command(action, help=help_text)(change)


for _action, _help in {
    "pause": "Hold the canary at its share until resumed; harm still rolls it back.",
    "resume": "Go on with a paused rollout; its stage bakes anew.",
    "promote": "Make the canary the stable version now, whatever the gates say.",
    "abort": "End a rollout and take the canary off, without saying that it was bad.",
    "rollback": "Take the canary off because it is bad; after a promotion, restore the version before.",
}.items():
    _change(_action, _help)


@app.command("run")
def run(  # noqa: PLR0913 - one argument an option
    ctx: typer.Context,
    plane: PlaneOption = None,
    port: Annotated[int, typer.Option(help=PORT_HELP)] = DEFAULT_PORT,
    tick_s: Annotated[float, typer.Option("--tick", min=0.1, help="Seconds between two looks.")] = 1.0,
    lease_s: Annotated[float, typer.Option("--lease", min=1, help=LEASE_HELP)] = 10.0,
    ready_within_s: Annotated[float, typer.Option("--ready-within", min=1, help=READY_HELP)] = 180.0,
    most_rows: Annotated[int, typer.Option(min=1_000, help=ROWS_HELP)] = 200_000,
    forward_to: Annotated[str | None, typer.Option("--forward-to", metavar="URL", help=FORWARD_HELP)] = None,
    retrain: Annotated[bool, typer.Option("--retrain/--no-retrain", help=RETRAIN_HELP)] = True,
    cool_down_s: Annotated[float, typer.Option("--retrain-cool-down", min=0, help=COOL_DOWN_HELP)] = 86_400.0,
    kfp_host: Annotated[str | None, typer.Option("--retrain-on", metavar="URL", help=KFP_HELP)] = None,
    token_file: Annotated[Path | None, typer.Option("--token-file", help="File with a bearer token for it.")] = None,
) -> None:
    """Run the controller of rollouts until stopped. Of several on one control database, one acts and the others stand by."""
    from plumb.retraining import Course as Retraining
    from plumb.retraining import find_cluster
    from plumb.rollout_process import Course, run_controller

    settings: Settings = ctx.obj
    url = plane or find_plane(settings)
    cluster = find_cluster(kfp_host, token_file) if kfp_host else None
    course = Course(
        port=port, tick_s=tick_s, lease_s=lease_s, ready_within_s=ready_within_s, most_rows=most_rows, forward_to=forward_to,
        retraining=Retraining(cool_down_s, cluster) if retrain else None,
    )  # fmt: skip
    run_controller(settings, url, course)


def read_plan_file(path: Path | None) -> Plan:
    """The plan of a YAML file; the default one where there is none.

    Raises:
        CommandError: the file cannot be read.
        PlanError: it is no plan.
    """
    from monitoring.rollout.plan import DEFAULT_PLAN, read_plan

    if path is None:
        return DEFAULT_PLAN
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CommandError(
            explain("plan cannot be read", which=str(path), expected="YAML with stages and gates", got=str(error),
                    next_step="correct the file")
        ) from error  # fmt: skip
    return read_plan(content)


def find_plane(settings: Settings) -> str:
    """Admin address of the workspace's running plane; the usual one where none runs."""
    from plumb.up import LOCK_FILE, is_held

    path = settings.workspace.services() / LOCK_FILE
    if not is_held(path):
        return DEFAULT_PLANE
    facts = json.loads(path.read_text(encoding="utf-8") or "{}")
    return str(facts.get("admin", DEFAULT_PLANE))


@contextmanager
def open_plane(settings: Settings, url: str | None) -> Iterator[PlaneTraffic]:
    """The plane as rollouts see it."""
    from monitoring.rollout.traffic import PlaneTraffic

    traffic = PlaneTraffic(url or find_plane(settings))
    try:
        yield traffic
    finally:
        traffic.close()


def wait_until_done(settings: Settings, rollout_id: int, command_id: int, wait_s: float) -> dict[str, Any]:
    """The command, once the controller has done or refused it or the time is over."""
    from monitoring.rollout.records import read_dossier

    deadline = time.monotonic() + wait_s
    while True:
        commands = read_dossier(settings.workspace, rollout_id).commands
        facts = asdict(next(entry for entry in commands if entry.id == command_id))
        if facts["done_at_us"] is not None or time.monotonic() >= deadline:
            return facts
        time.sleep(WAIT_POLL_S)
