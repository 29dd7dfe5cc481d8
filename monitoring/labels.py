"""Matured labels of what was served, beside what the version's evaluation at training promised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from monitoring.drift.settings import MONTH_S
from monitoring.monitor_settings import MonitorSettings
from monitoring.verdicts import Finding, Outcome, Severity, Verdict

MONITOR: Final = "labels"
QUESTIONS: Final = 3
"""AUC, log loss and calibration share the alarms that are allowed."""


@dataclass(frozen=True)
class Figure:
    """A value with its standard error."""

    value: float
    error: float


@dataclass(frozen=True)
class Matured:
    """What one version's labels of one window say.

    Attributes:
        start_us, end_us: between which they matured, UTC microseconds.
        labels, users, positives: rows, different users, rows with label 1.
        mean_score: of the rows.
        auc, log_loss: None where there is one kind of label only, or too few users for an error.
        gap: mean score minus share of positives.
    """

    model: str
    version: int
    start_us: int
    end_us: int
    labels: int
    users: int
    positives: int
    mean_score: float
    auc: Figure | None
    log_loss: Figure | None
    gap: Figure | None


@dataclass(frozen=True)
class Trained:
    """A version's own evaluation; None where it has none."""

    auc: Figure | None
    log_loss: Figure | None


@dataclass(frozen=True)
class _Question:
    name: str
    harm: float
    error: float
    floor: float
    text: str


def judge_labels(found: Matured, trained: Trained, settings: MonitorSettings) -> Verdict:
    """One version's verdict, dated at the window's end.

    It fails where a figure is worse than its floor allows and by more than chance at the configured alarms a month: windows do
    not overlap, so each may spend its part of them, divided among three questions.
    """
    evidence: dict[str, Finding] = {
        "version": found.version, "labels": found.labels, "users": found.users, "positives": found.positives,
        "mean_score": found.mean_score, "start_us": found.start_us, "end_us": found.end_us,
        "rate": found.positives / found.labels if found.labels else None,
    }  # fmt: skip
    for name, served, before in (("auc", found.auc, trained.auc), ("log_loss", found.log_loss, trained.log_loss)):
        evidence |= {name: served.value if served else None, f"trained_{name}": before.value if before else None}
    if found.labels < settings.least_labels or found.positives < settings.least_positives:
        text = (
            f"{found.labels:,} labels with {found.positives:,} positives have matured, where {settings.least_labels:,} with"
            f" {settings.least_positives} are needed"
        )
        return _give(found, Outcome.INCONCLUSIVE, Severity.INFO, evidence, text)
    span_s = (found.end_us - found.start_us) / 1e6
    chance = min(settings.alarms_per_month * span_s / MONTH_S / QUESTIONS, 0.05)
    least = -NormalDist().inv_cdf(chance)
    questions = _ask(found, trained, settings)
    evidence |= {"threshold_z": least, **{f"z_{each.name}": _z(each) for each in questions}}
    worse = [each for each in questions if each.harm >= each.floor and _z(each) >= least]
    if worse:
        return _give(found, Outcome.FAIL, Severity.PAGE, evidence, "; ".join(each.text for each in worse))
    return _give(found, Outcome.PASS, Severity.PAGE, evidence, "; ".join(each.text for each in questions))


def _ask(found: Matured, trained: Trained, settings: MonitorSettings) -> Sequence[_Question]:
    questions = []
    if found.auc and trained.auc:
        questions.append(
            _Question("auc", trained.auc.value - found.auc.value, math.hypot(trained.auc.error, found.auc.error),
                      settings.auc_floor, f"AUC {found.auc.value:.3f}, {trained.auc.value:.3f} at training")
        )  # fmt: skip
    if found.log_loss and trained.log_loss:
        questions.append(
            _Question("log_loss", found.log_loss.value - trained.log_loss.value,
                      math.hypot(trained.log_loss.error, found.log_loss.error),
                      settings.log_loss_floor * trained.log_loss.value,
                      f"log loss {found.log_loss.value:.3f}, {trained.log_loss.value:.3f} at training")
        )  # fmt: skip
    if found.gap:
        rate = found.positives / found.labels
        questions.append(
            _Question("rate", abs(found.gap.value), found.gap.error, settings.rate_floor * rate,
                      f"{rate:.2%} of {found.labels:,} labels are positive, scores say {found.mean_score:.2%}")
        )  # fmt: skip
    return questions


def _z(question: _Question) -> float:
    # Of the rate, either direction is harm: half of its part for each would ask for a little more; the floor does that.
    return question.harm / question.error if question.error else math.copysign(99.0, question.harm)


def _give(found: Matured, outcome: Outcome, severity: Severity, evidence: dict[str, Finding], text: str) -> Verdict:
    return Verdict(MONITOR, f"model:{found.model}/{found.version}", outcome, severity, evidence, text, found.end_us)
