"""``make bench-early-warning``: the day an alarm by early labels fires beside the day an alarm by matured labels can.

Simulated campaigns whose conversion falls from a known day. Labels come 1 to 7 days late. Scores rank customers as a model does
and are a constant factor off, as after a change of season; delays and that factor are learned from the weeks before the
watch begins, by what was known then. Both alarms are the same test with the same allowance; one counts outcomes as they come,
the other a day's rows once all of their labels have matured.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from features.layout import DAY_S
from monitoring.early_labels import (
    FALLS,
    UNKNOWN,
    Bets,
    Cohorts,
    Watch,
    estimate_rate,
    learn_baseline,
    watch_early,
    watch_matured,
)
from monitoring.monitor_settings import MonitorSettings

SETTINGS: Final = MonitorSettings()
REFERENCE_DAYS: Final = round(SETTINGS.estimate_learn_s / DAY_S)
WATCHED_DAYS: Final = 56
FALL_DAY: Final = 14
LONGEST_DELAY: Final = 7
RATE: Final = 0.05
VOLUMES: Final = (500, 2_000, 8_000)
SIZES: Final = (0.1, 0.2, 0.4)
CAMPAIGNS: Final = 100
NULL_CAMPAIGNS: Final = 500
BETS: Final = Bets(FALLS, SETTINGS.estimate_tolerance, 30 / SETTINGS.estimate_alarms_per_month)


@dataclass(frozen=True)
class Campaign:
    """Simulated answers from day 0 on; the watch begins on day ``REFERENCE_DAYS``."""

    volume: int
    fall: float = 0.0

    def draw(self, rng: np.random.Generator) -> Cohorts:
        """Predictions with scores, and the day each outcome is known. From ``FALL_DAY`` of the watch on, fewer convert."""
        days = REFERENCE_DAYS + WATCHED_DAYS
        week = 1 + 0.2 * np.sin(2 * np.pi * np.arange(days) / 7)
        asked = np.repeat(np.arange(days), rng.poisson(self.volume * week))
        logit = rng.normal(np.log(RATE) - 0.4, 0.9, len(asked))
        chance = 1 / (1 + np.exp(-logit))
        fallen = asked >= REFERENCE_DAYS + FALL_DAY
        converts = rng.random(len(asked)) < chance * np.where(fallen, 1 - self.fall, 1)
        # Asked at any hour, known 1 to 7 days later, most within three: whole days as a calendar counts them.
        delay = 1 + 6 * rng.beta(1.2, 2.5, len(asked))
        lag = np.floor(rng.random(len(asked)) + delay).astype(np.int64)
        score = chance * rng.uniform(0.8, 1.25)
        return Cohorts(asked, np.minimum(score, 0.99), np.where(converts, lag, UNKNOWN))


def follow(rows: Cohorts) -> tuple[Watch, Watch]:
    """Both alarms' courses over the watched days."""
    baseline = learn_baseline(rows, REFERENCE_DAYS, LONGEST_DELAY + 1)
    span = (REFERENCE_DAYS, REFERENCE_DAYS + WATCHED_DAYS)
    return watch_early(rows, baseline, span, BETS), watch_matured(rows, baseline, span, BETS)


def days_until(watch: Watch) -> float:
    """Days from the fall to the end of the day on which the alarm fires; infinite where it does not, or did before."""
    first = watch.first_alarm
    if first is None or first < REFERENCE_DAYS + FALL_DAY:
        return np.inf
    return first + 1 - REFERENCE_DAYS - FALL_DAY


def show_delays(console: Console, campaigns: int) -> None:
    """Days from a fall to either alarm, by its size and the campaign's volume; and how true the estimated rate is a week in."""
    table = Table(
        "predictions a day", "fall", "early labels: median day", "90 %", "found", "matured labels: median day", "90 %",
        "found", "earlier by", "rate estimated on day 7 (true)", "95 % interval holds",
        title=f"conversion of about {RATE:.0%} falls on day {FALL_DAY}; days until the alarm, {campaigns} campaigns each",
    )  # fmt: skip
    for volume in VOLUMES:
        for fall in SIZES:
            rng = np.random.default_rng((volume, round(100 * fall)))
            days, rates = np.empty((campaigns, 2)), np.empty((campaigns, 3))
            for number in range(campaigns):
                rows = Campaign(volume, fall).draw(rng)
                days[number] = [days_until(watch) for watch in follow(rows)]
                rates[number] = compare_rates(rows)
            words = []
            for column in days.T:
                middle, most = np.quantile(column, (0.5, 0.9), method="higher")
                words += [_word(middle), _word(most), f"{np.isfinite(column).mean():.0%}"]
            both = np.isfinite(days).all(axis=1)
            gain = f"{np.median(days[both, 1] - days[both, 0]):.0f} days" if both.any() else "-"
            estimated, true, holds = rates.mean(axis=0)
            table.add_row(
                f"{volume:,}", f"{fall:.0%}", *words, gain, f"{estimated:.2%} ({true:.2%})", f"{holds:.0%}"
            )  # fmt: skip
    console.print(table)


def _word(days: float) -> str:
    return f"{days:.0f}" if np.isfinite(days) else "-"


def compare_rates(rows: Cohorts) -> tuple[float, float, bool]:
    """Rate of the rows asked in the first week of the fall, estimated at that week's end, what it came to, and whether the
    interval holds that."""
    began = REFERENCE_DAYS + FALL_DAY
    found = estimate_rate(rows, learn_baseline(rows, REFERENCE_DAYS, LONGEST_DELAY + 1), began + 7, since=began)
    if found is None:
        raise AssertionError("a week of predictions gives an estimate")
    came = float((rows.lag[(rows.day >= began) & (rows.day < began + 7)] >= 0).mean())
    return found.rate, came, found.low <= came <= found.high


def show_nulls(console: Console, campaigns: int) -> None:
    """Campaigns without a fall: how many raise any alarm in eight weeks, beside what the setting allows."""
    table = Table(
        "predictions a day", "early labels: campaigns that alarmed", "matured labels", "a month, early", "allowed a month",
        "bound for a campaign",
        title=f"{campaigns} campaigns without a fall, {WATCHED_DAYS} days each",
    )  # fmt: skip
    for volume in VOLUMES:
        rng = np.random.default_rng(volume)
        alarmed = np.zeros(2, np.int64)
        for _ in range(campaigns):
            alarmed += [watch.first_alarm is not None for watch in follow(Campaign(volume).draw(rng))]
        a_month = alarmed[0] / campaigns / (WATCHED_DAYS / 30)
        table.add_row(
            f"{volume:,}", f"{alarmed[0]} ({alarmed[0] / campaigns:.1%})", f"{alarmed[1]} ({alarmed[1] / campaigns:.1%})",
            f"{a_month:.3f}", f"{SETTINGS.estimate_alarms_per_month}", f"{WATCHED_DAYS / BETS.most:.0%}",
        )  # fmt: skip
    console.print(table)


def main() -> None:
    """Print all; ``--quick`` with a tenth of the campaigns."""
    part = 10 if "--quick" in sys.argv else 1
    console, began = Console(width=200), time.process_time()
    show_delays(console, CAMPAIGNS // part)
    show_nulls(console, NULL_CAMPAIGNS // part)
    console.print(f"processor time {time.process_time() - began:.0f} s")


if __name__ == "__main__":
    main()
