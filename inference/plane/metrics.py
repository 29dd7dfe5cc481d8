"""What a plane counts, in Prometheus' form at the admin port's ``/metrics``."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from inference.plane.events import DROPPED

SECONDS: Final = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
FAILED_CODE: Final = "502"
"""Status of a request whose revision's process failed it."""


class PlaneMetrics:
    """The instruments of one plane, in a registry of its own.

    A request that is asked again of the stable revision counts for both: with code 502 for the revision whose process
    failed it, and with the stable one's own code.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        names = ["service", "revision"]
        self.requests = Counter(
            "plumb_plane_requests", "Requests sent to a revision, by its answer's status; 502: its process failed.",
            [*names, "code"], registry=registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "plumb_plane_request_seconds", "Seconds until a revision had answered.", names, registry=registry, buckets=SECONDS
        )
        self.retries = Counter(
            "plumb_plane_retries", "Requests that another process answered after this revision's had failed.", names,
            registry=registry,
        )  # fmt: skip
        self.unrouted = Counter(
            "plumb_plane_unrouted_requests", "Requests that no revision was ready to answer.", ["service"], registry=registry
        )
        self.weight = Gauge(
            "plumb_plane_weight", "Percent of traffic that a revision gets now; a canary that is not ready gets none.", names,
            registry=registry,
        )  # fmt: skip
        self.ready = Gauge("plumb_plane_ready", "Whether a revision's model answers.", names, registry=registry)
        self.restarts = Gauge(
            "plumb_plane_restarts", "Times that a revision's process ended unasked.", names, registry=registry
        )
        self.pending = Gauge(
            "plumb_plane_pending", "1 while a service's newest document, which lowered its canary, is not on disk yet.",
            ["service"], registry=registry,
        )  # fmt: skip
        self.events_sent = Counter("plumb_plane_events_sent", "CloudEvents that the sink took.", ["service"], registry=registry)
        self.events_dropped = Counter(
            "plumb_plane_events_dropped",
            f"CloudEvents that were not sent, by reason: {', '.join(DROPPED)}.", ["service", "reason"], registry=registry,
        )  # fmt: skip

    def begin_service(self, service: str) -> None:
        """Show at 0 what is counted of a service: of a series that begins with its first event no rise is seen."""
        self.unrouted.labels(service)

    def begin_events(self, service: str) -> None:
        """Likewise of a service that sends events."""
        self.events_sent.labels(service)
        for reason in DROPPED:
            self.events_dropped.labels(service, reason)

    def begin_revision(self, service: str, revision: str) -> None:
        """Likewise of a revision: its failures that another one makes good."""
        self.retries.labels(service, revision)
        self.requests.labels(service, revision, FAILED_CODE)
