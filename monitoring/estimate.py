"""How well a model is probably doing before any label has matured: estimates, always marked as such.

Two, with different eyes. Of what a model is asked now, its own confidence says how well it must rank if its probabilities are
true: a score p is a positive with chance p (confidence-based performance estimation). It sees that users are harder to tell
apart; it is blind to a change of what features mean for the outcome, since it takes the scores at their word. Outcomes that
come early (``monitoring.early_labels``) see just that, and page.

Source: Bialek, Kivimaki, Kuberski, Perrakis 2024, Estimating model performance under covariate shift without labels
(arXiv 2401.08348).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from features.layout import DAY_S
from monitoring.early_labels import FALLS, RISES, UNKNOWN, Bets, Cohorts, Watch, estimate_rate, learn_baseline, watch_early
from monitoring.label_maturity import DAY_US, NEVER_KNOWN, Answers
from monitoring.monitor_settings import MonitorSettings
from monitoring.verdicts import Finding, Outcome, Severity, Verdict

Floats = npt.NDArray[np.float64]

EARLY: Final = "early_labels"
"""Monitor of outcomes that come early."""
CONFIDENCE: Final = "estimate"
"""Monitor of what scores expect of themselves."""
RESAMPLES: Final = 200
MOST_ROWS: Final = 20_000
RECENT_DAYS: Final = 7
BLIND_SPOT: Final = "an estimate from scores: blind to a change of what the features mean for the outcome"
TINY: Final = 1e-7


@dataclass(frozen=True)
class Expected:
    """What scores expect of themselves, each with the 95 % interval of what labels may show: AUC, log loss in nats, rate."""

    auc: tuple[float, float, float]
    log_loss: tuple[float, float, float]
    rate: tuple[float, float, float]
    rows: int


@dataclass(frozen=True)
class Served:
    """One version, and what its evaluation at training said; ``positive_is_absent``: label 1 is that nothing happens."""

    model: str
    version: int
    trained_auc: float | None
    positive_is_absent: bool = False

    @property
    def subject(self) -> str:
        return f"model:{self.model}/{self.version}"


def expect_performance(score: Floats, *, seed: int = 0) -> Expected:
    """Estimated performance of rows of different entities with these probabilities of label 1, (n,).

    Intervals draw rows and, of each, a label by its score: they say what labels may show, if the scores are true.
    """
    rng = np.random.default_rng(seed)
    if len(score) > MOST_ROWS:
        score = rng.choice(score, MOST_ROWS, replace=False)
    figures = np.empty((RESAMPLES, 3))
    for number in range(RESAMPLES):
        drawn = rng.choice(score, len(score))
        label = rng.random(len(drawn)) < drawn
        clipped = np.clip(drawn, TINY, 1 - TINY)
        loss = -np.where(label, np.log(clipped), np.log1p(-clipped)).mean()
        figures[number] = _weighted_auc(drawn, label.astype(np.float64)), loss, label.mean()
    low, high = np.nanquantile(figures, (0.025, 0.975), axis=0)
    clipped = np.clip(score, TINY, 1 - TINY)
    loss = float(-(clipped * np.log(clipped) + (1 - clipped) * np.log1p(-clipped)).mean())
    values = (_weighted_auc(score, score), loss, float(score.mean()))
    auc, log_loss, rate = ((value, float(least), float(most)) for value, least, most in zip(values, low, high, strict=True))
    return Expected(auc, log_loss, rate, len(score))


def judge_confidence(served: Served, score: Floats, settings: MonitorSettings, now_us: int) -> Verdict:
    """Whether a version ranks as well as at its training, as far as its scores know; shown and never paged.

    Args:
        score: (n,) recent scores, one of each entity.
    """
    evidence: dict[str, Finding] = {"estimated": 1, "rows": len(score), "blind_spot": BLIND_SPOT}
    if len(score) < settings.least_labels or served.trained_auc is None:
        text = f"estimated: nothing, of {len(score):,} answers; {settings.least_labels:,} and an evaluation are needed"
        return Verdict(CONFIDENCE, served.subject, Outcome.INCONCLUSIVE, Severity.INFO, evidence, text, now_us)
    if not 0 < score.mean() < 1:
        text = f"estimated: nothing; all {len(score):,} scores are {score[0]:.0f}, which rank nobody"
        return Verdict(CONFIDENCE, served.subject, Outcome.INCONCLUSIVE, Severity.INFO, evidence, text, now_us)
    found = expect_performance(score)
    for name in ("auc", "log_loss", "rate"):
        value, low, high = getattr(found, name)
        evidence |= {name: value, f"{name}_low": low, f"{name}_high": high}
    evidence["trained_auc"] = served.trained_auc
    fails = found.auc[2] < served.trained_auc - settings.auc_floor
    text = (
        f"estimated AUC {found.auc[0]:.3f} [{found.auc[1]:.3f}, {found.auc[2]:.3f}], {served.trained_auc:.3f} at training;"
        f" {BLIND_SPOT}"
    )
    return Verdict(CONFIDENCE, served.subject, Outcome.FAIL if fails else Outcome.PASS, Severity.INFO, evidence, text, now_us)


def judge_early_labels(served: Served, answers: Answers, settings: MonitorSettings, known_at_us: int) -> Verdict:
    """Whether outcomes come as the scores, at the rate learned of them before, let expect.

    A version's first ``estimate_learn_s`` are learned from; then each period of ``estimate_period_s`` has the days before as
    its baseline, as many as both together.
    All follows from the answers and outcomes alone, so that any process comes to the same course.

    Args:
        answers: of all versions of the model, an entity's so far apart that no outcome counts for two of them.
        known_at_us: up to when outcomes are known, UTC microseconds.

    Returns:
        It pages where outcomes fall or rise for longer than chance allows (``estimate_alarms_per_month``). Evidence:
        ``estimated`` 1, ``rate`` with ``rate_low``, ``rate_high`` that the last week's answers will end at, ``expected_rate``,
        ``outcomes``, ``expected_outcomes`` since the watch began, ``wealth_fall``, ``wealth_rise`` and the ``threshold``.
    """
    rows, own = _as_cohorts(answers, served)
    today = known_at_us // DAY_US
    span = find_span(int(rows.day[own].min()), int(today), settings) if own.any() else None
    evidence: dict[str, Finding] = {"estimated": 1, "answers": int(own.sum())}
    if span is None:
        text = f"estimated: nothing yet; outcomes are learned from for {settings.estimate_learn_s / DAY_S:.0f} days first"
        return Verdict(EARLY, served.subject, Outcome.INCONCLUSIVE, Severity.INFO, evidence, text, known_at_us)
    recent = rows.day >= span[0] - sum(_days_of(settings))  # nothing that an older log no longer has may change the course
    rows, own = Cohorts(rows.day[recent], rows.score[recent], rows.lag[recent]), own[recent]
    known = (rows.lag >= 0) & (rows.day + rows.lag < span[0])
    longest, seen = int(rows.lag[known].max(initial=0)), own & known
    if seen.sum() < settings.least_positives:
        text = f"estimated: nothing; {int(seen.sum())} outcomes to learn from, where {settings.least_positives} are needed"
        return Verdict(EARLY, served.subject, Outcome.INCONCLUSIVE, Severity.INFO, evidence, text, known_at_us)
    baseline = learn_baseline(rows, span[0], longest, own=own)
    most = 2 * 30 / settings.estimate_alarms_per_month  # half of the alarms for a fall, half for a rise
    mine = Cohorts(rows.day[own], rows.score[own], rows.lag[own])
    tests = {"fall": Bets(FALLS, settings.estimate_tolerance, most), "rise": Bets(RISES, settings.estimate_tolerance, most)}
    watches = {name: watch_early(mine, baseline, span, test) for name, test in tests.items()}
    evidence |= {"baseline_ratio": baseline.ratio, "baseline_outcomes": baseline.outcomes, "threshold": most,
                 "within_days": longest}  # fmt: skip
    rate = estimate_rate(mine, baseline, span[1], since=span[1] - RECENT_DAYS)
    if rate is not None:
        evidence |= {"rate": rate.rate, "rate_low": rate.low, "rate_high": rate.high, "expected_rate": rate.expected,
                     "known_share": rate.share}  # fmt: skip
    return _tell(served, watches, evidence, known_at_us)


def find_span(first: int, today: int, settings: MonitorSettings) -> tuple[int, int] | None:
    """The days that are watched now, the last one excluded, of a version first asked on day ``first``; None while it is learned
    from. Periods lie on a grid of days, so that it does not matter how far back the log goes; the first one is shorter."""
    learn, period = _days_of(settings)
    if today <= first + learn:
        return None
    return max(first + learn, (today - 1) // period * period), today


def _days_of(settings: MonitorSettings) -> tuple[int, int]:
    """Days that are learned from at least, and those of a period."""
    return max(round(settings.estimate_learn_s / DAY_S), 1), max(round(settings.estimate_period_s / DAY_S), 1)


def _as_cohorts(answers: Answers, served: Served) -> tuple[Cohorts, npt.NDArray[np.bool_]]:
    """Answers by whole days, and which of them are the version's."""
    known = answers.known_us < NEVER_KNOWN
    day = answers.now_us // DAY_US
    # By a clock that runs ahead an outcome may be known before its question: it came at once.
    lag = np.where(known, np.maximum(np.where(known, answers.known_us, 0) // DAY_US - day, 0), UNKNOWN)
    chance = 1 - answers.score if served.positive_is_absent else answers.score
    return Cohorts(day, chance, lag), answers.version == served.version


def _tell(served: Served, watches: dict[str, Watch], evidence: dict[str, Finding], now_us: int) -> Verdict:
    course = watches["fall"]
    outcomes, expected = int(course.outcomes.sum()), float(course.expected.sum())
    evidence |= {"outcomes": outcomes, "expected_outcomes": expected, "since_us": int(course.day[0]) * DAY_US}
    evidence |= {f"wealth_{name}": float(watch.wealth[-1]) for name, watch in watches.items()}
    standing = [name for name, watch in watches.items() if watch.alarmed[-1]]
    text = f"estimated: {outcomes:,} outcomes came in {len(course.day)} days, {expected:,.0f} expected"
    if "rate" in evidence:
        text += (
            f"; the last week's answers will end at {evidence['rate']:.2%} [{evidence['rate_low']:.2%},"
            f" {evidence['rate_high']:.2%}], {evidence['expected_rate']:.2%} expected"
        )
    if not standing:
        return Verdict(EARLY, served.subject, Outcome.PASS, Severity.PAGE, evidence, text, now_us)
    day = watches[standing[0]].day[watches[standing[0]].alarmed][0]
    evidence |= {"direction": standing[0], "alarm_us": int(day + 1) * DAY_US}
    text = f"outcomes {standing[0]} since about {np.datetime64(int(day), 'D')}; {text}"
    return Verdict(EARLY, served.subject, Outcome.FAIL, Severity.PAGE, evidence, text, now_us)


def _weighted_auc(score: Floats, positive: Floats) -> float:
    """AUC where a row is a positive to the part ``positive`` and a negative for the rest; ties count half."""
    order = np.argsort(score, kind="stable")
    value, up = score[order], positive[order]
    down = 1 - up
    _, start, count = np.unique(value, return_index=True, return_counts=True)
    below = np.concatenate([[0.0], np.cumsum(down)])
    tied = np.repeat(below[start + count] - below[start], count)
    pairs = up @ (np.repeat(below[start], count) + (tied - down) / 2)
    total = up.sum() * down.sum() - up @ down
    return float(pairs / total) if total else float("nan")
