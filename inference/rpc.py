"""KServe's gRPC front end on 127.0.0.1, with the same one-line errors as REST."""

from __future__ import annotations

import logging
from typing import Any, NoReturn

from grpc import StatusCode, aio
from grpc_interceptor import AsyncExceptionToStatusInterceptor
from grpc_interceptor.exceptions import GrpcException
from kserve.constants.constants import MAX_GRPC_MESSAGE_LENGTH
from kserve.errors import InferenceError, InvalidInput, ModelNotFound, ModelNotReady
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from kserve.protocol.grpc.servicer import InferenceServicer

from features.errors import PlumblineError, StoreUnavailable, explain
from inference.dataplane import FixedRepository, ScoringDataPlane
from inference.errors import RequestError, ServerError
from inference.merging import Overloaded

LOOPBACK = "127.0.0.1"
STATUS_OF: dict[type[Exception], StatusCode] = {
    RequestError: StatusCode.INVALID_ARGUMENT,
    InvalidInput: StatusCode.INVALID_ARGUMENT,
    InferenceError: StatusCode.INVALID_ARGUMENT,
    ModelNotFound: StatusCode.NOT_FOUND,
    NotImplementedError: StatusCode.UNIMPLEMENTED,
    ModelNotReady: StatusCode.UNAVAILABLE,
    StoreUnavailable: StatusCode.UNAVAILABLE,
    Overloaded: StatusCode.UNAVAILABLE,
    PlumblineError: StatusCode.INTERNAL,
}
OPTIONS = [
    ("grpc.max_send_message_length", MAX_GRPC_MESSAGE_LENGTH),
    ("grpc.max_receive_message_length", MAX_GRPC_MESSAGE_LENGTH),
    ("grpc.so_reuseport", 0),  # with 1, a second server would share the port in silence
]

log = logging.getLogger(__name__)


class OneLineStatus(AsyncExceptionToStatusInterceptor):
    """Turns an error into its gRPC status and one line; what nobody expected is logged with its traceback."""

    async def handle_exception(self, ex: Exception, request_or_iterator: Any, context: Any, method_name: str) -> NoReturn:
        """End the call with a status; never returns."""
        status = next((status for kind, status in STATUS_OF.items() if isinstance(ex, kind)), None)
        if status is not None:
            await context.abort(status, " ".join(str(ex).split()))
        if not isinstance(ex, GrpcException | aio.AbortError):
            log.error("gRPC call %s failed", method_name, exc_info=ex)
            await context.abort(StatusCode.INTERNAL, "internal error; see the server's log")
        raise ex


class LoopbackGRPCServer:
    """KServe's servicer behind a server that listens on 127.0.0.1 alone."""

    def __init__(self, port: int, dataplane: ScoringDataPlane, repository: FixedRepository) -> None:
        self._port = port
        self._servicer = InferenceServicer(dataplane, repository)
        self._server: aio.Server | None = None

    async def start(self) -> int:
        """Start accepting calls.

        Returns:
            The port that was bound.

        Raises:
            ServerError: the port is taken.
        """
        self._server = aio.server(interceptors=(OneLineStatus(),), options=OPTIONS)
        add_GRPCInferenceServiceServicer_to_server(self._servicer, self._server)
        try:
            port: int = self._server.add_insecure_port(f"{LOOPBACK}:{self._port}")
        except RuntimeError as error:
            raise ServerError(
                explain("gRPC port cannot be bound", which=f"{LOOPBACK}:{self._port}", expected="a free port", got=str(error),
                        next_step="stop what uses it or pass another --grpc-port")
            ) from error  # fmt: skip
        await self._server.start()
        return port

    async def stop(self, grace_period_s: int) -> None:
        """Finish calls in flight, for at most this long."""
        if self._server is not None:
            await self._server.stop(grace_period_s)
