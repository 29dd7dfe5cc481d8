"""Settings of the drift monitors: one frozen object for sampling, windows, alarms and detectors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import yaml

from features.errors import explain
from features.layout import DAY_S
from monitoring.errors import DriftError
from monitoring.runner import GRACE

MONTH_S: Final = 30 * DAY_S

STABLE: Final = "stable"
"""Kind of the reference that a canary is held against; which revision that is, ``monitoring.revisions`` knows."""

QUALITY, FEATURES, JOINT, SCORE, LABELS = "quality", "features", "joint", "score", "labels"
SHARES: Final[Mapping[str, float]] = {QUALITY: 0.2, FEATURES: 0.4, JOINT: 0.1, SCORE: 0.2, LABELS: 0.1}
"""How the false alarms that are allowed are divided among the families of tests; they sum to 1."""


@dataclass(frozen=True)
class DriftSettings:
    """How windows are formed and judged.

    Attributes:
        alarms_per_month: false pages that are expected of one subject (a revision of a service) beside one reference in 30
            days without drift, all features and tests together. A window that spans a part of the month may spend that
            part of them, so it does not matter how many windows there are.
        effect_floor: smaller differences never page, however sure they are: Kolmogorov-Smirnov distance of a number, total
            variation of a category, both from 0 to 1.
        season_floor: likewise beside training rows of other hours of the week than the window's, where there are too few of
            its own: what differs by less, or by no more than those rows do among themselves, may be the season.
        missing_floor: smaller rises (or falls) of a feature's share of missing values are no finding.
        unseen_floor: a smaller share of values that the reference never had is no finding.
        importance_share: part of the features' alarms that is divided by importance to the model; the rest is divided
            equally.
        window_s: a window closes after so many seconds...
        canary_window_s: likewise of a revision that is not stable, which does not stay for long.
        least_rows: ...once it has so many rows of different entities; with fewer, a test says inconclusive.
        least_matched_rows: of training rows so many of the window's hours of the week are enough.
        most_rows: a window closes with so many rows, but not before ``shortest_window_s``; more are thinned to it.
        longest_window_s: a window closes at this age however few its rows.
        weeks: how many earlier weeks' same hours are the seasonal reference.
        joint_features, joint_rows: the test of all features together sees the most important ones, and so many rows a side.
        heard_within_s: what stands of a revision is blind where nobody has looked for so long; longer where looks are rarer
            (``heard_every``).
        top: how many features verdicts and metrics name.
        seed: of thinning and of the joint test.
    """

    alarms_per_month: float = 1.0
    effect_floor: float = 0.1
    season_floor: float = 0.3
    missing_floor: float = 0.01
    unseen_floor: float = 0.01
    importance_share: float = 0.5
    window_s: int = 3_600
    canary_window_s: int = 300
    least_rows: int = 200
    least_matched_rows: int = 50
    most_rows: int = 10_000
    shortest_window_s: int = 60
    longest_window_s: int = DAY_S
    weeks: int = 4
    joint_features: int = 50
    joint_rows: int = 2_000
    heard_within_s: int = 300
    top: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for entry in fields(self):
            value, whole = getattr(self, entry.name), entry.type == "int"
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                raise _refusal(entry.name, "a whole number" if whole else "a number", repr(value))
            if value < 0 or (value == 0 and entry.name not in MAY_BE_ZERO):
                raise _refusal(entry.name, "more than 0", repr(value))
        for name in ("effect_floor", "season_floor", "missing_floor", "unseen_floor", "importance_share"):
            if getattr(self, name) > 1:
                raise _refusal(name, "at most 1", repr(getattr(self, name)))
        lengths_s = (self.window_s, self.canary_window_s)
        ordered = self.shortest_window_s <= min(lengths_s) <= max(lengths_s) <= self.longest_window_s
        if not (self.least_rows <= self.most_rows and ordered):
            raise _refusal("windows", "least_rows <= most_rows, shortest_window_s <= windows <= longest_window_s", str(self))

    def window_of(self, *, stable: bool) -> int:
        """Seconds after which the window of a stable revision, or of another, may close."""
        return self.window_s if stable else self.canary_window_s

    def heard_every(self, interval_s: float) -> DriftSettings:
        """These settings for whoever looks every so many seconds: nobody is blind between two of his own looks."""
        return replace(self, heard_within_s=max(self.heard_within_s, math.ceil(GRACE * interval_s)))

    def chance(self, family: str, span_s: float) -> float:
        """The chance of a false page that one family of tests may take in a window of so many seconds."""
        return min(SHARES[family] * self.alarms_per_month * span_s / MONTH_S, 0.05)


MAY_BE_ZERO: Final = {
    "effect_floor", "season_floor", "missing_floor", "unseen_floor", "importance_share", "weeks", "joint_features", "seed",
    "shortest_window_s",
}  # fmt: skip


def read_settings(path: Path | None) -> DriftSettings:
    """Settings from a YAML mapping; what it leaves out, or no file at all, means the defaults.

    Raises:
        DriftError: the file cannot be read, or holds an unknown key or a value out of range.
    """
    if path is None:
        return DriftSettings()
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _refusal(str(path), "a YAML file", " ".join(str(error).split())) from error
    known = {entry.name for entry in fields(DriftSettings)}
    if not isinstance(content, dict) or not set(content) <= known:
        raise _refusal(str(path), f"some of {', '.join(sorted(known))}", str(content))
    return DriftSettings(**content)


def _refusal(which: str, expected: str, got: str) -> DriftError:
    return DriftError(
        explain("drift settings refused", which=which, expected=expected, got=got, next_step="correct the settings")
    )
