"""One window beside one reference: data quality first, then features, features together, scores and labels, as verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow.compute as pc

from features.layout import DAY_S, US_PER_S
from monitoring.drift.detectors import (
    compare_columns,
    compare_distributions,
    compare_jointly,
    compare_shares,
    measure_effects,
)
from monitoring.drift.quality import Column, Finding, Prepared, check_flags, prepare
from monitoring.drift.ranking import Ranking, divide, rank
from monitoring.drift.reference import WEEKS, Beside, Reference
from monitoring.drift.sample import Floats, Sample, name_hour
from monitoring.drift.season import raise_floor
from monitoring.drift.settings import FEATURES, JOINT, LABELS, QUALITY, SCORE, STABLE, DriftSettings
from monitoring.verdicts import Finding as Evidence
from monitoring.verdicts import Outcome, Severity, Verdict

MOST_NAMED: Final = 3
WEEK_US: Final = 7 * DAY_S * US_PER_S
NOTHING: Final = rank((), *(np.zeros(0),) * 3, {}, (0.0, 0.0))
"""The ranking of no feature."""


@dataclass(frozen=True)
class Window:
    """What is judged: rows of one subject ("churn/stable") between two instants, UTC microseconds.

    ``rows`` counts what was seen; the sample may hold fewer, one a different entity. ``scores`` are rows whose scores count
    where those are others than the sample's: more rows have a score than were logged whole.
    """

    subject: str
    start_us: int
    end_us: int
    sample: Sample
    rows: int
    scores: Sample | None = None

    @property
    def span_s(self) -> float:
        return max(self.end_us - self.start_us, 1) / 1e6


@dataclass(frozen=True)
class Judgement:
    """Verdicts of one window beside one reference, and all features in the order in which to look at them."""

    window: Window
    reference: str
    verdicts: tuple[Verdict, ...]
    ranking: Ranking


@dataclass(frozen=True)
class _Case:
    """A window and the rows it is held against, without those whose inputs were faulty."""

    window: Window
    reference: Reference
    beside: Beside
    old: Sample
    new: Sample
    settings: DriftSettings

    @property
    def is_too_small(self) -> bool:
        """Whether one of the sides has too few rows to say anything."""
        return len(self.old) < self.beside.least or len(self.new) < self.settings.least_rows

    @property
    def earlier_weeks(self) -> int:
        """How many earlier weeks have rows of the window's hours."""
        sides = [side.at_us for side in (self.reference.sample, self.reference.scores) if side is not None]
        return len(np.unique(np.ceil((self.window.start_us - np.concatenate(sides)) / WEEK_US)))

    def chance(self, family: str) -> float:
        return self.settings.chance(family, self.window.span_s)

    def floor(self, name: str | None) -> float:
        """The effect from which a difference of a feature pages; None stands for the scores."""
        if not self.beside.other_hours:
            return self.settings.effect_floor
        known = self.reference.scores if name is None and self.reference.scores is not None else self.reference.sample
        return raise_floor(known.unflagged(), name, self.settings)

    def tell(self, family: str, is_drift: bool, text: str, evidence: dict[str, Evidence]) -> Verdict:
        """A verdict on a difference that chance does not explain: it fails, or is shown where it may be the season."""
        if is_drift:
            return self.verdict(family, Outcome.FAIL, text, evidence)
        hour = name_hour(self.window.start_us)
        text = f"{text}: may be the season, since too few training rows are of the window's hours (from {hour} on)"
        return replace(self.verdict(family, Outcome.INCONCLUSIVE, text, evidence), severity=Severity.INFO)

    def verdict(self, family: str, outcome: Outcome, text: str, evidence: dict[str, Evidence]) -> Verdict:
        """A verdict on a family of tests. Drift of a canary beside stable is its own doing and takes the traffic from it; the
        other kinds hit every revision alike and call somebody."""
        severity = Severity.ROLL_BACK if self.reference.kind == STABLE else Severity.PAGE
        if self.reference.kind == WEEKS and (outcome is Outcome.INCONCLUSIVE or self.earlier_weeks < self.settings.weeks):
            severity = Severity.INFO  # of a young log nobody knows yet how much one week is another's like
        common: dict[str, Evidence] = {
            "reference": self.reference.kind, "reference_rows": len(self.old), "rows": len(self.new),
            "rows_seen": self.window.rows, "start_us": self.window.start_us, "end_us": self.window.end_us,
            "period_h": self.beside.period_h,
        }  # fmt: skip
        if self.reference.kind == WEEKS:
            common["weeks"] = self.earlier_weeks
        text = f"{text}; beside {self.reference.kind}, {len(self.new):,} rows"
        monitor = f"drift.{self.reference.kind}.{family}"
        return Verdict(monitor, self.window.subject, outcome, severity, common | evidence, text, self.window.end_us)


def judge_window(window: Window, reference: Reference, settings: DriftSettings) -> Judgement:
    """Judge a window by every family of tests for which both sides have rows.

    Rows whose inputs were faulty (cold, degraded) count as a finding where their share changed and are left out of the tests.
    """
    chance = settings.chance(QUALITY, window.span_s)
    new = window.sample.thin(settings.most_rows, settings.seed)
    beside = reference.beside(new, settings)
    whole = _Case(window, reference, beside, beside.sample, new, settings)
    case = replace(whole, old=beside.sample.unflagged(), new=new.unflagged())
    flagged = () if whole.is_too_small else check_flags(beside.sample, new, settings, chance)
    if case.is_too_small:
        return Judgement(window, reference.kind, (_refuse_few(case, flagged), *_judge_score(case)), NOTHING)
    prepared = prepare(case.old, case.new, settings, chance, least=beside.least)
    verdicts = [_judge_quality(case, prepared, (*flagged, *prepared.findings))]
    ranking = NOTHING
    if prepared.columns:
        verdict, ranking = _judge_features(case, prepared)
        verdicts += [verdict, *_judge_jointly(case, ranking)]
    verdicts += [*_judge_score(case), *_judge_labels(case)]
    return Judgement(window, reference.kind, tuple(verdicts), ranking)


def judge_labels(window: Window, reference: Reference, settings: DriftSettings) -> Verdict | None:
    """The family of labels alone, of a window of labels that have matured; None where either side has too few."""
    new = window.sample.thin(settings.most_rows, settings.seed)
    beside = Beside(reference.sample, 0, settings.least_rows)
    found = _judge_labels(_Case(window, reference, beside, reference.sample, new, settings))
    return found[0] if found else None


def _refuse_few(case: _Case, flagged: Sequence[Finding]) -> Verdict:
    """What can be said of a window with too few rows fit to be tested."""
    if flagged:
        return _report_findings(case, flagged, {"findings": len(flagged)})
    counts = f"{len(case.new)} of the window and {len(case.old)} of the reference"
    left_out = min(len(case.window.sample), case.settings.most_rows) - len(case.new)
    faulty = f", {left_out} more of the window being cold or degraded" if left_out else ""
    text = f"too few rows: {counts}, where {case.settings.least_rows} are needed{faulty}"
    return case.verdict(QUALITY, Outcome.INCONCLUSIVE, text, {})


def _report_findings(case: _Case, findings: Sequence[Finding], evidence: dict[str, Evidence]) -> Verdict:
    ordered = sorted(findings, key=lambda finding: -abs(finding.value - finding.reference))
    for number, finding in enumerate(ordered[: case.settings.top], start=1):
        evidence |= {f"{name}_{number}": value for name, value in finding.__dict__.items()}
    named = ", ".join(
        f"{each.feature} {each.kind} {each.value:.1%} (was {each.reference:.1%}{'; ' + each.detail if each.detail else ''})"
        for each in ordered[:MOST_NAMED]
    )
    return case.verdict(QUALITY, Outcome.FAIL, f"{len(findings)} findings on data quality: {named}", evidence)


def _judge_quality(case: _Case, prepared: Prepared, findings: Sequence[Finding]) -> Verdict:
    evidence: dict[str, Evidence] = {"findings": len(findings), "too_few": len(prepared.too_few)}
    if findings:
        return _report_findings(case, findings, evidence)
    if not prepared.too_few:
        return case.verdict(QUALITY, Outcome.PASS, "data are as they were", evidence)
    # A rarely present feature is no blindness; none at all is.
    outcome = Outcome.PASS if prepared.columns else Outcome.INCONCLUSIVE
    named = ", ".join(prepared.too_few[:MOST_NAMED])
    text = f"no bad data; {len(prepared.too_few)} features with too few present values to be tested: {named}"
    return case.verdict(QUALITY, outcome, text, evidence)


def _judge_features(case: _Case, prepared: Prepared) -> tuple[Verdict, Ranking]:
    columns, names = prepared.columns, tuple(column.name for column in prepared.columns)
    compared = compare_columns(columns)
    settings, chance, importance = case.settings, case.chance(FEATURES), case.reference.importance
    weight = divide(names, importance, settings.importance_share)
    effects = measure_effects(columns, compared)
    ranking = rank(names, effects, compared.p_value, weight, importance, (chance, settings.effect_floor))
    moved = set(ranking.names[: int(ranking.drifted.sum())])
    if moved and case.beside.other_hours:
        floors = np.array([case.floor(name) if name in moved else 1.0 for name in names])
        ranking = rank(names, effects, compared.p_value, weight, importance, (chance, floors))
    drifted = int(ranking.drifted.sum())
    evidence: dict[str, Evidence] = {"features": len(names), "drifted": drifted, **ranking.describe(settings.top)}
    if not moved:
        return case.verdict(FEATURES, Outcome.PASS, f"none of {len(names)} features drifted", evidence), ranking
    count = drifted or len(moved)
    named = ", ".join(f"{ranking.names[i]} (effect {ranking.effect[i]:.2f})" for i in range(min(count, MOST_NAMED)))
    text = f"{count} of {len(names)} features {'drifted' if drifted else 'differ'}: {named}"
    return case.tell(FEATURES, drifted > 0, text, evidence), ranking


def _judge_jointly(case: _Case, ranking: Ranking) -> list[Verdict]:
    """All features together: what no feature shows alone, such as a pair that no longer moves together."""
    settings = case.settings
    if not settings.joint_features:
        return []
    by_importance = np.lexsort((np.arange(len(ranking)), -ranking.importance))[: settings.joint_features]
    names = sorted(ranking.names[number] for number in by_importance)
    half = [side.thin(settings.joint_rows, settings.seed) for side in (case.old, case.new)]
    p_value, distance = compare_jointly(_matrix(half[0], half[0], names), _matrix(half[0], half[1], names), settings.seed)
    chance = case.chance(JOINT)
    evidence: dict[str, Evidence] = {"features": len(names), "p_value": p_value, "effect": distance, "threshold": chance}
    differ = p_value <= chance and distance >= settings.effect_floor
    text = f"{len(names)} features together {'differ' if differ else 'do not differ'} (a classifier's distance {distance:.2f})"
    if not differ:
        return [case.verdict(JOINT, Outcome.PASS, text, evidence)]
    # Beside other hours, many small swings of a season add up to any distance.
    return [case.tell(JOINT, not case.beside.other_hours, text, evidence)]


def _judge_score(case: _Case) -> list[Verdict]:
    case = _of_scores(case)
    old, new = _present(case.old.score), _present(case.new.score)
    if len(old) < case.beside.least or len(new) < case.settings.least_rows:
        return []
    p_value, statistic = compare_distributions(old, new)
    column = Column(SCORE, old, new)
    effect = float(measure_effects((column,), compare_columns((column,)))[0])
    chance = case.chance(SCORE)
    differ = p_value <= chance and effect >= case.settings.effect_floor
    is_drift = differ and effect >= case.floor(None)
    evidence: dict[str, Evidence] = {
        "p_value": p_value, "statistic": statistic, "effect": effect, "threshold": chance, "mean": float(new.mean()),
        "reference_mean": float(old.mean()),
    }  # fmt: skip
    verb = "drifted" if is_drift else "differ" if differ else "did not drift"
    text = f"scores {verb}: mean {new.mean():.3f}, was {old.mean():.3f}, effect {effect:.2f}"
    return [case.tell(SCORE, is_drift, text, evidence) if differ else case.verdict(SCORE, Outcome.PASS, text, evidence)]


def _judge_labels(case: _Case) -> list[Verdict]:
    """Only as labels mature: windows of fresh rows have none."""
    known = case.old.label if case.reference.labels is None else case.reference.labels
    old, new = _present(known), _present(case.new.label)
    if min(len(old), len(new)) < case.settings.least_rows:
        return []
    p_value, chance = compare_shares(old > 0, new > 0), case.chance(LABELS)
    before, now = float(old.mean()), float(new.mean())
    effect = abs(now - before) / max(before, now) if max(before, now) else 0.0
    fails = p_value <= chance and effect >= case.settings.effect_floor
    evidence: dict[str, Evidence] = {
        "p_value": p_value, "effect": effect, "threshold": chance, "rate": now, "reference_rate": before,
        "labels": len(new),
    }  # fmt: skip
    text = f"label rate {'changed' if fails else 'did not change'}: {now:.2%}, was {before:.2%}, of {len(new):,} matured"
    return [case.verdict(LABELS, Outcome.FAIL if fails else Outcome.PASS, text, evidence)]


def _matrix(known: Sample, sample: Sample, names: Sequence[str]) -> Floats:
    """(n, F) of chosen features; a category as its place among those known, NaN where missing or unknown."""
    columns = [
        sample.numbers[:, sample.names.index(name)]
        if name in sample.names
        else pc.index_in(sample.categories[name], value_set=known.categories[name].drop_null().unique())
        .cast("float32")
        .to_numpy(zero_copy_only=False)
        for name in names
    ]
    matrix: Floats = np.column_stack(columns).astype(np.float32)
    matrix[~np.isfinite(matrix)] = np.nan
    return matrix


def _of_scores(case: _Case) -> _Case:
    """The case of rows whose scores count, where those are others."""
    own = case.window.scores
    if own is None:
        return case
    new = own.thin(case.settings.most_rows, case.settings.seed)
    beside = case.reference.beside(new, case.settings, scores=True)
    return replace(case, beside=beside, old=beside.sample.unflagged(), new=new.unflagged())


def _present(values: Floats | None) -> Floats:
    return np.zeros(0, np.float32) if values is None else values[np.isfinite(values)]
