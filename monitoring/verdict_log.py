"""What monitors say, in the control database: the verdict that stands for each monitor and subject, and how it changed.

Subjects are ``SERVICE/REVISION`` for what concerns one revision, ``SERVICE`` for what concerns all of them, ``view:KEY``,
``log:ENTITY``, ``model:MODEL`` and ``run:PIPELINE``. A verdict stands for as long as its monitor promises to speak again; after
that it is judged blind, which is a verdict itself: nobody is to take silence for health.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from features.control_database import is_absent, open_session
from features.errors import explain
from features.layout import US_PER_S
from features.workspace import Workspace
from monitoring.errors import VerdictError
from monitoring.verdict_tables import SCHEMA, HistoryRow, StandingRow
from monitoring.verdicts import Finding, Outcome, Severity, Verdict, read_verdict

TIMEOUT_S: Final = 5.0
BLIND: Final = "blind"
"""Evidence of a blind verdict: seconds since its monitor was heard last."""


@dataclass(frozen=True)
class Standing:
    """The verdict that stands: since when with this outcome and severity, until when its monitor promised to speak again, and
    when it was heard last (UTC microseconds)."""

    verdict: Verdict
    since_us: int
    valid_until_us: int
    heard_us: int

    def judged(self, now_us: int) -> Verdict:
        """The verdict, or one that says that its monitor is blind where it was to speak again and has not."""
        if now_us <= self.valid_until_us:
            return self.verdict
        silent_s = (now_us - self.heard_us) / US_PER_S
        text = f"blind: nothing heard of {self.verdict.monitor} for {silent_s:.0f} s; before, it said {self.verdict.outcome}"
        evidence: Mapping[str, Finding] = {BLIND: silent_s, "before": str(self.verdict.outcome)}
        return replace(
            self.verdict, outcome=Outcome.INCONCLUSIVE, severity=Severity.PAGE, evidence=evidence, text=text, at_us=now_us
        )


def record_verdicts(workspace: Workspace, verdicts: Sequence[Verdict], *, valid_for_s: float, now_us: int) -> None:
    """Let verdicts stand, in one transaction; a change of outcome or severity is added to the history.

    A verdict that is older than the one that stands, or than the retirement of its subject, is ignored; one of the same
    instant is heard again.

    Args:
        valid_for_s: seconds from ``now_us`` within which the monitor speaks again, unless it is blind.
        now_us: UTC microseconds.
    Raises:
        VerdictError: a verdict names no monitor or no subject, or ``valid_for_s`` is not positive.
        StoreUnavailable: the control database does not answer.
    """
    if not valid_for_s > 0:
        raise _refusal("verdicts", "valid for more than 0 s", f"{valid_for_s:g} s")
    if not verdicts:
        return
    for verdict in verdicts:
        if not verdict.monitor or not verdict.subject:
            raise _refusal(f"{verdict.monitor!r} of {verdict.subject!r}", "a monitor and a subject", "an empty name")
    kept = [_storable(verdict) for verdict in sorted(verdicts, key=lambda each: each.at_us)]
    heard = (now_us, now_us + round(valid_for_s * US_PER_S))
    with open_session(workspace, SCHEMA, write=True, timeout_s=TIMEOUT_S) as session:
        # One query, and one write at the end: all writers of the database wait for this one.
        query = select(StandingRow).where(StandingRow.subject.in_({verdict.subject for verdict in kept}))
        rows = {(row.monitor, row.subject): row for row in session.scalars(query)}
        for verdict in kept:
            _record(session, rows, verdict, heard)
        session.commit()


def renew_verdicts(workspace: Workspace, subject: str, monitors: Sequence[str], *, valid_for_s: float, now_us: int) -> None:
    """Monitors that have nothing new to say of a subject are heard: what stands goes on standing, as it is."""
    if is_absent(workspace):
        return
    with open_session(workspace, SCHEMA, write=True, timeout_s=TIMEOUT_S) as session:
        query = select(StandingRow).where(StandingRow.subject == subject, StandingRow.monitor.in_(monitors))
        for row in session.scalars(query):
            row.heard_us, row.valid_until_us = now_us, now_us + round(valid_for_s * US_PER_S)
        session.commit()


def read_standing(workspace: Workspace, *, subjects: Sequence[str] = (), now_us: int) -> tuple[Standing, ...]:
    """What stands at ``now_us`` of these subjects, or of all; by subject and monitor. Retired subjects have nothing standing.

    Raises:
        StoreUnavailable: the control database does not answer.
    """
    if is_absent(workspace):
        return ()
    query = select(StandingRow).order_by(StandingRow.subject, StandingRow.monitor)
    if subjects:
        query = query.where(StandingRow.subject.in_(subjects))
    with open_session(workspace, SCHEMA, timeout_s=TIMEOUT_S) as session:
        return tuple(
            Standing(_as_verdict(row), row.since_us, row.valid_until_us, row.heard_us)
            for row in session.scalars(query)
            if row.retired_at_us is None or row.retired_at_us > now_us
        )


def read_history(workspace: Workspace, *, since_us: int, subjects: Sequence[str] = ()) -> tuple[Verdict, ...]:
    """Verdicts with which an outcome or severity changed at ``since_us`` (UTC microseconds) or later, in that order."""
    if is_absent(workspace):
        return ()
    query = select(HistoryRow).where(HistoryRow.at_us >= since_us).order_by(HistoryRow.at_us, HistoryRow.id)
    if subjects:
        query = query.where(HistoryRow.subject.in_(subjects))
    with open_session(workspace, SCHEMA, timeout_s=TIMEOUT_S) as session:
        return tuple(_as_verdict(row) for row in session.scalars(query))


def retire(workspace: Workspace, subject: str, now_us: int, *, monitors: Sequence[str] = ()) -> None:
    """A subject is gone, or is no more these monitors' business: nothing stands of it, and nobody is blind to it, until a newer
    verdict is recorded."""
    if is_absent(workspace):
        return
    query = select(StandingRow).where(StandingRow.subject == subject)
    if monitors:
        query = query.where(StandingRow.monitor.in_(monitors))
    with open_session(workspace, SCHEMA, write=True, timeout_s=TIMEOUT_S) as session:
        for row in session.scalars(query):
            row.retired_at_us = row.retired_at_us or now_us
        session.commit()


def _record(
    session: Session, rows: dict[tuple[str, str], StandingRow], verdict: Verdict, heard: tuple[int, int]
) -> None:  # fmt: skip
    """``rows`` are those that stand; ``heard``: when, and until when the verdict is valid."""
    name = (verdict.monitor, verdict.subject)
    row = rows.get(name)
    if row is not None and verdict.at_us < max(row.at_us, row.retired_at_us or 0):
        return
    changed = row is None or row.retired_at_us is not None or (row.outcome, row.severity) != (verdict.outcome, verdict.severity)
    fields = verdict.describe()
    if changed:
        session.add(HistoryRow(**fields))
    if row is None:
        row = rows[name] = StandingRow(monitor=verdict.monitor, subject=verdict.subject)
        session.add(row)
    for key, value in fields.items():
        setattr(row, key, value)
    row.since_us = verdict.at_us if changed else row.since_us
    (row.heard_us, row.valid_until_us), row.retired_at_us = heard, None


def _storable(verdict: Verdict) -> Verdict:
    """JSON of PostgreSQL knows neither NaN nor infinity, its texts no NUL; both may come from what users send."""
    return replace(
        verdict, text=_clean(verdict.text), evidence={name: _clean(value) for name, value in verdict.evidence.items()}
    )


def _clean(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value.replace("\x00", "\ufffd") if isinstance(value, str) else value


def _as_verdict(row: StandingRow | HistoryRow) -> Verdict:
    return read_verdict(vars(row))


def _refusal(which: str, expected: str, got: str) -> VerdictError:
    return VerdictError(explain("verdict refused", which=which, expected=expected, got=got, next_step="correct the monitor"))
