"""The newest skew audit of a model as a verdict: what was served is what the batch path makes of the same events, or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from features.layout import DAY_S, US_PER_S
from monitoring.verdicts import Finding, Outcome, Severity, Verdict

MONITOR: Final = "skew"


def judge_skew(model: str, audit: Mapping[str, Any] | None, *, most_age_s: float, now_us: int) -> Verdict:
    """A model's verdict by its newest audit.

    Args:
        audit: of ``features.audits``; None where there is none.
        most_age_s: an audit of rows that were answered longer ago is blind, and so is none at all.

    Returns:
        A mismatch fails and names the first differing signal.
    """
    subject = f"model:{model}"
    if audit is None:
        text = "nobody has compared served rows with the batch path"
        return Verdict(MONITOR, subject, Outcome.INCONCLUSIVE, Severity.PAGE, {}, text, now_us)
    seen_us = min(audit["measured_at_us"], audit["end_us"])
    evidence: dict[str, Finding] = {
        "measured_at_us": audit["measured_at_us"], "end_us": audit["end_us"], "rows": audit["rows"], "whole": audit["whole"],
        "checked": audit["statuses"]["checked"], "mismatches": audit["mismatches"],
    }  # fmt: skip
    if audit["mismatches"]:
        first = audit["first"]
        evidence |= {"kind": first["kind"], "signal": first["signal"]}
        text = (
            f"{audit['mismatches']:,} mismatches in {audit['rows']:,} served rows; first {first['kind']} of {first['signal']}"
        )
        return Verdict(MONITOR, subject, Outcome.FAIL, Severity.PAGE, evidence, text, now_us)
    age_s = (now_us - seen_us) / US_PER_S
    if age_s > most_age_s:
        text = (
            f"the newest audit looked at rows until {age_s / DAY_S:.1f} days ago, where {most_age_s / DAY_S:.0f} are promised"
        )
        return Verdict(MONITOR, subject, Outcome.INCONCLUSIVE, Severity.PAGE, evidence, text, now_us)
    text = f"{evidence['checked']:,} of {audit['rows']:,} served rows made again, none differs"
    return Verdict(MONITOR, subject, Outcome.PASS, Severity.PAGE, evidence, text, now_us)
