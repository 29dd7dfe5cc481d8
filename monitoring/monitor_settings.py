"""Settings of the monitors: how often each is called, and what it tolerates; one frozen object."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import yaml

from features.errors import explain
from features.layout import DAY_S, HOUR_S
from monitoring.drift.settings import DriftSettings
from monitoring.errors import MonitorError

WEEK_S: Final = 7 * DAY_S


@dataclass(frozen=True)
class MonitorSettings:
    """When monitors look, and when they page.

    Attributes:
        freshness_s, drift_s, quality_s, skew_s, labels_s, estimate_s, online_s, runs_s: seconds between two looks.
        online_simulations: streams that the thresholds of value-by-value watches are found by; ten for each value between false
            alarms, or these do not keep to it.
        alarms_per_month: false pages that are expected in 30 days of one log's quality and of one version's labels, each.
        volume_spread: relative deviation of an hour's events between weeks that is taken for normal; more where the earlier
            weeks themselves show more.
        volume_floor: an hour's events page only where they are less than this part of the earlier weeks' mean, or more than
            that mean divided by it.
        share_floor: null shares, late and dead-letter shares page only where they changed by this much, as a share of rows.
        most_audit_age_s: an audit for skew that is older says nothing any more.
        most_silence_s: labels mature as far as the event log reaches; where it ends longer ago, none do.
        most_answers: predictions of a model that estimates rest on; of more, those of a part of the entities are taken.
        longest_run_s: a pipeline run under way for longer hangs.
        labels_window_s: labels that matured within one such window are judged together, longer while they are too few.
        least_labels, least_positives: fewer say nothing.
        auc_floor, log_loss_floor, rate_floor: by how much the AUC must have fallen, the log loss risen (as a part of what it
            was) and the rate of positives left what the scores expect (as a part of it), to page.
        estimate_alarms_per_month: likewise of a version's early labels, which are watched every day.
        estimate_tolerance: an outcome rate of this much below what scores expect is no harm (a part of it).
        estimate_learn_s: how long a version's outcomes are learned from before they are watched.
        estimate_period_s: an estimate's reference is renewed after so long.
        drift: settings of the drift monitors.
    """

    freshness_s: float = 60
    drift_s: float = 30
    quality_s: float = 600
    skew_s: float = HOUR_S
    labels_s: float = HOUR_S
    estimate_s: float = HOUR_S
    online_s: float = 60
    runs_s: float = 60
    online_simulations: int = 10_000
    alarms_per_month: float = 1.0
    volume_spread: float = 0.15
    volume_floor: float = 0.5
    share_floor: float = 0.02
    most_audit_age_s: float = WEEK_S
    most_silence_s: float = 2 * DAY_S
    most_answers: int = 200_000
    longest_run_s: float = DAY_S
    labels_window_s: float = WEEK_S
    least_labels: int = 500
    least_positives: int = 25
    auc_floor: float = 0.02
    log_loss_floor: float = 0.05
    rate_floor: float = 0.1
    estimate_alarms_per_month: float = 0.2
    estimate_tolerance: float = 0.05
    estimate_learn_s: float = 2 * WEEK_S
    estimate_period_s: float = 4 * WEEK_S
    drift: DriftSettings = field(default_factory=DriftSettings)

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name == "drift":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
                raise _refusal(entry.name, "a number above 0", repr(value))
        for name in ("volume_floor", "share_floor", "auc_floor", "rate_floor", "estimate_tolerance"):
            if getattr(self, name) >= 1:
                raise _refusal(name, "less than 1", repr(getattr(self, name)))

    def describe(self) -> dict[str, Any]:
        """Plain values, as the YAML file has them."""
        return asdict(self)


def read_monitor_settings(path: Path | None) -> MonitorSettings:
    """Settings from a YAML mapping, with those of drift under ``drift``; what it leaves out, or no file, means the defaults.

    Raises:
        MonitorError, DriftError: the file cannot be read, or holds an unknown key or a value out of range.
    """
    if path is None:
        return MonitorSettings()
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _refusal(str(path), "a YAML file", " ".join(str(error).split())) from error
    drift = content.pop("drift", {}) if isinstance(content, dict) else {}
    for given, kind in ((content, MonitorSettings), (drift, DriftSettings)):
        known = {entry.name for entry in fields(kind)}
        if not isinstance(given, dict) or not set(given) <= known:
            raise _refusal(str(path), f"some of {', '.join(sorted(known))}", str(given))
    return MonitorSettings(**content, drift=DriftSettings(**drift))


def _refusal(which: str, expected: str, got: str) -> MonitorError:
    return MonitorError(
        explain("monitor settings refused", which=which, expected=expected, got=got, next_step="correct the settings")
    )
