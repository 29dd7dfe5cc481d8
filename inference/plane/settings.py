"""What a plane is told at its start; read once at the entry and passed down."""

from __future__ import annotations

from dataclasses import dataclass

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class PlaneSettings:
    """Settings of one plane.

    Attributes:
        port, admin_port: loopback ports of inference traffic and of the admin API; 0 lets the system choose.
        max_body_bytes: longest request that is taken.
        start_timeout_s: seconds that a server process may take until it says where it listens.
        probe_interval_s, probe_timeout_s: how often a server is asked whether its model answers, and for how long.
        probe_failures: failed probes in a row after which a revision gets no more requests.
        hung_failures: failed probes in a row after which its process is killed and started again.
        backoff_s, longest_backoff_s: pause before the first restart, doubled for each further one up to the longest.
        steady_s: seconds of readiness after which the pauses begin anew.
        drain_s: seconds that requests in flight get when their revision is taken off; then the stable one answers them.
        stop_timeout_s: seconds that a process gets to end after SIGTERM, before SIGKILL.
        keep_alive_s: seconds for which an idle connection to a server is used again; less than the server keeps it open.
        rewrite_s: how often a document that could not be written is tried again.
        events, event_bytes: most CloudEvents of a service that wait for its sink, and most bytes of their bodies.
    """

    port: int = 8000
    admin_port: int = 8001
    max_body_bytes: int = 64 * 1024 * 1024
    start_timeout_s: float = 300.0
    probe_interval_s: float = 1.0
    probe_timeout_s: float = 2.0
    probe_failures: int = 3
    hung_failures: int = 10
    backoff_s: float = 0.5
    longest_backoff_s: float = 30.0
    steady_s: float = 60.0
    drain_s: float = 3.0
    stop_timeout_s: float = 15.0
    keep_alive_s: float = 1.0
    rewrite_s: float = 1.0
    events: int = 10_000
    event_bytes: int = 64 * 1024 * 1024
