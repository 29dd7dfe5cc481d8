"""Freshness: is a view's online store as young as the view promises?

Age counts from a shard's watermark, which a live stream moves on whether events come or not: a log that is merely quiet is
fresh, and a stream that is down is not, whether or not anything has happened since.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa

from monitoring.verdicts import Finding, Outcome, Severity, Verdict

MONITOR: Final = "freshness"
MOST_NAMED: Final = 5


def view_subject(view_key: str) -> str:
    """What verdicts on a view are about."""
    return f"view:{view_key}"


def judge_freshness(rows: pa.Table, view_key: str, now_us: int) -> Verdict:
    """One view's verdict.

    Args:
        rows: of ``rows.FRESHNESS``; those of other views are left out.
        now_us: UTC microseconds.

    Returns:
        It fails where a shard is older than the view's promise or was never filled, and is inconclusive, which pages too,
        where there is no row. Evidence: ``age_s`` of the oldest shard (absent where none was ever filled),
        ``freshness_sla_s``, ``shards``, ``late``, ``never_filled``, ``half_filled``.
    """
    own = [row for row in rows.to_pylist() if row["view_key"] == view_key]
    if not own:
        return _give(view_key, Outcome.INCONCLUSIVE, {}, "no shard was measured", now_us)
    ages = [row["age_s"] for row in own if row["age_s"] is not None]
    empty = [row for row in own if row["age_s"] is None]
    late = [row for row in own if row["late"] and row["age_s"] is not None]
    promise_s = own[0]["freshness_sla_s"]
    evidence: dict[str, Finding] = {
        "freshness_sla_s": promise_s, "shards": len(own), "late": len(late), "never_filled": len(empty),
        "half_filled": sum(row["half_filled"] for row in own),
    }  # fmt: skip
    if ages:
        evidence["age_s"] = max(ages)
    if not late and not empty:
        text = f"all {len(own)} shards are younger than {promise_s:,} s; the oldest is {max(ages):,.0f} s old"
        return _give(view_key, Outcome.PASS, evidence, text, now_us)
    return _give(view_key, Outcome.FAIL, evidence, _tell(late, empty, len(own), promise_s), now_us)


def _tell(late: list[Mapping[str, Any]], empty: list[Mapping[str, Any]], shards: int, promise_s: int) -> str:
    parts = []
    if late:
        oldest = max(late, key=lambda row: row["age_s"])
        named = ", ".join(str(row["shard"]) for row in late[:MOST_NAMED])
        everyone = "; every shard is, so the stream is down or its store" if len(late) == shards else ""
        parts.append(
            f"{len(late)} of {shards} shards ({named}) are older than {promise_s:,} s; the oldest is shard {oldest['shard']}:"
            f" {oldest['age_s']:,.0f} s, at offset {oldest['log_offset']:,}{everyone}"
        )
    if empty:
        named = ", ".join(str(row["shard"]) for row in empty[:MOST_NAMED])
        parts.append(f"{len(empty)} of {shards} shards were never filled ({named})")
    return "; ".join(parts)


def _give(view_key: str, outcome: Outcome, evidence: Mapping[str, Finding], text: str, now_us: int) -> Verdict:
    return Verdict(MONITOR, view_subject(view_key), outcome, Severity.PAGE, evidence, text, now_us)
