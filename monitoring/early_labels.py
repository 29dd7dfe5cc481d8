"""Outcomes that come late, used as they come: the rate they will end at, and an alarm that does not wait for maturity.

Of predictions asked on day c some outcomes are known after j days, with F(j) of those that will ever be. F is learned from
outcomes whose delay is right truncated (a delay longer than the time since has not been seen), by the hazard in reverse time:

    g(j) = outcomes of lag j / outcomes of lag <= j that could be seen up to lag j,      F(j) = prod_{u > j} (1 - g(u)).   (1)

A row with score p that has no outcome yet gets one on its j-th day with probability q = p (F(j) - F(j-1)) / (1 - p F(j-1)), if
outcomes are as likely as the score says. Then N outcomes on a day whose q sum to M allow bets on a fall by a factor r < 1,

    L = r^N exp((1 - r) M),   E[L | past] <= prod (1 - (1 - r) q) exp((1 - r) q) <= 1,                                     (2)

for rows of any kind, and also where outcomes are likelier than q; on a rise, r > 1, likewise where they are less likely.
Bets that begin anew every day add up to R = (R' + 1) L, whose mean after t days without a change is at most t. So with an
alarm at R >= c, false alarms are at least c days apart on average, and the chance of any within t days is at most t / c,
however often one looks.

References: Lagakos, Barraj, De Gruttola 1988, Nonparametric analysis of truncated survival data, with application to AIDS
(Biometrika 75); Kalbfleisch & Lawless 1989, Inference based on retrospective ascertainment (JASA 84); Lawless 1994, Adjustments
for reporting delays and the prediction of occurred but not reported events (Canadian Journal of Statistics 22); Chapelle 2014,
Modeling delayed feedback in display advertising (KDD); Roberts 1966 and Shiryaev 1963 for the sum; Shin, Ramdas, Rinaldo 2023,
E-detectors: a nonparametric framework for sequential change detection (arXiv 2203.03532).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from monitoring.errors import MonitorError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

UNKNOWN: Final = -1
"""Lag of a row whose outcome nobody has seen."""
FALLS: Final = np.array([0.4, 0.6, 0.75, 0.85, 0.95])
"""What is left of the rate, in the bets that are tried; the wealth is their mean."""
RISES: Final = np.array([1.05, 1.15, 1.35, 1.7, 2.5])
HIGHEST: Final = 0.999
LEVEL: Final = 0.95


@dataclass(frozen=True)
class Cohorts:
    """Predictions and their outcomes by whole days, n of them.

    Attributes:
        day: (n,) on which each was asked.
        score: (n,) probability of an outcome, as served.
        lag: (n,) days until the outcome was known, ``UNKNOWN`` where none is.
    """

    day: Ints
    score: Floats
    lag: Ints

    def known_by(self, day: int) -> Cohorts:
        """What was known when a day began: rows of earlier days, and outcomes that had become known on them."""
        asked = self.day < day
        lag = np.where((self.lag >= 0) & (self.day + self.lag < day), self.lag, UNKNOWN)
        return Cohorts(self.day[asked], self.score[asked], lag[asked])


@dataclass(frozen=True)
class Baseline:
    """What is normal, as known when the watch begins.

    Attributes:
        within: (days + 1,) share of outcomes known within so many days, F of (1); the last is 1.
        ratio: outcomes for each one that the scores expect.
        outcomes: how many it rests on.
    """

    within: Floats
    ratio: float
    outcomes: int


@dataclass(frozen=True)
class Bets:
    """What is bet on.

    Attributes:
        factors: of the rate, tried in the bets, all below 1 or all above.
        tolerance: a rate that is this part lower (higher) than the baseline is no harm.
        most: c, the days between false alarms.
    """

    factors: Floats
    tolerance: float
    most: float

    @property
    def margin(self) -> float:
        """The baseline that bets are made against, for each 1 of what is normal."""
        return 1 - self.tolerance if self.factors[0] < 1 else 1 + self.tolerance


@dataclass(frozen=True)
class Watch:
    """The course of one watch, a value a day: ``day``, ``outcomes`` that came, those ``expected`` by the baseline, ``wealth``
    R, ``alarmed``. An alarm stands until the wealth is below 1 again."""

    day: Ints
    outcomes: Ints
    expected: Floats
    wealth: Floats
    alarmed: npt.NDArray[np.bool_]

    @property
    def first_alarm(self) -> int | None:
        """The day on whose outcomes the first alarm rests; it is known when that day has ended."""
        return int(self.day[self.alarmed][0]) if self.alarmed.any() else None


@dataclass(frozen=True)
class FinalRate:
    """An estimate, marked as such, of the rate at which outcomes will end: ``rate`` with a 95 % interval, beside the rate that
    was ``expected``; ``outcomes`` known so far, and the ``share`` of all that should be known by now."""

    rate: float
    low: float
    high: float
    expected: float
    outcomes: int
    share: float


def fit_delays(lag: Ints, seen_for: Ints, days: int) -> Floats:
    """F of (1), (days + 1,).

    Args:
        lag: (n,) days until each outcome was known, 0 to ``days``.
        seen_for: (n,) the longest lag that could have been seen of its row.
        days: the longest lag there is.

    Example:
        >>> fit_delays(np.array([0, 1, 1, 0]), np.array([1, 1, 1, 0]), 1).round(3).tolist()
        [0.333, 1.0]
    """
    seen_for = np.minimum(seen_for, days)
    within = np.ones(days + 1)
    for j in range(days, 0, -1):
        at_risk = (lag <= j) & (seen_for >= j)
        exact = at_risk & (lag == j)
        hazard = exact.sum() / at_risk.sum() if at_risk.any() else 0.0
        within[j - 1] = within[j] * (1 - hazard)
    return within


def learn_baseline(rows: Cohorts, day: int, days: int, *, own: npt.NDArray[np.bool_] | None = None) -> Baseline:
    """What was normal by the time a day began, from the rows of earlier days.

    Args:
        days: the longest lag there is.
        own: (n,) which of the rows the ratio is learned from; all where left out. Delays are learned from all of them.

    Raises:
        MonitorError: no outcome is known.
    """
    known = rows.known_by(day)
    has = known.lag >= 0
    if not has.any():
        raise MonitorError("no outcome is known that a baseline could rest on; expected earlier predictions with outcomes")
    within = fit_delays(known.lag[has], day - 1 - known.day[has], days)
    mine = np.ones(len(known.day), np.bool_) if own is None else own[rows.day < day]
    expected = float((known.score * _within(within, day - 1 - known.day))[mine].sum())
    outcomes = int((has & mine).sum())
    return Baseline(within, outcomes / expected if outcomes and expected else 1.0, outcomes)


def watch_early(rows: Cohorts, baseline: Baseline, span: tuple[int, int], bets: Bets) -> Watch:
    """Watch outcomes as they come, day by day.

    Args:
        rows: an entity's rows so far apart that no outcome counts for two of them.
        span: first day, and the day after the last one that is complete.
    """
    days = np.arange(*span)
    score = np.minimum(rows.score * baseline.ratio * bets.margin, HIGHEST)
    outcomes, expected = np.zeros(len(days), np.int64), np.zeros(len(days))
    for j in range(len(baseline.within)):
        before = baseline.within[j - 1] if j else 0.0
        open_still = (rows.lag == UNKNOWN) | (rows.lag >= j)
        at = rows.day + j - span[0]
        counted = open_still & (at >= 0) & (at < len(days))
        chance = score[counted] * (baseline.within[j] - before) / (1 - score[counted] * before)
        expected += np.bincount(at[counted], weights=chance, minlength=len(days))
        outcomes += np.bincount(at[counted & (rows.lag == j)], minlength=len(days))
    return _follow(days, outcomes, expected, bets)


def watch_matured(rows: Cohorts, baseline: Baseline, span: tuple[int, int], bets: Bets) -> Watch:
    """The same watch by labels that have matured: a day's rows count as a whole, once no outcome of them can come any more."""
    days = np.arange(*span)
    at = rows.day + len(baseline.within) - 1 - span[0]
    counted = (at >= 0) & (at < len(days))
    score = np.minimum(rows.score * baseline.ratio * bets.margin, HIGHEST)
    expected = np.bincount(at[counted], weights=score[counted], minlength=len(days)).astype(np.float64)
    outcomes = np.bincount(at[counted & (rows.lag >= 0)], minlength=len(days))
    return _follow(days, outcomes, expected, bets)


def estimate_rate(rows: Cohorts, baseline: Baseline, day: int, *, since: int) -> FinalRate | None:
    """The rate at which rows asked from ``since`` on will end, by what was known when ``day`` began; None where nothing says.

    The interval is the exact one of a Poisson count (Garwood 1936), the delays taken for known.
    """
    known = rows.known_by(day)
    chosen = known.day >= since
    score = known.score[chosen] * baseline.ratio
    share = _within(baseline.within, day - 1 - known.day[chosen])
    expected_now, outcomes = float(score @ share), int((known.lag[chosen] >= 0).sum())
    if not expected_now:
        return None
    mean = float(score.mean())
    tail = (1 - LEVEL) / 2
    low = chi2.ppf(tail, 2 * outcomes) / 2 if outcomes else 0.0
    high = chi2.ppf(1 - tail, 2 * outcomes + 2) / 2
    rate, low, high = (min(mean * count / expected_now, 1.0) for count in (outcomes, low, high))
    return FinalRate(rate, low, high, mean, outcomes, expected_now / float(score.sum()))


def _follow(days: Ints, outcomes: Ints, expected: Floats, bets: Bets) -> Watch:
    """Wealth and alarms of a course of counts; sums in logs, since wealth grows beyond any float.

    Args:
        expected: by the baseline with the test's margin.
    """
    log_wealth = np.full(len(bets.factors), -math.inf)
    path, alarmed = np.zeros(len(days)), np.zeros(len(days), np.bool_)
    stands = False
    for number in range(len(days)):
        log_bet = outcomes[number] * np.log(bets.factors) + (1 - bets.factors) * expected[number]
        log_wealth = np.logaddexp(log_wealth, 0.0) + log_bet
        mean = float(np.logaddexp.reduce(log_wealth)) - math.log(len(bets.factors))
        stands = mean >= math.log(bets.most) or (stands and mean >= 0)
        path[number], alarmed[number] = math.exp(min(mean, 700.0)), stands
    return Watch(days, outcomes, expected / bets.margin, path, alarmed)


def _within(within: Floats, age: Ints) -> Floats:
    """Share known of rows of these ages in days; 0 of those not asked yet."""
    return np.where(age >= 0, within[np.clip(age, 0, len(within) - 1)], 0.0)
