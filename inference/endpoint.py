"""The model as KServe calls it: decode, look up, predict, reply; and whether it can."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

import orjson
from kserve import InferRequest, InferResponse, Model

from features.online.guarded import GuardedStore
from features.online.records import encode_entity_ids
from features.online.store import EntityIdError, OnlineReader
from inference import metrics
from inference.artifact import ModelArtifact
from inference.errors import RequestError
from inference.health import Health
from inference.instances import decode_v1
from inference.joining import check_keys
from inference.merging import MergeLimits, Merger, Overloaded
from inference.prediction_log import PredictionLog
from inference.replies import Answer, Sender, reply_v1, reply_v2
from inference.requests import CANDIDATES, ENTITY, NOW, RequestForm, ScoreRequest
from inference.scoring import Scorer
from inference.settings import ServerSettings
from inference.tally import Tally
from inference.tensors import DATATYPES, decode_v2

if TYPE_CHECKING:
    from inference.predictor import Predictor

PROBE_ENTITY: Final = "readiness-probe"
REQUEST_ID_HEADERS: Final = ("x-request-id", "ce-id")
LARGE_BYTES: Final = 65_536
"""A larger body is parsed off the event loop: parsing it would hold up every other request for a millisecond or more."""
LARGE_VALUES: Final = 10_000
"""So is a reply of more values written."""
Reply = TypeVar("Reply")


class ScoringModel(Model):
    """One model version behind KServe's V1, V2 and gRPC front ends.

    Lookup and graph run in threads. Requests for scores are merged; those for features or explanations, which take many
    times as long, go one by one on threads of their own.
    """

    def __init__(  # noqa: PLR0913 - the parts that one server is put together from
        self,
        settings: ServerSettings,
        artifact: ModelArtifact,
        predictor: Predictor,
        store: GuardedStore,
        clock_us: Callable[[], int],
        *,
        tally: Tally,
        log: PredictionLog | None = None,
        joined: Mapping[str, OnlineReader] | None = None,
    ) -> None:
        super().__init__(settings.model_name)
        self._artifact = artifact
        self._store = store
        self._clock_us = clock_us
        self._tally = tally
        self._log = log
        self._form = RequestForm(artifact.sent_fields, settings.max_entities, settings.max_explained)
        self._sender = Sender(settings.model_name, str(settings.model_version), settings.revision, artifact)
        self._scorer = Scorer(artifact, predictor, store, tally, joined)
        self._batches = ThreadPoolExecutor(settings.graph_threads, thread_name_prefix="graph")
        self._apart = ThreadPoolExecutor(settings.graph_threads, thread_name_prefix="apart")
        limits = MergeLimits(batches=settings.graph_threads)
        self._merger: Merger[ScoreRequest, Answer] = Merger(
            self._scorer.score, self._batches, limits, lambda seconds: tally.stage(metrics.QUEUE, seconds)
        )
        self._health = Health(self._probe)
        self._prober = Scorer(artifact, predictor, store, joined=joined)
        self._request_ids = map(f"{uuid4().hex}-{{}}".format, count())
        self.ready = True

    async def predict(
        self, payload: object, headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> dict[str, Any] | InferResponse:
        """Answer one request that KServe has decoded; the clock is read here, once, for requests that bring no ``now``."""
        given = headers or {}
        if isinstance(payload, InferRequest):
            asked = payload
            return await self._reply(
                lambda clock_us: decode_v2(asked, self._form, clock_us),
                lambda answer: reply_v2(answer, self._sender, asked),
                self._request_id(given, asked.id),
            )
        return await self._reply(
            lambda clock_us: decode_v1(payload, self._form, clock_us),
            lambda answer: reply_v1(answer, self._sender),
            self._request_id(given),
        )

    async def predict_v1(self, body: bytes, headers: Mapping[str, str]) -> bytes:
        """Answer one V1 body with the body of the reply: what ``predict`` does, without KServe's data plane around it."""
        return await self._reply(
            lambda clock_us: decode_v1(body, self._form, clock_us),
            lambda answer: orjson.dumps(reply_v1(answer, self._sender)),
            self._request_id(headers),
            large=len(body) > LARGE_BYTES,
        )

    async def answers(self) -> bool:
        """Whether a prediction would succeed now."""
        return await self._health.answers()

    def get_input_types(self) -> list[dict[str, Any]]:
        """Metadata of the V2 inputs; ``candidates`` is needed only where entities have several rows of the fields."""
        fields = [(field.name, DATATYPES[field.dtype]) for field in self._form.fields]
        inputs = [(ENTITY, "BYTES"), (NOW, "INT64"), *fields, (CANDIDATES, "INT64")]
        return [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in inputs]

    def get_output_types(self) -> list[dict[str, Any]]:
        """Metadata of the V2 outputs; those after ``within`` come only when features or explanation are asked for."""
        scalars = [("score", "FP32"), ("cold", "BOOL"), ("log_partition", "INT64"), ("log_offset", "INT64"), ("age_s", "FP64"),
                   ("degraded", "BYTES")]  # fmt: skip
        horizons = self._sender.horizon_names()
        wide = {"within": horizons} if horizons else {}
        wide |= {"slots": self._artifact.slot_names} if self._artifact.slot_names else {}
        wide |= {**self._sender.feature_names(), "contributions": self._artifact.groups}
        return [
            *({"name": name, "datatype": kind, "shape": [-1]} for name, kind in scalars),
            *(
                {"name": name, "datatype": "INT64" if name == "integers" else "FP32", "shape": [-1, len(columns)]}
                for name, columns in wide.items()
            ),
            {"name": "base", "datatype": "FP32", "shape": [-1]},
        ]

    def close(self) -> None:
        """Let predictions in flight finish, write what waits for the log, and release the threads."""
        self.ready = False
        for executor in (self._batches, self._apart):
            executor.shutdown()
        self._health.close()
        if self._log is not None:
            self._log.close()

    async def _reply(
        self, decode: Callable[[int], ScoreRequest], encode: Callable[[Answer], Reply], request_id: str, *, large: bool = False
    ) -> Reply:
        """Decode, answer, encode, count and log one request; what is large is decoded and encoded off the event loop."""
        started, outcome = perf_counter(), metrics.ERROR
        loop = asyncio.get_running_loop()
        self._tally.begin()
        try:
            clock_us = self._clock_us()
            request = await loop.run_in_executor(self._apart, decode, clock_us) if large else decode(clock_us)
            encode_entity_ids(request.entity_ids)
            check_keys(self._artifact.view, request.fields)
            answer = await self._answer(request)
            if large or request.rows * (len(self._artifact.transformed_names) if request.with_features else 1) > LARGE_VALUES:
                reply = await loop.run_in_executor(self._apart, encode, answer)
            else:
                reply = encode(answer)
            outcome = metrics.OK
        except EntityIdError as error:
            outcome = metrics.BAD_REQUEST
            raise RequestError(str(error)) from error
        except RequestError:
            outcome = metrics.BAD_REQUEST
            raise
        except Overloaded:
            outcome = metrics.OVERLOADED
            raise
        except asyncio.CancelledError:
            outcome = metrics.CANCELLED
            raise
        finally:
            self._tally.outcome(outcome)
        self._health.prove()
        self._tally.answer(answer)
        self._tally.breaker(self._store.breaker.state)
        if self._log is not None:
            self._log.offer(answer, request_id=request_id, answered_at_us=self._clock_us())
        self._tally.stage(metrics.TOTAL, perf_counter() - started)
        return reply

    async def _answer(self, request: ScoreRequest) -> Answer:
        if request.with_features or request.with_explanation:
            loop = asyncio.get_running_loop()
            (answer,) = await loop.run_in_executor(self._apart, self._scorer.score, [request])
            return answer
        return await self._merger.submit(request, request.rows)

    def _request_id(self, headers: Mapping[str, str], fallback: str | None = None) -> str:
        """The caller's name for the request; ours where it gave none."""
        return (
            next((headers[name] for name in REQUEST_ID_HEADERS if headers.get(name)), None)
            or fallback
            or next(self._request_ids)
        )

    def _probe(self) -> bool:
        """Read the store and run the graph for an entity that nobody has."""
        fields = {field.name: [field.default] for field in self._form.fields}
        (answer,) = self._prober.score([ScoreRequest([PROBE_ENTITY], [self._clock_us()], fields, with_features=False)])
        return bool(answer.scores.score.shape == (1,))
