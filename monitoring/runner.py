"""Monitors in turn: each is called when it is due, what it says is recorded, and one that raises is a verdict itself.

Nothing here is kept: a monitor judges from what lies on disk and in the control database, verdicts of the same instant are
heard again and not added, so a process that is killed anywhere and started again says the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from features.errors import PlumblineError
from features.layout import US_PER_S
from monitoring.verdicts import Outcome, Severity, Verdict

_log = logging.getLogger(__name__)

GRACE: Final = 3
"""A monitor has promised to speak again within so many of its intervals; then it is blind."""
LEAST_VALID_S: Final = 600.0
"""One loop calls all: a monitor that reads long must not make the others blind."""


class Record(Protocol):
    """Where verdicts go."""

    def __call__(self, verdicts: Sequence[Verdict], *, valid_for_s: float, now_us: int) -> None: ...


@dataclass(frozen=True)
class Monitor:
    """One monitor of one subject.

    Attributes:
        name, subject: it says at least one thing in every round, under these.
        interval_s: how often it is called.
        judge: gets ``now`` (UTC microseconds); its verdicts may be about other subjects, too.
    """

    name: str
    subject: str
    interval_s: float
    judge: Callable[[int], Iterable[Verdict]]

    @property
    def valid_for_s(self) -> float:
        """For how long what it says stands."""
        return max(GRACE * self.interval_s, LEAST_VALID_S)


@dataclass
class Round:
    """What one round did: verdicts given, monitors called, and those that raised, with their one-line errors."""

    verdicts: list[Verdict] = field(default_factory=list)
    called: list[Monitor] = field(default_factory=list)
    errors: list[tuple[Monitor, str]] = field(default_factory=list)


class Runner:
    """Calls monitors when they are due; for one thread."""

    def __init__(self, monitors: Sequence[Monitor], record: Record) -> None:
        self._monitors = monitors
        self._record = record
        self._due_us = [0] * len(monitors)

    def call_due(self, now_us: int, clock: Callable[[], int] | None = None) -> Round:
        """Call every monitor whose time has come.

        What cannot be recorded is tried again with the next round: the monitor stays due.

        Args:
            clock: asked before each monitor, for rounds that take long; ``now_us`` where left out.
        """
        done = Round()
        for number, monitor in enumerate(self._monitors):
            wait_us = self._due_us[number] - now_us
            if 0 < wait_us <= monitor.interval_s * US_PER_S:  # longer: the clock was set back
                continue
            at_us = clock() if clock else now_us
            verdicts = self._call(monitor, at_us, done)
            if self._keep(monitor, verdicts, clock() if clock else now_us, done):
                self._due_us[number] = at_us + round(monitor.interval_s * US_PER_S)
        return done

    def _call(self, monitor: Monitor, now_us: int, done: Round) -> list[Verdict]:
        done.called.append(monitor)
        try:
            verdicts = list(monitor.judge(now_us))
        except (PlumblineError, OSError) as error:
            return [_report_failure(monitor, error, now_us, done)]
        except Exception as error:  # noqa: BLE001 - the edge of supervision
            # A fault in one monitor's code must not blind the others. Nobody foresaw it, so it is told in full.
            _log.exception("%s of %s: unexpected", monitor.name, monitor.subject)
            return [_report_failure(monitor, error, now_us, done)]
        if not any((verdict.monitor, verdict.subject) == (monitor.name, monitor.subject) for verdict in verdicts):
            verdicts.append(
                Verdict(monitor.name, monitor.subject, Outcome.PASS, Severity.PAGE, {"verdicts": len(verdicts)},
                        f"the monitor has looked and said {len(verdicts)} things", now_us)
            )  # fmt: skip
        return verdicts

    def _keep(self, monitor: Monitor, verdicts: list[Verdict], now_us: int, done: Round) -> bool:
        done.verdicts += verdicts
        try:
            self._record(verdicts, valid_for_s=monitor.valid_for_s, now_us=now_us)
        except (PlumblineError, OSError) as error:  # whoever reads finds the verdict that stood, and in time a blind one
            done.errors.append((monitor, " ".join(f"verdicts cannot be recorded: {error}".split())))
            return False
        return True


def _report_failure(monitor: Monitor, error: Exception, now_us: int, done: Round) -> Verdict:
    """Count what a monitor raised; what it says in the place of a judgement: that it cannot judge."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    done.errors.append((monitor, line))
    return Verdict(monitor.name, monitor.subject, Outcome.INCONCLUSIVE, Severity.PAGE, {"error": line},
                   f"the monitor failed: {line}", now_us)  # fmt: skip
