"""What the server counts, in Prometheus' form at ``/metrics``."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

OK: Final = "ok"
BAD_REQUEST: Final = "bad_request"
OVERLOADED: Final = "overloaded"
CANCELLED: Final = "cancelled"
ERROR: Final = "error"
OUTCOMES: Final = (OK, BAD_REQUEST, OVERLOADED, CANCELLED, ERROR)

QUEUE: Final = "queue"
LOOKUP: Final = "lookup"
GRAPH: Final = "graph"
TOTAL: Final = "total"
STAGES: Final = (QUEUE, LOOKUP, GRAPH, TOTAL)

REQUESTS: Final = Counter(
    "plumb_requests", "Requests by outcome: ok, bad_request, overloaded, cancelled by the caller, error.",
    ["model", "revision", "outcome"],
)  # fmt: skip
IN_PROGRESS: Final = Gauge("plumb_requests_in_progress", "Requests that are being answered now.", ["model", "revision"])
ENTITIES: Final = Counter("plumb_entities", "Entities looked up for an answer.", ["model", "revision"])
PREDICTIONS: Final = Counter("plumb_predictions", "Scores answered: one an entity, or one a candidate.", ["model", "revision"])
COLD: Final = Counter("plumb_cold_entities", "Entities scored without any state.", ["model", "revision"])
DEGRADED: Final = Counter(
    "plumb_degraded_entities", "Entities whose answer was degraded, by reason.", ["model", "revision", "reason"]
)
LOOKUPS: Final = Counter(
    "plumb_lookup_entities", "Entities looked up, by where their values came from: store, cache, local_copy, defaults.",
    ["model", "revision", "source"],
)  # fmt: skip
BREAKER: Final = Gauge(
    "plumb_store_breaker", "State of the online store's breaker: 1 for the state it is in.", ["model", "revision", "state"]
)
BATCH_ROWS: Final = Histogram(
    "plumb_batch_rows", "Scores in one call of the graph, of one request or several merged.", ["model", "revision"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 5_000),
)  # fmt: skip
LOG_DROPPED: Final = Counter(
    "plumb_prediction_log_dropped", "Rows that did not reach the prediction log, by reason: queue_full, disk, faulty.",
    ["model", "revision", "reason"],
)  # fmt: skip
STAGE_SECONDS: Final = Histogram(
    "plumb_stage_seconds",
    "Seconds of a request by stage: queue (until its lookup began), lookup (online store), graph (features and model), total "
    "(from decoded body to reply); requests that were merged share their lookup and their graph.",
    ["model", "revision", "stage"],
    buckets=(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.08, 0.12, 0.25, 0.5, 1, 2.5),
)
