"""What the server counts, in Prometheus' form at ``/metrics``."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

OK: Final = "ok"
BAD_REQUEST: Final = "bad_request"
ERROR: Final = "error"

REQUESTS: Final = Counter("plumb_requests", "Requests by outcome: ok, bad_request, error.", ["model", "outcome"])
ENTITIES: Final = Counter("plumb_entities", "Entities scored.", ["model"])
COLD: Final = Counter("plumb_cold_entities", "Entities scored without any state.", ["model"])
DEGRADED: Final = Counter("plumb_degraded_entities", "Entities whose answer was degraded, by reason.", ["model", "reason"])
LOOKUPS: Final = Counter(
    "plumb_lookup_entities", "Entities looked up, by where their values came from: store, cache, local_copy, defaults.",
    ["model", "source"],
)  # fmt: skip
BREAKER: Final = Gauge(
    "plumb_store_breaker", "State of the online store's breaker: 1 for the state it is in.", ["model", "state"]
)
STAGE_SECONDS: Final = Histogram(
    "plumb_stage_seconds",
    "Seconds a request spent: lookup (online store), graph (features and model), total (from decoded body to reply).",
    ["model", "stage"],
    buckets=(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.08, 0.12, 0.25, 0.5, 1, 2.5),
)
