"""Requests to answers: one lookup and one graph call, for one request or for several together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from features.online.store import OnlineReader
from inference import metrics
from inference.artifact import ModelArtifact
from inference.joining import Joiner
from inference.lookup import Inputs, look_up
from inference.replies import Answer
from inference.requests import ScoreRequest

if TYPE_CHECKING:
    from inference.predictor import Predictor, Scores
    from inference.tally import Tally


class Scorer:
    """Looks up and predicts; blocks, and is safe to call from several threads."""

    def __init__(
        self,
        artifact: ModelArtifact,
        predictor: Predictor,
        store: OnlineReader,
        tally: Tally | None = None,
        joined: Mapping[str, OnlineReader] | None = None,
    ) -> None:
        """Take what answers; a probe's calls are not counted. ``joined`` are the stores of the view's joins, by view name."""
        self._artifact = artifact
        self._predictor = predictor
        self._store = store
        self._tally = tally
        self._joiner = Joiner(artifact.view, predictor, joined or {})
        self._request_fields = {field.name for field in artifact.request_fields}

    def score(self, requests: Sequence[ScoreRequest]) -> list[Answer]:
        """Answers in the order of the requests, which ask for features and explanations only if they come alone.

        Raises:
            PlumblineError: one of the requests cannot be answered.
        """
        started = perf_counter()
        merged = merge(requests)
        view, fields = self._artifact.view, self._artifact.profile_fields
        inputs = look_up(self._store, merged, fields, view.freshness_sla_s, time_zone=view.time_zone)
        inputs = self._joiner.fill(merged, inputs)
        found = perf_counter()
        scores = self._predict(merged, inputs)
        if self._tally is not None:
            self._tally.stage(metrics.LOOKUP, found - started, len(requests))
            self._tally.stage(metrics.GRAPH, perf_counter() - found, len(requests))
            self._tally.batch(merged.rows)
        whole = Answer(merged, inputs, scores)
        return [whole] if len(requests) == 1 else list(self._divide(whole, requests))

    def _predict(self, request: ScoreRequest, inputs: Inputs) -> Scores:
        if request.candidates is not None:
            owner = np.repeat(np.arange(len(request.entity_ids)), request.counts)
            return self._predictor.predict_candidates(inputs.tensors, owner)
        return self._predictor.predict(
            inputs.tensors, with_features=request.with_features, with_explanation=request.with_explanation
        )

    def _divide(self, whole: Answer, requests: Sequence[ScoreRequest]) -> Iterator[Answer]:
        """Each request's own rows of the answer to all of them."""
        from_entity = from_score = 0
        for request in requests:
            entities = slice(from_entity, from_entity + len(request.entity_ids))
            scores = slice(from_score, from_score + request.rows)
            from_entity, from_score = entities.stop, scores.stop
            inputs, answered = whole.inputs, whole.scores
            own = Inputs(
                tensors={
                    name: values[scores if name in self._request_fields else entities]
                    for name, values in inputs.tensors.items()
                },
                cold=inputs.cold[entities],
                log_partition=inputs.log_partition[entities],
                log_offset=inputs.log_offset[entities],
                age_s=inputs.age_s[entities],
                degraded=inputs.degraded[entities],
                watermarks=inputs.watermarks,
            )
            wide = {name: values[scores] for name in ("within", "slots") if (values := getattr(answered, name)) is not None}
            yield Answer(request, own, replace(answered, score=answered.score[scores], **wide))


def merge(requests: Sequence[ScoreRequest]) -> ScoreRequest:
    """Several requests for scores alone as one; a single one as it is."""
    if len(requests) == 1:
        return requests[0]
    candidates: list[int | None] | None = None
    if any(request.candidates is not None for request in requests):
        candidates = list(chain.from_iterable(request.candidates or [None] * len(request.entity_ids) for request in requests))
    return ScoreRequest(
        entity_ids=_join(request.entity_ids for request in requests),
        now_us=_join(request.now_us for request in requests),
        fields={name: _join(request.fields[name] for request in requests) for name in requests[0].fields},
        with_features=False,
        candidates=candidates,
    )


def _join(parts: Iterator[list[Any]]) -> list[Any]:
    return list(chain.from_iterable(parts))
