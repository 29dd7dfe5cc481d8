"""One server's counts: Prometheus' children of one model and revision, looked up once and not at each request."""

from __future__ import annotations

from collections import Counter

from features.online.breaker import CLOSED, HALF_OPEN, OPEN
from features.online.guarded import SOURCES
from inference import metrics
from inference.prediction_log import REASONS
from inference.replies import Answer


class Tally:
    """Counts of one model and revision; every series starts at 0, so that a first failure is seen as a rise."""

    def __init__(self, model_name: str, revision: str) -> None:
        self._names = (model_name, revision)
        self._outcomes = {outcome: metrics.REQUESTS.labels(*self._names, outcome) for outcome in metrics.OUTCOMES}
        self._stages = {stage: metrics.STAGE_SECONDS.labels(*self._names, stage) for stage in metrics.STAGES}
        self._sources = {source: metrics.LOOKUPS.labels(*self._names, source) for source in SOURCES}
        self._dropped = {reason: metrics.LOG_DROPPED.labels(*self._names, reason) for reason in REASONS}
        self._breaker = {state: metrics.BREAKER.labels(*self._names, state) for state in (CLOSED, OPEN, HALF_OPEN)}
        self._in_progress = metrics.IN_PROGRESS.labels(*self._names)
        self._entities = metrics.ENTITIES.labels(*self._names)
        self._predictions = metrics.PREDICTIONS.labels(*self._names)
        self._cold = metrics.COLD.labels(*self._names)
        self._batch_rows = metrics.BATCH_ROWS.labels(*self._names)
        self._breaker_state = ""

    def begin(self) -> None:
        """A request has come; ``outcome`` ends it."""
        self._in_progress.inc()

    def outcome(self, name: str) -> None:
        """A request has ended, in one of ``metrics.OUTCOMES``."""
        self._in_progress.dec()
        self._outcomes[name].inc()

    def stage(self, name: str, seconds: float, requests: int = 1) -> None:
        """So many requests have spent these seconds in a stage."""
        observe = self._stages[name].observe
        for _ in range(requests):
            observe(seconds)

    def batch(self, rows: int) -> None:
        """The graph was called for so many scores."""
        self._batch_rows.observe(rows)

    def source(self, name: str, entities: int) -> None:
        """So many entities came from the store, the cache, a local copy or defaults."""
        self._sources[name].inc(entities)

    def dropped(self, reason: str, rows: int) -> None:
        """So many rows did not reach the prediction log."""
        self._dropped[reason].inc(rows)

    def breaker(self, state: str) -> None:
        """The store's breaker is in this state."""
        if state != self._breaker_state:
            self._breaker_state = state
            for name, gauge in self._breaker.items():
                gauge.set(name == state)

    def answer(self, answer: Answer) -> None:
        """A request was answered."""
        self._entities.inc(len(answer.request.entity_ids))
        self._predictions.inc(answer.request.rows)
        cold = sum(answer.inputs.cold)
        if cold:
            self._cold.inc(cold)
        for reason, count in Counter(answer.inputs.degraded).items():
            if reason is not None:
                metrics.DEGRADED.labels(*self._names, reason).inc(count)
