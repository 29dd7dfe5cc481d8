"""Prometheus metrics of the monitors: what stands in the verdict log, and the figures that verdicts rest on.

Everything but the counters is read from verdicts that stand, as of the scrape: a monitor that has stopped speaking is shown
blind, and older with every scrape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from features.layout import US_PER_S
from monitoring import freshness, label_maturity, runs
from monitoring.runner import Round
from monitoring.verdict_log import Standing
from monitoring.verdicts import Outcome, Verdict

OUTCOMES: Final = {Outcome.PASS: 0, Outcome.INCONCLUSIVE: 1, Outcome.FAIL: 2}


class MonitorMetrics:
    """The instruments of one monitors process, in a registry of its own or a shared one."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], int]) -> None:
        self._standings = _Standings(clock)
        registry.register(self._standings)
        self._errors = Counter("plumb_monitor_errors", "Times that a monitor failed.", ["monitor"], registry=registry)
        self._round = Gauge("plumb_monitor_round_seconds", "How long the last round of monitors took.", registry=registry)
        self._last = Gauge(
            "plumb_monitor_last_round_seconds", "When the last round ended, Unix time: if long ago, it is stuck.",
            registry=registry,
        )  # fmt: skip

    def show(self, done: Round, standings: Sequence[Standing] | None, span_us: tuple[int, int]) -> None:
        """Count a round's errors, and show what stands after it, or, where nobody knows, what stood before.

        Args:
            span_us: when the round began and ended.
        """
        for monitor in done.called:
            self._errors.labels(monitor.name)  # a series from the first call on, so that an increase from 0 is seen
        for monitor, _ in done.errors:
            self._errors.labels(monitor.name).inc()
        self._round.set((span_us[1] - span_us[0]) / US_PER_S)
        self._last.set(span_us[1] / US_PER_S)
        if standings is not None:
            self._standings.shown = tuple(standings)


class _Standings(Collector):
    """Verdicts that stand, as metrics of the moment of the scrape."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self.shown: tuple[Standing, ...] = ()

    def collect(self) -> Iterator[Metric]:
        now_us, shown = self._clock(), self.shown
        outcome = GaugeMetricFamily(
            "plumb_verdict_outcome", "Verdict that stands: 0 pass, 1 inconclusive or blind, 2 fail.",
            labels=["monitor", "subject", "severity"],
        )  # fmt: skip
        age = GaugeMetricFamily(
            "plumb_verdict_age_seconds", "Seconds since a monitor was heard of a subject.", labels=["monitor", "subject"]
        )
        for standing in shown:
            verdict = standing.judged(now_us)
            outcome.add_metric([verdict.monitor, verdict.subject, str(verdict.severity)], OUTCOMES[verdict.outcome])
            age.add_metric([verdict.monitor, verdict.subject], (now_us - standing.heard_us) / US_PER_S)
        yield outcome
        yield age
        verdicts = [standing.verdict for standing in shown]
        yield from _show_freshness(verdicts)
        yield from _show_labels(verdicts)
        yield from _show_runs(verdicts)


def _show_freshness(verdicts: Sequence[Verdict]) -> Iterator[Metric]:
    family = GaugeMetricFamily("plumb_freshness_seconds", "Age of a view's oldest shard.", labels=["view"])
    for verdict, view in _of(verdicts, freshness.MONITOR):
        _add(family, [view], verdict.evidence.get("age_s"))
    yield family


def _show_labels(verdicts: Sequence[Verdict]) -> Iterator[Metric]:
    delay = GaugeMetricFamily(
        "plumb_label_delay_seconds", "From a prediction until its outcome is known, of those that have one, by quantile.",
        labels=["model", "quantile"],
    )  # fmt: skip
    share = GaugeMetricFamily(
        "plumb_labels_matured_share", "Share of logged predictions whose label has matured.", labels=["model"]
    )
    for verdict, model in _of(verdicts, label_maturity.MONITOR):
        for quantile in label_maturity.QUANTILES:
            _add(delay, [model, f"{quantile:g}"], verdict.evidence.get(label_maturity.delay_name(quantile)))
        _add(share, [model], verdict.evidence.get("matured_share"))
    yield delay
    yield share


def _show_runs(verdicts: Sequence[Verdict]) -> Iterator[Metric]:
    status = GaugeMetricFamily(
        "plumb_run_last_status", "How a pipeline's last run ended: 0 succeeded, 1 not blessed, 2 failed.", labels=["pipeline"]
    )
    finished = GaugeMetricFamily(
        "plumb_run_last_finished_seconds", "When a pipeline's last run ended, Unix time.", labels=["pipeline"]
    )
    seconds = GaugeMetricFamily("plumb_run_seconds", "How long the steps of its last run took.", labels=["pipeline"])
    for verdict, pipeline in _of(verdicts, runs.MONITOR):
        evidence = verdict.evidence
        if evidence.get("status") in runs.STATUSES:
            status.add_metric([pipeline], runs.STATUSES.index(str(evidence["status"])))
            _add(finished, [pipeline], evidence["finished_us"], US_PER_S)
            _add(seconds, [pipeline], evidence["seconds"])
    yield status
    yield finished
    yield seconds


def _of(verdicts: Sequence[Verdict], monitor: str) -> Iterator[tuple[Verdict, str]]:
    """Verdicts of one monitor, each with what its subject names after the kind."""
    for verdict in verdicts:
        if verdict.monitor == monitor:
            yield verdict, verdict.subject.partition(":")[2]


def _add(family: GaugeMetricFamily, labels: list[str], value: object, scale: float = 1.0) -> None:
    if isinstance(value, (int, float)):
        family.add_metric(labels, value / scale)
