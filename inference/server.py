"""One serving process: KServe's model server for one model version, on 127.0.0.1, until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import uvloop
from fastapi.exceptions import FastAPIDeprecationWarning
from kserve import ModelServer

from features.errors import explain
from features.online.addresses import ViewVersion, beside, open_store
from features.online.guarded import GuardedStore
from features.online.store import OnlineStore
from inference.artifact import ModelArtifact, read_artifact
from inference.dataplane import FixedRepository, ScoringDataPlane
from inference.endpoint import ScoringModel
from inference.errors import ServerError
from inference.prediction_log import PredictionLog, Server, finish_by
from inference.rest import LoopbackRESTServer
from inference.rpc import LOOPBACK, LoopbackGRPCServer
from inference.settings import ServerSettings
from inference.tally import Tally

if TYPE_CHECKING:
    from inference.predictor import Predictor


SWITCH_INTERVAL_S: Final = 0.001
"""A thread that waits for the interpreter gets it after so long: with Python's own 5 ms, the thread that writes the log could
hold up a request for longer than its lookup and its graph take."""


@dataclass(frozen=True)
class Addresses:
    """Where a started server listens."""

    http_port: int
    grpc_port: int

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.http_port}"

    @property
    def grpc(self) -> str:
        return f"{LOOPBACK}:{self.grpc_port}"


class LoopbackModelServer(ModelServer):
    """KServe's ModelServer with front ends that listen on 127.0.0.1, where KServe would listen everywhere."""

    def __init__(self, settings: ServerSettings) -> None:
        super().__init__(
            http_port=settings.http_port, grpc_port=settings.grpc_port, workers=1, enable_latency_logging=False,
            grace_period=settings.grace_period_s,
        )  # fmt: skip
        quieten()
        self._settings = settings
        self.dataplane = ScoringDataPlane(settings.revision, model_registry=self.registered_models)
        self.model_repository_extension = FixedRepository(self.registered_models)

    def serve(self, model: ScoringModel, listener: socket.socket, announce: Callable[[Addresses], None]) -> None:
        """Serve one model until SIGTERM or SIGINT, then finish the requests in flight.

        Args:
            model: loaded and warmed up.
            listener: bound to the HTTP port.
            announce: called once, when both front ends accept requests and the model has answered.

        Raises:
            ServerError: the gRPC port is taken, or the model does not answer.
        """
        model.enable_latency_logging = False
        self.register_model(model)
        for number in (signal.SIGTERM, signal.SIGINT):
            # uvicorn handles these while it serves, and raises them again when it has finished: then they mean nothing.
            signal.signal(number, lambda *_: None)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve_until_stopped(model, listener, announce))

    async def _serve_until_stopped(
        self, model: ScoringModel, listener: socket.socket, announce: Callable[[Addresses], None]
    ) -> None:
        rest = LoopbackRESTServer(
            listener, model, self._settings.revision, data_plane=self.dataplane,
            model_repository_extension=self.model_repository_extension, grace_period=self._settings.grace_period_s,
        )  # fmt: skip
        grpc = LoopbackGRPCServer(self._settings.grpc_port, self.dataplane, self.model_repository_extension)
        grpc_port = await grpc.start()
        try:
            serving = asyncio.create_task(rest.start())
            while not rest.started and not serving.done():
                await asyncio.sleep(0.01)
            if not await self.dataplane.ready():
                rest.stop()
                await serving
                raise ServerError(
                    explain("model does not answer", which=self._settings.model_name, expected="a score for an unknown entity",
                            got="an error", next_step="look at the store and the model folder")
                )  # fmt: skip
            # What has been loaded stays for good: the collector need not walk through it while requests wait.
            gc.collect()
            gc.freeze()
            sys.setswitchinterval(SWITCH_INTERVAL_S)
            announce(Addresses(listener.getsockname()[1], grpc_port))
            await serving
        finally:
            await grpc.stop(self._settings.grace_period_s)


def run_server(settings: ServerSettings, *, clock_us: Callable[[], int], announce: Callable[[Addresses], None]) -> None:
    """Load a model version, open its store, serve both until the process is told to stop.

    Args:
        settings: what to serve and where.
        clock_us: gives ``now``, UTC microseconds, for requests that bring none.
        announce: called once, when requests are accepted.

    Raises:
        ArtifactError: the model folder cannot be served.
        StoreError: the online store is missing, damaged, or of another view version.
        StoreUnavailable: it does not answer; once the server has started, it answers without the store.
        ServerError: a port is taken, or the model does not answer.
    """
    artifact = read_artifact(settings.model_path)
    version = ViewVersion.of(artifact.catalog, artifact.view)
    # A server that has never met its store cannot know that it is of the model's view version, so it does not start.
    opened = open_store(settings.store, version, readonly=True, timeout_s=settings.lookup_budget_s)
    with ExitStack() as open_stores, opened as store, bind(settings.http_port) as listener:
        joined = {name: open_stores.enter_context(each) for name, each in open_joined(settings, artifact)}
        # Loading TensorFlow takes seconds; what is wrong with files and ports has been said by now.
        from inference.predictor import Predictor, use_one_thread_a_prediction

        use_one_thread_a_prediction()
        predictor = Predictor(artifact)
        predictor.warm_up()
        tally = Tally(settings.model_name, settings.revision)
        guarded = GuardedStore(store, settings.limits, clock_us, tally.source)
        log = open_log(settings, artifact, predictor, tally)
        apart = {name: GuardedStore(each, settings.limits, clock_us) for name, each in joined.items()}
        model = ScoringModel(settings, artifact, predictor, guarded, clock_us, tally=tally, log=log, joined=apart)
        try:
            LoopbackModelServer(settings).serve(model, listener, announce)
        finally:
            model.close()


def open_joined(settings: ServerSettings, artifact: ModelArtifact) -> Iterator[tuple[str, OnlineStore]]:
    """The stores of the views that the model's view joins, by name: they stand beside its own."""
    for name in {join.view for join in artifact.view.joins}:
        view = artifact.catalog.view(name)
        address, version = beside(settings.store, view.key), ViewVersion.of(artifact.catalog, view)
        yield name, open_store(address, version, readonly=True, timeout_s=settings.lookup_budget_s)


def open_log(settings: ServerSettings, artifact: ModelArtifact, predictor: Predictor, tally: Tally) -> PredictionLog | None:
    """The log that the settings ask for."""
    if settings.log is None:
        return None
    server = Server(settings.model_name, settings.model_version, settings.revision, artifact)
    return PredictionLog(
        settings.log.folder, server, finish_by(predictor), whole_rate=settings.log.whole_rate,
        max_queued_rows=settings.log.max_queued_rows, count_dropped=tally.dropped,
    )  # fmt: skip


def bind(port: int) -> socket.socket:
    """A socket that listens on 127.0.0.1.

    Raises:
        ServerError: the port is taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
    except OSError as error:
        listener.close()
        raise ServerError(
            explain("HTTP port cannot be bound", which=f"{LOOPBACK}:{port}", expected="a free port", got=str(error),
                    next_step="stop what uses it or pass another --port")
        ) from error  # fmt: skip
    return listener


def quieten() -> None:
    """Keep errors that nobody expected; drop the lines that KServe and uvicorn write for every request."""
    # KServe replies with a response class that FastAPI would replace; nothing that we or an operator could change.
    warnings.filterwarnings("ignore", category=FastAPIDeprecationWarning)
    for name in ("kserve", "kserve.trace", "uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.ERROR)
