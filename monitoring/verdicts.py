"""What a monitor found: one verdict, and how it travels as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Finding = float | int | str | None


class Outcome(StrEnum):
    """Three, not two: too little data is neither a pass nor a failure."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Severity(StrEnum):
    """What a failure asks for. INFO is shown, PAGE calls somebody and stops promotions, ROLL_BACK also takes the traffic."""

    INFO = "info"
    PAGE = "page"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True)
class Verdict:
    """One monitor's judgement of one subject at one instant.

    ``monitor`` names the check ("errors"), ``subject`` what it looked at ("churn/canary"), ``evidence`` the numbers that
    it rests on, ``text`` one sentence for a person, ``at_us`` when it was given (UTC microseconds).
    """

    monitor: str
    subject: str
    outcome: Outcome
    severity: Severity
    evidence: Mapping[str, Finding]
    text: str
    at_us: int

    def describe(self) -> dict[str, Any]:
        """Plain values for JSON; ``read_verdict`` reads them."""
        return {**self.__dict__, "outcome": str(self.outcome), "severity": str(self.severity), "evidence": dict(self.evidence)}


def read_verdict(fields: Mapping[str, Any]) -> Verdict:
    """The verdict that ``Verdict.describe`` gave.

    Raises:
        KeyError, ValueError: the fields are not a verdict's.
    """
    return Verdict(
        monitor=fields["monitor"],
        subject=fields["subject"],
        outcome=Outcome(fields["outcome"]),
        severity=Severity(fields["severity"]),
        evidence=fields["evidence"],
        text=fields["text"],
        at_us=fields["at_us"],
    )
