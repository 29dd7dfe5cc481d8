"""What a controller counts, in Prometheus' form at its ``/metrics``."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from features.layout import US_PER_S
from monitoring.rollout.controller import Controller
from monitoring.rollout.ledger import NAMES
from monitoring.rollout.records import Standing
from monitoring.rollout.step import Phase

PHASES: Final = tuple(str(phase) for phase in Phase)
ROLLOUT: Final = ("service", "rollout")


class ControllerMetrics:
    """The instruments of one controller, in a registry of its own. Of each service, its newest rollout has series."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._shown: dict[str, Standing] = {}
        self._is_first = True
        self.acts = Gauge("plumb_rollout_controller_acts", "1 while this controller holds the lease.", registry=registry)
        self.blind = Gauge("plumb_controller_blind", "1 while the control database does not answer it.", registry=registry)
        self.ticked = Gauge(
            "plumb_rollout_last_tick_seconds", "When the last tick ended, seconds since 1970: if long ago, it is stuck.",
            registry=registry,
        )  # fmt: skip
        self.events = Gauge("plumb_rollout_events_received", "CloudEvents that came in since the start.", registry=registry)
        self.percent = Gauge(
            "plumb_rollout_percent", "Percent that the newest step of a service's rollout gives the canary.", ROLLOUT,
            registry=registry,
        )  # fmt: skip
        self.phase = Gauge(
            "plumb_rollout_phase", "1 for the phase in which a service's newest rollout is.", [*ROLLOUT, "phase"],
            registry=registry,
        )  # fmt: skip
        self.paged = Gauge(
            "plumb_rollout_paged", "1 while a rollout waits for a person: its stage has paged and goes no further by itself.",
            ROLLOUT, registry=registry,
        )  # fmt: skip
        self.stepped = Gauge(
            "plumb_rollout_last_step_seconds", "When a rollout's newest step was recorded, seconds since 1970.",
            [*ROLLOUT, "action"], registry=registry,
        )  # fmt: skip
        self.steps = Counter(
            "plumb_rollout_steps", "Steps of rollouts that this controller has seen recorded, as the newest after a tick.",
            ["service", "action"], registry=registry,
        )  # fmt: skip
        self.faults = Counter("plumb_rollout_faults", "Ticks in which the control database did not answer.", registry=registry)
        self._lost_before = 0
        self.evidence_lost = Counter(
            "plumb_rollout_evidence_lost", "Times that a rollout's kept evidence could not be read and began anew.",
            registry=registry,
        )  # fmt: skip

    def show(self, controller: Controller, standings: list[Standing], now_us: int) -> None:
        """Set everything after a tick; ``standings`` newest first."""
        self.acts.set(controller.acts)
        self.blind.set(0)
        self.ticked.set(now_us / US_PER_S)
        self.events.set(controller.collector.received)
        self.evidence_lost.inc(controller.evidence_lost - self._lost_before)
        self._lost_before = controller.evidence_lost
        newest = {standing.facts.service: standing for standing in reversed(standings)}
        for service, standing in newest.items():
            before = self._shown.get(service)
            if before is None or before.step != standing.step:
                self._show_step(standing, before)
        self._shown, self._is_first = newest, False

    def show_blind(self, controller: Controller, now_us: int) -> None:
        """The control database did not answer in this tick: what was last known of rollouts stays."""
        self.acts.set(controller.acts)
        self.blind.set(1)
        self.ticked.set(now_us / US_PER_S)
        self.faults.inc()

    def _show_step(self, standing: Standing, before: Standing | None) -> None:
        step, names = standing.step, (standing.facts.service, str(standing.facts.id))
        self.percent.labels(*names).set(step.percent)
        for phase in PHASES:
            self.phase.labels(*names, phase).set(phase == step.phase)
        self.paged.labels(*names).set(standing.is_open and step.state["paged_stage"] == step.state["stage"])
        if before is not None:
            self._forget(before, names)
        else:
            for action in NAMES.values():  # of a series that begins with its first step no rise is seen
                self.steps.labels(names[0], action)
        self.stepped.labels(*names, step.action).set(step.at_us / US_PER_S)
        is_new = before is None or (before.step.rollout_id, before.step.sequence) != (step.rollout_id, step.sequence)
        # What was there at the start has happened before; its series begins at 0, so that the next one is seen as a rise.
        self.steps.labels(names[0], step.action).inc(is_new and not self._is_first)

    def _forget(self, before: Standing, names: tuple[str, str]) -> None:
        """Remove the series of a step that is the newest no more, and of a rollout that another has followed."""
        old = (before.facts.service, str(before.facts.id))
        self.stepped.remove(*old, before.step.action)
        if old != names:
            for gauge in (self.percent, self.paged):
                gauge.remove(*old)
            for phase in PHASES:
                self.phase.remove(*old, phase)
