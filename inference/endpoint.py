"""The model as KServe calls it: decode, look up, predict, reply; and whether it can."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import TYPE_CHECKING, Any

from kserve import InferRequest, InferResponse, Model

from features.errors import PlumblineError
from features.online.breaker import CLOSED, HALF_OPEN, OPEN
from features.online.guarded import GuardedStore
from features.online.store import EntityIdError
from inference import metrics
from inference.artifact import ModelArtifact
from inference.errors import RequestError
from inference.lookup import look_up
from inference.replies import Answer, Sender, reply_v1, reply_v2
from inference.requests import ENTITY, NOW, V2_DATATYPES, RequestForm, ScoreRequest, decode_v1, decode_v2
from inference.settings import ServerSettings

if TYPE_CHECKING:
    from inference.predictor import Predictor

PROBE_ENTITY = "readiness-probe"


class ScoringModel(Model):
    """One model version behind KServe's V1, V2 and gRPC front ends.

    Lookup and graph run together in an executor, so that a long batch does not hold up health checks or other requests.
    """

    def __init__(
        self,
        settings: ServerSettings,
        artifact: ModelArtifact,
        predictor: Predictor,
        store: GuardedStore,
        clock_us: Callable[[], int],
    ) -> None:
        super().__init__(settings.model_name)
        self._artifact = artifact
        self._predictor = predictor
        self._store = store
        self._clock_us = clock_us
        self._form = RequestForm(artifact.request_fields, settings.max_entities, settings.max_explained)
        self._sender = Sender(settings.model_name, str(settings.model_version), settings.revision, artifact)
        self._executor = ThreadPoolExecutor(settings.graph_threads, thread_name_prefix="graph")
        self.ready = True

    async def predict(
        self, payload: object, headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> dict[str, Any] | InferResponse:
        """Answer one request; the clock is read here, once, for requests that bring no ``now``."""
        started, outcome = perf_counter(), metrics.ERROR
        try:
            clock_us = self._clock_us()
            if isinstance(payload, InferRequest):
                request = decode_v2(payload, self._form, clock_us)
            else:
                request = decode_v1(payload, self._form, clock_us)
            answer = await asyncio.get_running_loop().run_in_executor(self._executor, self._answer, request)
            outcome = metrics.OK
        except EntityIdError as error:
            outcome = metrics.BAD_REQUEST
            raise RequestError(str(error)) from error
        except RequestError:
            outcome = metrics.BAD_REQUEST
            raise
        finally:
            metrics.REQUESTS.labels(self.name, outcome).inc()
        if isinstance(payload, InferRequest):
            reply: dict[str, Any] | InferResponse = reply_v2(answer, self._sender, payload)
        else:
            reply = reply_v1(answer, self._sender)
        self._count(answer)
        metrics.STAGE_SECONDS.labels(self.name, "total").observe(perf_counter() - started)
        return reply

    async def answers(self) -> bool:
        """Whether a prediction would succeed now: reads the store and runs the graph for an entity that nobody has."""
        fields = {field.name: [field.default] for field in self._form.fields}
        probe = ScoreRequest([PROBE_ENTITY], [self._clock_us()], fields, with_features=False)
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._executor, self._answer, probe)
        except PlumblineError:
            return False
        return bool(answer.scores.score.shape == (1,))

    def get_input_types(self) -> list[dict[str, Any]]:
        """Metadata of the V2 inputs."""
        fields = [(field.name, V2_DATATYPES[field.dtype]) for field in self._form.fields]
        return [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in [(ENTITY, "BYTES"), (NOW, "INT64"), *fields]]

    def get_output_types(self) -> list[dict[str, Any]]:
        """Metadata of the V2 outputs; those after ``within`` come only when features or explanation are asked for."""
        scalars = [("score", "FP32"), ("cold", "BOOL"), ("log_partition", "INT64"), ("log_offset", "INT64"), ("age_s", "FP64"),
                   ("degraded", "BYTES")]  # fmt: skip
        horizons = self._sender.horizon_names()
        wide = {"within": horizons} if horizons else {}
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
        """Let predictions in flight finish and release the threads."""
        self.ready = False
        self._executor.shutdown()

    def _answer(self, request: ScoreRequest) -> Answer:
        """Look up and predict; runs in the executor."""
        started = perf_counter()
        inputs = look_up(self._store, request, self._artifact.profile_fields, self._artifact.view.freshness_sla_s)
        found = perf_counter()
        scores = self._predictor.predict(
            inputs.tensors, with_features=request.with_features, with_explanation=request.with_explanation
        )
        metrics.STAGE_SECONDS.labels(self.name, "lookup").observe(found - started)
        metrics.STAGE_SECONDS.labels(self.name, "graph").observe(perf_counter() - found)
        return Answer(request, inputs, scores)

    def _count(self, answer: Answer) -> None:
        metrics.ENTITIES.labels(self.name).inc(len(answer.request.entity_ids))
        metrics.COLD.labels(self.name).inc(sum(answer.inputs.cold))
        for state in (CLOSED, OPEN, HALF_OPEN):
            metrics.BREAKER.labels(self.name, state).set(state == self._store.breaker.state)
        for reason, count in Counter(answer.inputs.degraded).items():
            if reason is not None:
                metrics.DEGRADED.labels(self.name, reason).inc(count)
