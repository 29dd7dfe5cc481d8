"""``plumb up`` and ``plumb down``: the local data plane, which runs InferenceServices on this machine."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer
import yaml

from features.errors import explain
from features.workspace import Workspace
from plumb.errors import CommandError
from plumb.prometheus import PORTS, LocalPrometheus
from plumb.scrape_targets import ALERTMANAGER, PLANE, PROMETHEUS, TargetFile, announced, servers_of
from plumb.scrape_targets import SERVER as SERVERS
from plumb.settings import Settings

if TYPE_CHECKING:
    from inference.plane.document import Predictor, Service
    from inference.plane.plane import Outside, Plane
    from inference.plane.process import Command

SERVER = "from inference.plane.tether import hold; hold(); from plumb.app import main; main()"
LOCK_FILE = "plane.lock"
STOP_TIMEOUT_S = 60.0
LOCK_TIMEOUT_S = 0.5
"""Somebody who only asks whether a plane runs holds the lock for an instant."""
POLL_S = 0.05
LOOK_S = 1.0
"""Between two looks at where the servers listen."""
PROMETHEUS_HELP = "Start Prometheus and Alertmanager beside the plane, on 127.0.0.1, where they are installed."
WHOLE_RATE_HELP = (
    "Share of predictions logged with state and features, of servers whose service names none; rollouts see by it."
)


def up(  # noqa: PLR0913 - one argument an option
    ctx: typer.Context,
    service: Annotated[
        list[Path] | None,
        typer.Option(
            help="YAML of an InferenceService; repeatable. One that was applied before and says the same changes nothing."
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="Port of inference on 127.0.0.1; 0 takes a free one.")] = 8000,
    admin_port: Annotated[int, typer.Option(help="Port of the admin API on 127.0.0.1; 0 takes a free one.")] = 8001,
    whole_rate: Annotated[float, typer.Option(min=0, max=1, help=WHOLE_RATE_HELP)] = 0.1,
    prometheus: Annotated[bool, typer.Option("--prometheus/--no-prometheus", help=PROMETHEUS_HELP)] = True,
    prometheus_port: Annotated[int, typer.Option(help="Its port; 0 takes a free one.")] = PORTS[PROMETHEUS],
    alertmanager_port: Annotated[int, typer.Option(help="Alertmanager's; 0 takes a free one.")] = PORTS[ALERTMANAGER],
) -> None:
    """Run services on this machine, stable and canary as processes of their own, until stopped by SIGTERM or Ctrl-C."""
    from inference.plane.documents import Documents
    from inference.plane.plane import Plane
    from inference.plane.settings import PlaneSettings
    from plumb.instants import now_us

    settings: Settings = ctx.obj
    files = [(path, content) for path in service or () for content in read_yaml(path)]
    with alone(settings.workspace) as describe:
        documents = Documents(settings.workspace.services())
        for path, content in files:
            changed = documents.apply_file(content, now_us())
            tell(f"{path}: {'applied' if changed else 'unchanged; the service stays as it was last steered'}")
        if not documents.names():
            tell("no service yet: pass --service FILE, or PUT one to the admin API")
        plane = Plane(PlaneSettings(port=port, admin_port=admin_port), documents, outside(settings, whole_rate))
        ports = {PROMETHEUS: prometheus_port, ALERTMANAGER: alertmanager_port}
        beside = LocalPrometheus(settings.workspace, tell, ports) if prometheus else None

        def announce(inference: str, admin: str) -> None:
            describe({"inference": inference, "admin": admin})
            typer.echo(f"plumb: plane at {inference} (admin {admin})")
            if beside is not None:
                describe({"inference": inference, "admin": admin, **beside.start()})

        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                runner.run(run(settings.workspace, plane, announce, beside))
            finally:
                if beside is not None:
                    beside.stop()


async def run(workspace: Workspace, plane: Plane, announce: Callable[[str, str], None], beside: LocalPrometheus | None) -> None:
    """Run a plane until a signal comes; meanwhile say where it and its servers export metrics."""
    stopping, listening = asyncio.Event(), asyncio.get_running_loop().create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)

    def start(inference: str, admin: str) -> None:
        announce(inference, admin)
        listening.set_result(admin)

    watching = asyncio.create_task(watch(workspace, plane, listening, beside))
    try:
        await plane.run(stopping, start)
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def watch(workspace: Workspace, plane: Plane, listening: asyncio.Future[str], beside: LocalPrometheus | None) -> None:
    """Say where the plane, once ``listening`` gives its admin address, and its servers export metrics.

    On a full disk that cannot be written; then the plane goes on, its operator is told, and it is tried again.
    """
    admin, told = await listening, ""
    while True:
        try:
            with ExitStack() as stack:
                servers = TargetFile(workspace, SERVERS)
                stack.callback(servers.remove)
                stack.enter_context(announced(workspace, PLANE, admin))
                while True:
                    servers.write(servers_of(shown for name in plane.names() if (shown := plane.show(name)) is not None))
                    if beside is not None:
                        await asyncio.to_thread(beside.check)
                    await asyncio.sleep(LOOK_S)
        except OSError as error:
            if told != str(error):
                told = str(error)
                tell(f"Prometheus cannot be told where to look: {error}")
        await asyncio.sleep(LOOK_S)


def down(ctx: typer.Context) -> None:
    """Stop the plane of this workspace; requests in flight are finished first, and the next start goes on as it was."""
    settings: Settings = ctx.obj
    path = settings.workspace.services() / LOCK_FILE
    if not is_held(path):
        typer.echo("plumb: no plane runs on this workspace", err=True)
        return
    process = int(json.loads(path.read_text(encoding="utf-8"))["pid"])
    os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while is_held(path):
        if time.monotonic() > deadline:
            raise CommandError(
                explain("plane does not stop", which=f"process {process}", expected=f"an end within {STOP_TIMEOUT_S:.0f} s",
                        got="a running process", next_step="look at its output, or kill it: its servers end with it")
            )  # fmt: skip
        time.sleep(POLL_S)
    typer.echo("plumb: stopped", err=True)


def outside(settings: Settings, whole_rate: float) -> Outside:
    """What the plane cannot know: how ``plumb serve`` is started, where logs go, and the clock."""
    from inference.plane.plane import Outside
    from inference.plane.process import Command
    from plumb.instants import now_us

    workspace = settings.workspace

    def command(_service: Service, predictor: Predictor) -> Command:
        words = [sys.executable, "-c", SERVER, "--workspace", str(workspace.root)]
        words += ["--control-database", settings.control_database] if settings.control_database else []
        words += ["serve", predictor.model, "--version", str(predictor.version), "--revision", predictor.name]
        words += ["--port", "0", "--grpc-port", "0", "--whole-rate", str(whole_rate)]
        words += predictor.arguments  # of one that is given twice, the last counts
        return Command(words, {**os.environ, **dict(predictor.environment)})

    def log(service: Service, predictor: Predictor) -> Path:
        return workspace.services() / "logs" / f"{service.name}-{predictor.name}-{predictor.version}.log"

    return Outside(command, log, now_us, tell)


def read_yaml(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file.

    Raises:
        CommandError: it cannot be read, or holds something else than objects.
    """
    try:
        content = [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document is not None]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise refuse_file(path, str(error)) from error
    if not content or not all(isinstance(document, dict) for document in content):
        raise refuse_file(path, "no object")
    return content


def refuse_file(path: Path, got: str) -> CommandError:
    """Why a service's file cannot be applied."""
    return CommandError(
        explain("service cannot be read", which=str(path), expected="YAML of an InferenceService", got=got,
                next_step="correct the file")
    )  # fmt: skip


@contextmanager
def alone(workspace: Workspace) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Be the workspace's only plane for as long as this process lives; gives a function that says more about it.

    Raises:
        CommandError: another plane runs.
    """
    path = workspace.services() / LOCK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as lock:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while not acquire(lock, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise CommandError(
                    explain("workspace has a plane already", which=str(workspace.root), expected="none",
                            got=path.read_text(encoding="utf-8"), next_step="stop it: plumb down")
                )  # fmt: skip
            time.sleep(POLL_S)

        def describe(facts: dict[str, Any]) -> None:
            lock.truncate(0)
            lock.write(json.dumps({"pid": os.getpid(), **facts}))
            lock.flush()

        describe({})
        yield describe


def read_plane(settings: Settings) -> dict[str, Any]:
    """What the workspace's running plane says of itself: its process, addresses of ``inference`` and ``admin``, and those of
    ``prometheus`` and ``alertmanager`` where it has started them. Empty where none runs."""
    path = settings.workspace.services() / LOCK_FILE
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8") or "{}") if is_held(path) else {}
    return facts


def is_held(path: Path) -> bool:
    """Whether a plane holds this lock file."""
    if not path.exists():
        return False
    with path.open(encoding="utf-8") as lock:
        return not acquire(lock, fcntl.LOCK_SH)


def acquire(lock: IO[str], kind: int) -> bool:
    """Whether the lock was free; it is ours until the file is closed."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def tell(line: str) -> None:
    """Show the operator a line."""
    typer.echo(f"plumb: {line}", err=True)
