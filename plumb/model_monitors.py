"""Monitors of a model: its newest skew audit, its matured labels, and what can be told before labels mature."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from components.answers import read_answers, space_out
from components.declarations import declarations_of
from components.label_figures import measure_served_labels, read_trained
from components.label_maturity import count_waiting
from components.served_labels import known_until, label_served, wait_us
from features.audits import read_newest_audit
from features.errors import StoreUnavailable, TemporaryError
from features.layout import US_PER_S
from features.workspace import Workspace
from models.spec_checks import require_probability
from models.specs import load_spec
from monitoring import estimate, labels, skew_verdict
from monitoring.label_maturity import DAY_US, MONITOR, Answers, MaturityTable, judge_maturity, tabulate_maturity
from monitoring.monitor_settings import MonitorSettings
from monitoring.runner import Monitor
from monitoring.verdict_log import read_standing, retire
from monitoring.verdicts import Verdict

_log = logging.getLogger(__name__)


def make_model_monitors(workspace: Workspace, model: str, settings: MonitorSettings) -> list[Monitor]:
    """Skew, labels and estimates of one model; skew alone where its score is no probability of its label.

    Raises:
        SpecError: the model is unknown.
    """
    watched = _Model(workspace, model, settings)
    subject = f"model:{model}"
    skew = Monitor(skew_verdict.MONITOR, subject, settings.skew_s, watched.judge_skew)
    if load_spec(model).slots is not None:
        return [skew]
    return [
        skew,
        Monitor(MONITOR, subject, settings.labels_s, watched.judge_maturity),
        Monitor(labels.MONITOR, subject, settings.labels_s, watched.judge_labels),
        Monitor(estimate.CONFIDENCE, subject, settings.estimate_s, watched.judge_estimates),
    ]


def maturity_of(workspace: Workspace, model: str, settings: MonitorSettings, now_us: int) -> MaturityTable:
    """The table of ``plumb monitors labels``, of the answers that estimates would rest on.

    Raises:
        SpecError: the model is unknown, or its score is no probability of its label.
    """
    require_probability(load_spec(model), "judging served predictions")
    return _Model(workspace, model, settings).tabulate(now_us)


@dataclass(frozen=True)
class _Model:
    workspace: Workspace
    model: str
    settings: MonitorSettings

    def judge_skew(self, now_us: int) -> Iterator[Verdict]:
        audit = read_newest_audit(self.workspace, self.model)
        yield skew_verdict.judge_skew(self.model, audit, most_age_s=self.settings.most_audit_age_s, now_us=now_us)

    def tabulate(self, now_us: int) -> MaturityTable:
        _, due = count_waiting(self.workspace, self.model, self.known_at_us(now_us))
        return tabulate_maturity(self.model, self.answers(now_us), waiting=sum(due.values()), now_us=now_us)

    def judge_maturity(self, now_us: int) -> Iterator[Verdict]:
        """Bring in what has matured, then say how far that is."""
        try:
            label_served(self.workspace, self.model, now_us=now_us)
        except StoreUnavailable:
            raise
        except TemporaryError as error:
            _log.info("labels of %s: %s", self.model, error)  # somebody else is at it
        silence_s = (now_us - max(self.known_at_us(now_us), 0)) / US_PER_S
        most_s = self.settings.most_silence_s
        yield judge_maturity(self.tabulate(now_us), silence_s=silence_s, most_silence_s=most_s, now_us=now_us)

    def judge_labels(self, now_us: int) -> Iterator[Verdict]:
        known_at_us = max(self.known_at_us(now_us), 0)
        found = measure_served_labels(
            self.workspace, self.model, known_at_us=known_at_us, horizon_s=self.wait_us() // US_PER_S, settings=self.settings
        )
        self.retire_others(labels.MONITOR, {one.version for one in found}, now_us)
        for one in found:
            yield labels.judge_labels(one, read_trained(self.workspace, self.model, one.version), self.settings)

    def judge_estimates(self, now_us: int) -> Iterator[Verdict]:
        """Both estimates of every version that was asked in the last week."""
        answers = self.answers(now_us)
        recent = answers.take(answers.now_us >= now_us - estimate.RECENT_DAYS * DAY_US)
        versions = sorted({*recent.version.tolist()})
        for monitor in (estimate.CONFIDENCE, estimate.EARLY):
            self.retire_others(monitor, versions, now_us)
        apart = space_out(answers, self.wait_us())
        absent = load_spec(self.model).label.positive == "absent"
        for version in versions:
            trained = read_trained(self.workspace, self.model, version)
            served = estimate.Served(self.model, version, trained.auc.value if trained.auc else None, absent)
            own = recent.take(recent.version == version)
            _, first = np.unique(own.entity, return_index=True)
            yield estimate.judge_confidence(served, own.score[first], self.settings, now_us)
            yield estimate.judge_early_labels(served, apart, self.settings, max(self.known_at_us(now_us), 0))

    def answers(self, now_us: int) -> Answers:
        settings = self.settings
        span_s = settings.estimate_learn_s + 2 * settings.estimate_period_s
        since_us = now_us - round(span_s * US_PER_S) - self.wait_us()
        return read_answers(self.workspace, self.model, since_us=since_us, now_us=now_us, most=settings.most_answers)

    def retire_others(self, monitor: str, versions: Collection[int], now_us: int) -> None:
        """Of versions that are not asked any more, nothing stands and nobody is blind."""
        alive = {f"model:{self.model}/{version}" for version in versions}
        for standing in read_standing(self.workspace, now_us=now_us):
            verdict = standing.verdict
            if (
                verdict.monitor == monitor
                and verdict.subject.startswith(f"model:{self.model}/")
                and verdict.subject not in alive
            ):
                retire(self.workspace, verdict.subject, now_us, monitors=[monitor])

    def known_at_us(self, now_us: int) -> int:
        catalog, view = declarations_of(self.model)
        return known_until(self.workspace, catalog, view.entity, now_us)

    def wait_us(self) -> int:
        return wait_us(load_spec(self.model).label)
