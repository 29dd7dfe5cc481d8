"""What a controller counts, in Prometheus' form at its ``/metrics``."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from monitoring.rollout.controller import Controller
from monitoring.rollout.records import Standing
from monitoring.rollout.step import Phase

PHASES: Final = tuple(str(phase) for phase in Phase)


class ControllerMetrics:
    """The instruments of one controller, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.acts = Gauge("plumb_rollout_controller_acts", "1 while this controller holds the lease.", registry=registry)
        self.ticked = Gauge(
            "plumb_rollout_last_tick_seconds", "When the last tick ended, seconds since 1970: if long ago, it is stuck.",
            registry=registry,
        )  # fmt: skip
        self.events = Gauge("plumb_rollout_events_received", "CloudEvents that came in since the start.", registry=registry)
        self.percent = Gauge(
            "plumb_rollout_percent", "Percent that the newest step of a service's rollout gives the canary.", ["service"],
            registry=registry,
        )  # fmt: skip
        self.phase = Gauge(
            "plumb_rollout_phase", "1 for the phase in which a service's newest rollout is.", ["service", "phase"],
            registry=registry,
        )  # fmt: skip
        self.faults = Counter(
            "plumb_rollout_faults", "Ticks in which the control database or the data plane did not answer.", registry=registry
        )

    def show(self, controller: Controller, standings: list[Standing], now_us: int) -> None:
        """Set everything after a tick; ``standings`` newest first."""
        self.acts.set(controller.acts)
        self.ticked.set(now_us / 1e6)
        self.events.set(controller.collector.received)
        for standing in reversed(standings):
            service, step = standing.facts.service, standing.step
            self.percent.labels(service).set(step.percent)
            for phase in PHASES:
                self.phase.labels(service, phase).set(phase == step.phase)
