"""Quality of what arrives: events by type, null shares, late and refused events of an hour beside that hour of earlier weeks.

An hour's count is held against a negative binomial distribution: the mean of the weeks before, their own scatter or the one
that settings take for normal, whichever is more, and the uncertainty of a mean of few weeks. A share is held against the most
(and the least) that any of those weeks had, by the binomial distribution. Both must also pass a floor: what is certain and
small is no page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from scipy.stats import binom, nbinom

from features.layout import HOUR_S
from monitoring.drift.settings import MONTH_S
from monitoring.monitor_settings import MonitorSettings
from monitoring.verdicts import Finding, Outcome, Severity, Verdict

MONITOR: Final = "quality"
VOLUME, UNSEEN = "volume", "unseen_share"
MOST_NAMED: Final = 5
RANGE_TO_DEVIATION: Final = {1: math.inf, 2: 1.128, 3: 1.693, 4: 2.059, 5: 2.326, 6: 2.534, 7: 2.704, 8: 2.847}
"""Mean range of so many normal values in deviations (Tippett 1925)."""
LEAST_WINDOWS: Final = 2


@dataclass(frozen=True)
class _Judged:
    """One measure: its name for people, its value and reference, how unlikely it is, and whether it pages."""

    name: str
    value: float
    reference: float
    p_value: float
    fails: bool


def log_subject(entity: str) -> str:
    """What verdicts on an entity's log are about."""
    return f"log:{entity}"


def judge_quality(rows: pa.Table, entity: str, settings: MonitorSettings, now_us: int) -> Verdict:
    """One log's verdict on one hour.

    Args:
        rows: of ``rows.QUALITY`` for that hour, of ``features.quality`` and ``features.arrivals``; others' are left out.

    Returns:
        It pages where a count or share is beyond its floor and less likely than its part of ``alarms_per_month``, which is
        divided among the month's hours and the measures. It is inconclusive, and shown only, where the log has fewer than two
        earlier weeks; inconclusive and paged where nothing was measured. Values never seen before are shown.
    """
    own = [row for row in rows.to_pylist() if row["entity"] == entity]
    if not own:
        return _give(entity, Outcome.INCONCLUSIVE, Severity.PAGE, {}, "nothing was measured: the log is empty", now_us)
    hour = {"start_us": round(own[0]["start"].timestamp() * 1e6), "weeks": own[0]["reference_windows"]}
    measures = [row for row in own if row["metric"] != UNSEEN and row["value"] is not None and row["reference"] is not None]
    if hour["weeks"] < LEAST_WINDOWS:
        text = f"{hour['weeks']} earlier weeks to hold this hour against, where {LEAST_WINDOWS} are needed"
        return _give(entity, Outcome.INCONCLUSIVE, Severity.INFO, {**hour}, text, now_us)
    chance = settings.alarms_per_month * HOUR_S / MONTH_S / max(len(measures), 1)
    judged = [_judge(row, chance, settings) for row in measures]
    failing = sorted((one for one in judged if one.fails), key=lambda one: one.p_value)
    unseen = {row["attribute"]: row["detail"] for row in own if row["metric"] == UNSEEN and (row["value"] or 0) > 0}
    evidence: dict[str, Finding] = {**hour, "measures": len(judged), "failing": len(failing), "chance": chance,
                                    "unseen": "; ".join(f"{name}: {values}" for name, values in unseen.items())}  # fmt: skip
    for number, one in enumerate(failing[:MOST_NAMED], start=1):
        evidence |= {f"{key}_{number}": value for key, value in one.__dict__.items() if key != "fails"}
    if failing:
        named = ", ".join(_tell(one) for one in failing[:MOST_NAMED])
        return _give(
            entity, Outcome.FAIL, Severity.PAGE, evidence, f"{len(failing)} measures are not as before: {named}", now_us
        )
    text = f"{len(judged)} measures of the hour are as in {hour['weeks']} weeks before"
    return _give(entity, Outcome.PASS, Severity.PAGE, evidence, text, now_us)


def _judge(row: Mapping[str, Any], chance: float, settings: MonitorSettings) -> _Judged:
    if row["metric"] == VOLUME:
        return _judge_volume(row, chance, settings)
    name = f"{row['metric']} of {row['event_type']}.{row['attribute']}" if row["attribute"] else row["metric"]
    value, events = row["value"], row["events"]
    count = round(value * events)
    # The weeks' extremes are of finite hours too: half an event more or less keeps a share off 0 and 1.
    slack = 0.5 / max(events, 1)
    high, low = min(row["reference_high"] + slack, 1.0), max(row["reference_low"] - slack, 0.0)
    p_value = 2 * min(float(binom.sf(count - 1, events, high)), float(binom.cdf(count, events, low)))
    fails = p_value <= chance and abs(value - row["reference"]) >= settings.share_floor
    return _Judged(name, value, row["reference"], min(p_value, 1.0), fails)


def _judge_volume(row: Mapping[str, Any], chance: float, settings: MonitorSettings) -> _Judged:
    mean, weeks, count = row["reference"], row["reference_windows"], row["value"]
    if not mean:
        return _Judged(f"events of {row['event_type']}", count, mean, 1.0, fails=False)
    scatter = (row["reference_high"] - row["reference_low"]) / RANGE_TO_DEVIATION.get(weeks, 2.847)
    spread = max(settings.volume_spread, math.sqrt(max((scatter / mean) ** 2 - 1 / mean, 0.0)))
    variance = mean + (spread * mean) ** 2 + (mean + (spread * mean) ** 2) / weeks
    share = mean / variance
    size = mean * share / (1 - share)
    p_value = 2 * min(float(nbinom.cdf(count, size, share)), float(nbinom.sf(count - 1, size, share)))
    beyond = count <= settings.volume_floor * mean or count >= mean / settings.volume_floor
    return _Judged(f"events of {row['event_type']}", count, mean, min(p_value, 1.0), fails=beyond and p_value <= chance)


def _tell(one: _Judged) -> str:
    if one.name.startswith("events of"):
        return f"{one.name} {one.value:,.0f} (were {one.reference:,.0f})"
    return f"{one.name} {one.value:.1%} (was {one.reference:.1%})"


def _give(
    entity: str, outcome: Outcome, severity: Severity, evidence: Mapping[str, Finding], text: str, now_us: int
) -> Verdict:  # fmt: skip
    return Verdict(MONITOR, log_subject(entity), outcome, severity, evidence, text, now_us)
