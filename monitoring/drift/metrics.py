"""Prometheus metrics of a drift detector: what came in, what was judged, and the first features of each ranking by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from features.layout import US_PER_S
from monitoring.drift.records import JudgedWindow
from monitoring.drift.windows import Key
from monitoring.verdicts import Outcome

SUBJECT: Final = ("subject", "version", "source", "reference")


class DriftMetrics:
    """Metrics in a registry of their own. Series of features are bounded: ``top`` of each subject, source and reference."""

    def __init__(self, registry: CollectorRegistry, top: int) -> None:
        self._top = top
        self._shown: dict[tuple[str, ...], list[str]] = {}
        self._events = Counter("plumb_drift_events", "Events taken in, by what became of them.", ["result"], registry=registry)
        self._errors = Counter("plumb_drift_errors", "Times that a window could not be judged.", registry=registry)
        self._open = Gauge("plumb_drift_window_rows", "Rows of the open window.", ["subject", "side"], registry=registry)
        self._windows = Counter(
            "plumb_drift_verdicts", "Verdicts given.", [*SUBJECT, "monitor", "outcome"], registry=registry
        )  # fmt: skip
        self._last = Gauge(
            "plumb_drift_last_window_seconds", "End of the last window that was judged, Unix time.", SUBJECT, registry=registry
        )  # fmt: skip
        self._outcome = Gauge(
            "plumb_drift_failing", "1 where the last window failed, by monitor.", [*SUBJECT, "monitor"], registry=registry
        )  # fmt: skip
        self._features = {
            name: Gauge(f"plumb_drift_feature_{name}", text, [*SUBJECT, "feature"], registry=registry)
            for name, text in (
                ("effect", "How far a top feature has moved: KS distance or total variation, 0 to 1."),
                ("p_value", "Its p-value."),
                ("threshold", "What the p-value has to stay above for no page."),
            )
        }

    def count_event(self, result: str) -> None:
        """One event: ``kept``, ``ignored``, ``refused`` or ``failed``."""
        self._events.labels(result).inc()

    def count_error(self) -> None:
        """One window could not be judged."""
        self._errors.inc()

    def show_open(self, rows: Mapping[Key, int]) -> None:
        """Rows of the open windows as they are now."""
        self._open.clear()
        for key, count in rows.items():
            self._open.labels(key.subject, key.side).set(count)

    def show(self, judged: JudgedWindow) -> None:
        """A window's verdicts and first features take the place of those of the window before."""
        subject = (judged.subject, judged.version, judged.source, judged.reference)
        self._last.labels(*subject).set(judged.end_us / US_PER_S)
        for verdict in judged.verdicts:
            self._windows.labels(*subject, verdict.monitor, str(verdict.outcome)).inc()
            self._outcome.labels(*subject, verdict.monitor).set(verdict.outcome is Outcome.FAIL)
        for name in self._shown.get(subject, ()):
            for gauge in self._features.values():
                gauge.remove(*subject, name)
        top = judged.features[: self._top]
        self._shown[subject] = [feature["name"] for feature in top]
        for feature in top:
            for name, gauge in self._features.items():
                gauge.labels(*subject, feature["name"]).set(feature[name])
