"""What stands at this moment and calls for somebody: Alertmanager's alerts and the verdict log's, as one list.

An alert that rests on a verdict is one entry, whether or not Prometheus has seen it yet; its evidence is the verdict's. Pure:
the callers read both sides.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from features.errors import explain
from monitoring.acks import Ack
from monitoring.alertmanager import Fired
from monitoring.errors import AlertError
from monitoring.verdict_log import Standing
from monitoring.verdicts import Finding, Outcome, Severity, Verdict

PAGE: Final = "page"
NEW, ACKED, SILENCED, INHIBITED = "new", "acked", "silenced", "inhibited"
RUNBOOKS: Final = "docs/runbooks"
BLIND: Final = "MonitorBlind"
OF_MONITORS: Final = (
    (r"drift(\..*)?", "DriftFound", "drift"),
    ("skew", "SkewFound", "skew"),
    ("freshness", "FeaturesStale", "freshness"),
    ("quality", "DataQualityFails", "quality"),
    ("maturity", "LabelsLate", "labels"),
    ("labels|early_labels|estimate", "PerformanceFalls", "labels"),
    ("runs", "PipelineFailed", "pipelines"),
    (".*", "VerdictFails", "monitors"),
)
"""Names of monitors as a pattern, the alert that their failure is (``manifests/monitoring/rules``), and its runbook."""
SUBJECTS: Final = ("subject", "service", "model", "view", "pipeline", "monitor", "job")
"""Labels that say what an alert is about, the most telling first."""
ID_CHARACTERS: Final = 8


@dataclass(frozen=True)
class Alert:
    """One thing that calls for somebody.

    Attributes:
        id: the same for as long as the same thing is wrong, whoever says so.
        name: of the alert.
        severity: ``page`` or ``ticket``.
        subject: what it is about, as verdicts name it; else the service, view or process.
        service, model: the ones concerned; empty where it is about none.
        summary, description: for a person.
        runbook: path in the repository.
        since_us: when it began, UTC microseconds.
        state: ``new``, ``acked``, ``silenced`` or ``inhibited``.
        by: what inhibits it or whose silence it is, or who has acked it.
        labels: Alertmanager's; empty where it has none.
        monitor, evidence: of its verdict; empty where it rests on none.
        ack: what holds of it.
    """

    id: str
    name: str
    severity: str
    subject: str
    service: str
    model: str
    summary: str
    description: str
    runbook: str
    since_us: int
    state: str
    by: str
    labels: Mapping[str, str]
    monitor: str
    evidence: Mapping[str, Finding]
    ack: Ack | None

    def describe(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "labels": dict(self.labels), "evidence": dict(self.evidence)}


def join_alerts(
    fired: Sequence[Fired], standing: Sequence[Standing], acks: Mapping[tuple[str, int], Ack], now_us: int
) -> list[Alert]:
    """Everything that calls for somebody: new pages first, then new tickets, then what is seen to, the oldest first.

    Args:
        acks: those that hold, by alert and beginning (``monitoring.acks.read_acks``).
    """
    judged = {(each.verdict.monitor, each.verdict.subject): (each.judged(now_us), each) for each in standing}
    called = {key: pair for key, pair in judged.items() if calls(pair[0])}
    made = []
    for alert in fired:
        key = (alert.labels.get("monitor", ""), alert.labels.get("subject", ""))
        made.append(_of_fired(alert, called.pop(key, None), acks, now_us))
    made += [_of_verdict(verdict, entry, acks, now_us) for verdict, entry in called.values()]
    return sorted(made, key=lambda alert: (alert.state != NEW, alert.severity != PAGE, alert.since_us, alert.id))


def calls(verdict: Verdict) -> bool:
    """Whether a verdict calls for somebody: it fails, or cannot judge, and is more than to be shown."""
    return verdict.outcome is not Outcome.PASS and verdict.severity is not Severity.INFO


def find_alerts(alerts: Iterable[Alert], wanted: str) -> list[Alert]:
    """By id or its beginning, or all of one name.

    Raises:
        AlertError: there is none.
    """
    known = list(alerts)
    found = [alert for alert in known if alert.name == wanted or (len(wanted) > 1 and alert.id.startswith(wanted))]
    if not found:
        shown = ", ".join(f"{alert.id} ({alert.name})" for alert in known[:5]) or "none, for nothing is wrong"
        raise AlertError(
            explain("alert does not stand", which=repr(wanted), expected=f"an alert's id or name: {shown}", got=wanted,
                    next_step="list them: plumb alerts list")
        )  # fmt: skip
    return found


def identify(parts: Mapping[str, str]) -> str:
    """A short id of what is wrong."""
    text = "\0".join(f"{name}={parts[name]}" for name in sorted(parts))
    return hashlib.sha256(text.encode()).hexdigest()[:ID_CHARACTERS]


def name_verdict(verdict: Verdict) -> tuple[str, str]:
    """Name and runbook of the alert that a verdict is."""
    if verdict.severity is Severity.ROLL_BACK and verdict.outcome is Outcome.FAIL:
        return "CanaryDrifts", f"{RUNBOOKS}/rollout.md"
    if verdict.outcome is Outcome.INCONCLUSIVE:
        return BLIND, f"{RUNBOOKS}/monitors.md"
    name, runbook = next((name, page) for pattern, name, page in OF_MONITORS if re.fullmatch(pattern, verdict.monitor))
    return name, f"{RUNBOOKS}/{runbook}.md"


def _of_fired(fired: Fired, known: tuple[Verdict, Standing] | None, acks: Mapping[tuple[str, int], Ack], now_us: int) -> Alert:
    labels = fired.labels
    if known is not None:
        made = _of_verdict(*known, acks, now_us)
        name, since_us, alert_id = made.name, made.since_us, made.id
        monitor, evidence, description = made.monitor, made.evidence, made.description
    else:
        name, since_us, alert_id = labels["alertname"], fired.starts_us, identify(labels)
        monitor, evidence, description = labels.get("monitor", ""), {}, fired.annotations.get("description", "")
    subject = next((labels[name] for name in SUBJECTS if labels.get(name)), "")
    ack = acks.get((alert_id, since_us))
    state, by = _state_of(fired, ack)
    return Alert(
        alert_id, name, labels.get("severity", ""), subject, labels.get("service", ""), labels.get("model", ""),
        fired.annotations.get("summary", labels["alertname"]), description, fired.annotations.get("runbook_url", ""), since_us,
        state, by, labels, monitor, evidence, ack,
    )  # fmt: skip


def _of_verdict(verdict: Verdict, standing: Standing, acks: Mapping[tuple[str, int], Ack], now_us: int) -> Alert:
    name, runbook = name_verdict(verdict)
    alert_id = identify({"monitor": verdict.monitor, "subject": verdict.subject})
    since_us = standing.since_us if now_us <= standing.valid_until_us else standing.valid_until_us
    kind, colon, named = verdict.subject.partition(":")
    service = "" if colon else verdict.subject.partition("/")[0]
    ack = acks.get((alert_id, since_us))
    return Alert(
        alert_id, name, PAGE, verdict.subject, service, named.partition("/")[0] if kind == "model" else "",
        f"{verdict.subject}: {verdict.monitor} {'fails' if verdict.outcome is Outcome.FAIL else 'cannot judge'}",
        verdict.text, runbook, since_us, NEW if ack is None else ACKED, "" if ack is None else ack.who, {}, verdict.monitor,
        verdict.evidence, ack,
    )  # fmt: skip


def _state_of(fired: Fired, ack: Ack | None) -> tuple[str, str]:
    if ack is not None:
        return ACKED, ack.who
    if fired.silenced_by:
        return SILENCED, f"silence {fired.silenced_by[0][:ID_CHARACTERS]}"
    return (INHIBITED, "another alert") if fired.inhibited_by else (NEW, "")
