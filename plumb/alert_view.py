"""How alerts are shown on a terminal, and what to type next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from plumb.instants import show_instant

if TYPE_CHECKING:
    from monitoring.rollout.records import Standing
    from monitoring.standing_alerts import Alert

console = Console()
US_PER_S = 1_000_000
COLOURS = {"page": "bold red", "ticket": "yellow"}
NEXT = {
    "ServiceDown": "tail WORKSPACE/services/logs/{service}-*.log",
    "RequestsUnrouted": "tail WORKSPACE/services/logs/{service}-*.log",
    "RevisionRestarting": "tail WORKSPACE/services/logs/{service}-*.previous.log",
    "RevisionNotReady": "tail WORKSPACE/services/logs/{service}-*.log",
    "DriftFound": "plumb monitors check --service {service}=MODEL    # in the monitoring environment",
    "SkewFound": "plumb audit skew --model {model}",
    "FeaturesStale": "plumb features freshness --catalog CATALOG",
    "DataQualityFails": "plumb features quality --catalog CATALOG --hour 2026-03-02T09:00Z    # its hour",
    "StreamStalled": "plumb features freshness --catalog CATALOG",
    "StreamRefuses": "plumb events stats",
    "LabelsLate": "plumb models labels --model {model}",
    "LabelDelayGrows": "plumb monitors labels {model}",
    "PerformanceFalls": "plumb monitors labels {model}",
    "PipelineFailed": "plumb runs show latest",
    "PipelineOverdue": "plumb runs list",
    "CanaryWithoutController": "plumb rollouts run",
    "ControllerBlind": "plumb rollouts list",
    "MonitorBlind": "plumb monitors run --service SERVICE=MODEL    # in the monitoring environment, if it does not run",
}
"""What most often comes next, by alert."""
START = {
    "plane": "plumb up", "server": "plumb up", "controller": "plumb rollouts run", "stream": "plumb stream --catalog CATALOG",
    "monitors": "plumb monitors run --service SERVICE=MODEL", "drift": "plumb drift serve --model MODEL",
}  # fmt: skip
"""How a job is started, for alerts about one that is gone."""


def show_list(alerts: Sequence[Alert], now_us: int) -> None:
    """Two lines an alert; in columns that a narrow terminal holds, too."""
    if not alerts:
        console.print("nothing calls for anybody")
    widths = [max((len(text) for text in column), default=0) for column in zip(*map(_heads, alerts), strict=True)]
    for alert in alerts:
        severity, *heads = (text.ljust(width) for text, width in zip(_heads(alert), widths, strict=True))
        colour = COLOURS.get(alert.severity, "default") if alert.state == "new" else "dim"
        words = "  ".join(map(escape, [*heads, f"{_lasted(now_us - alert.since_us)}, {_state(alert)}"]))
        console.print(f"{alert.id}  [{colour}]{severity}[/{colour}]  {words}", highlight=False, soft_wrap=True)
        what = f"{alert.monitor}: {alert.description}" if alert.evidence else alert.summary
        console.print(f"          {escape(what)}", highlight=False, soft_wrap=True)


def _heads(alert: Alert) -> tuple[str, str, str]:
    return alert.severity, alert.name, alert.subject


def show_alert(alert: Alert, rollout: Standing | None, now_us: int) -> None:
    """What somebody who was just woken reads first stands first."""
    colour = COLOURS.get(alert.severity, "default")
    console.print(f"{alert.id} [{colour}]{alert.severity}[/{colour}] [bold]{alert.name}[/bold]: {escape(alert.summary)}",
                  highlight=False)  # fmt: skip
    _line("what", alert.description)
    _line("since", f"{show_instant(alert.since_us)}, {_lasted(now_us - alert.since_us)} ago")
    _line("state", _state(alert))
    if alert.ack is not None:
        _line("", alert.ack.why)
    if alert.model:
        _line("model", alert.model)
    if rollout is not None:
        facts, step = rollout.facts, rollout.step
        versions = f"{facts.model} {facts.stable_version} -> {facts.canary_version}"
        _line("rollout", f"{facts.id} of {facts.service}: {step.phase}, {versions}, canary at {step.percent} %")
    for name, value in alert.evidence.items():
        _line("evidence" if name == next(iter(alert.evidence)) else "", f"{name} = {value}")
    _line("runbook", alert.runbook)
    _line("next", next_command(alert, rollout))


def next_command(alert: Alert, rollout: Standing | None) -> str:
    """What most often comes next; a canary that is bad, or waits for somebody, comes before everything else."""
    if rollout is not None and rollout.is_open:
        if alert.name == "CanaryDrifts" or (alert.name.startswith("ServiceErrors") and rollout.step.percent):
            return f"plumb rollouts rollback {rollout.facts.service} --why '{alert.name}'"
        if alert.name in ("RolloutWaits", "ServiceSlow", "DriftFound", "AnswersDegraded"):
            return f"plumb rollouts show {rollout.facts.service}"
    if alert.name in ("TargetDown", "JobAbsent", "JobNotStarted"):
        return START.get(alert.labels.get("job", ""), "plumb up")
    service = alert.service or "SERVICE"
    words = NEXT.get(alert.name) or (f"plumb rollouts list {service}" if alert.service else f"less {alert.runbook}")
    return words.format(service=service, model=alert.model or "MODEL")


def _state(alert: Alert) -> str:
    if alert.ack is not None:
        return f"acked by {alert.ack.who} until {show_instant(alert.ack.until_us)}"
    return f"{alert.state} by {alert.by}" if alert.by else alert.state


def _line(name: str, text: str) -> None:
    console.print(f"  {name:<10} {escape(text)}", highlight=False, soft_wrap=True)


def _lasted(us: int) -> str:
    """A time as one unit, two where that tells more.

    Example:
        >>> _lasted(90_000_000), _lasted(3 * 86_400_000_000 + 7_200_000_000)
        ('1 min 30 s', '3 d 2 h')
    """
    seconds = max(us, 0) // US_PER_S
    for unit_s, unit, part_s, part in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= unit_s:
            rest = seconds % unit_s // part_s
            return f"{seconds // unit_s} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{seconds} s"
