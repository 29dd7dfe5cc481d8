"""The controller as a process: its loop, and beside it a server for events and requests."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from features.errors import PlumblineError, StoreUnavailable, explain
from features.workspace import Workspace
from plumb.errors import CommandError
from plumb.instants import now_us
from plumb.scrape_targets import CONTROLLER, announced
from plumb.settings import Settings
from plumb.stream_workers import on_stop

if TYPE_CHECKING:
    from fastapi import FastAPI

    from monitoring.rollout.leader import Lease
    from plumb.retraining import Course as Retraining

LOOPBACK = "127.0.0.1"
STOP_TIMEOUT_S = 10.0
BACKLOG = 1_024


@dataclass(frozen=True)
class Course:
    """How a controller runs.

    Attributes:
        port: for events and the HTTP API, on 127.0.0.1; 0 takes a free one.
        tick_s: seconds between two looks.
        lease_s: seconds for which it holds the lease at a time.
        ready_within_s: seconds that a canary's model may take until it answers.
        most_rows: requests kept between two looks.
        forward_to: URL that gets every event, too.
        retraining: how drift is answered; None opens no training run.
    """

    port: int
    tick_s: float
    lease_s: float
    ready_within_s: float
    most_rows: int
    forward_to: str | None = None
    retraining: Retraining | None = None


def run_controller(settings: Settings, plane: str, course: Course) -> None:
    """Tick until SIGTERM or Ctrl-C, then let go of the lease.

    Raises:
        CommandError: the port is taken.
        ForwardingError: events cannot be sent on to that URL.
    """
    from components.rollouts import RegistryAliases, choose_canary, suit_plan
    from monitoring.rollout.api import Desk, build_api
    from monitoring.rollout.collector import Collector
    from monitoring.rollout.controller import Controller
    from monitoring.rollout.forwarding import Forwarder
    from monitoring.rollout.leader import Claim
    from monitoring.rollout.metrics import ControllerMetrics
    from monitoring.rollout.monitors import read_monitors
    from monitoring.rollout.records import list_rollouts
    from monitoring.rollout.surroundings import Surroundings
    from monitoring.rollout.traffic import PlaneTraffic

    stopping = threading.Event()
    on_stop(stopping.set)
    workspace, collector, metrics = settings.workspace, Collector(most_rows=course.most_rows), ControllerMetrics()
    claim = Claim(f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}", ttl_s=course.lease_s)
    traffic, asked = PlaneTraffic(plane), PlaneTraffic(plane)
    aliases = RegistryAliases(workspace)
    around = Surroundings(
        workspace, traffic, collector, aliases, claim, tell, course.ready_within_s, read_feature_names(workspace),
        functools.partial(read_monitors, workspace),
    )  # fmt: skip
    controller = Controller(around)
    forwarder = Forwarder(course.forward_to, metrics.registry) if course.forward_to else None
    answer_drift = drift_answerer(settings, course)
    desk = Desk(workspace, asked, collector, lambda model, version: choose_canary(workspace, model, version).version,
                suit_plan, now_us, metrics.registry, forwarder.offer if forwarder else None)  # fmt: skip
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen(course.port))
        url = f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        stack.enter_context(serving(build_api(desk), listener))
        stack.enter_context(announced(workspace, CONTROLLER, url))
        typer.echo(f"plumb: controller at {url} (plane {plane})")
        while not stopping.wait(course.tick_s):
            controller.tick(now_us())
            if controller.acts:
                answer_drift(now_us())
            try:
                metrics.show(controller, list_rollouts(workspace), now_us())
            except StoreUnavailable:
                metrics.show_blind(controller, now_us())  # the controller has said so
    if forwarder is not None:
        forwarder.close()
    if controller.lease is not None:
        let_go(workspace, controller.lease)
    traffic.close()
    asked.close()


def let_go(workspace: Workspace, lease: Lease) -> None:
    """Let another controller have the lease at once; where the control database is away, it expires by itself."""
    from monitoring.rollout.leader import release

    try:
        release(workspace, lease, now_us())
    except StoreUnavailable as error:
        tell(f"the lease is not given back and expires by itself: {error}")


def drift_answerer(settings: Settings, course: Course) -> Callable[[int], None]:
    """What looks for drift that a training run is to answer. Its troubles stop no rollout: they are told, once."""
    if course.retraining is None:
        return lambda at_us: None
    from plumb.retraining import Retrainer

    retrainer, told = Retrainer(settings, course.retraining, tell), [""]

    def answer(at_us: int) -> None:
        try:
            retrainer.look(at_us)
            told[0] = ""
        except (PlumblineError, OSError) as error:
            line = f"drift cannot be answered: {' '.join(str(error).split())}"
            if line != told[0]:
                tell(line)
            told[0] = line

    return answer


def read_feature_names(workspace: Workspace) -> Callable[[str, int], tuple[str, ...]]:
    """Names of a version's finished features, in the order in which servers log them."""
    from inference.artifact import read_artifact

    return functools.cache(lambda model, version: read_artifact(workspace.model(model, version)).finished_names)


@contextlib.contextmanager
def listen(port: int) -> Iterator[socket.socket]:
    """A socket on 127.0.0.1.

    Raises:
        CommandError: the port is taken.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
            listener.listen(BACKLOG)  # who asks before the server runs waits for it
        except OSError as error:
            raise CommandError(
                explain("port cannot be bound", which=f"{LOOPBACK}:{port}", expected="a free port", got=str(error),
                        next_step="stop what uses it, or pass another --port")
            ) from error  # fmt: skip
        yield listener


@contextlib.contextmanager
def serving(app: FastAPI, listener: socket.socket) -> Iterator[None]:
    """Serve the application in a thread beside the loop, so that a slow tick holds up no event."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="rollout-api", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(STOP_TIMEOUT_S)


def tell(line: str) -> None:
    """Show the operator a line."""
    typer.echo(f"plumb: {line}", err=True)
