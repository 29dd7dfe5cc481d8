"""Reads the text that KFP's local runner writes, to tell when each step starts and ends and why one failed.

KFP reports through text alone: a failed run is one exception that names the task, and the traceback of the step exists
only in the output of its process.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TextIO

from pipelines.records import StepRecord

COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
STARTED: Final = re.compile(r"^[\d:.]+ - INFO - Executing task '([^']+)'$")
ENDED: Final = re.compile(r"^[\d:.]+ - (?:INFO|ERROR) - Task '([^']+)' finished with status (SUCCESS|FAILURE)$")
ERROR_LINE: Final = re.compile(r"^(?:[A-Za-z_]\w*\.)*([A-Z]\w*): \S")
MAX_REASON_CHARS: Final = 600


class StepWatch(io.TextIOBase):
    """A text stream that stands in for standard output while a pipeline runs.

    It writes every line to ``log`` and keeps one ``StepRecord`` a step, in the given order.

    Args:
        names: the pipeline's steps in the order in which they will be shown.
        log: receives all text.
        clock: seconds, monotonic.
        notify: called with all steps whenever one changes.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        log: TextIO,
        *,
        clock: Callable[[], float],
        notify: Callable[[tuple[StepRecord, ...]], None],
    ) -> None:
        self._steps: dict[str, StepRecord] = {name: StepRecord(name) for name in names}
        self._log = log
        self._clock = clock
        self._notify = notify
        self._part = ""
        self._running = ""
        self._started_s = 0.0
        self._last_line = ""
        self._error_line = ""

    @property
    def steps(self) -> tuple[StepRecord, ...]:
        return tuple(self._steps.values())

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._log.write(text)
        self._log.flush()
        *lines, self._part = (self._part + text).split("\n")
        for line in lines:
            self._read(COLOUR.sub("", line))
        return len(text)

    def end(self) -> None:
        """No more text will come: steps that never started were skipped, one still running has failed."""
        if self._running:
            self._close(self._running, succeeded=False)
        for name, step in self._steps.items():
            if step.status == "waiting":
                self._steps[name] = replace(step, status="skipped")
        self._notify(self.steps)

    def _read(self, line: str) -> None:
        started, ended = STARTED.match(line), ENDED.match(line)
        if started:
            self._open(started[1])
        elif ended:
            self._close(ended[1], succeeded=ended[2] == "SUCCESS")
        elif self._running and line.strip():
            self._last_line = line.strip()
            if ERROR_LINE.match(self._last_line):
                self._error_line = self._last_line

    def _open(self, name: str) -> None:
        self._running, self._started_s = name, self._clock()
        self._last_line = self._error_line = ""
        step = self._steps.get(name, StepRecord(name))
        self._steps[name] = replace(step, status="running", attempts=step.attempts + 1, reason="")
        self._notify(self.steps)

    def _close(self, name: str, *, succeeded: bool) -> None:
        step = self._steps[name]
        reason = "" if succeeded else reason_of(self._error_line or self._last_line)
        seconds = step.seconds + self._clock() - self._started_s
        self._steps[name] = replace(step, status="succeeded" if succeeded else "failed", seconds=seconds, reason=reason)
        self._running = ""
        self._notify(self.steps)


def reason_of(error_line: str) -> str:
    """The last line of a traceback without the exception's module path.

    Example:
        >>> reason_of("features.errors.EventLogError: event log is missing: user")
        'EventLogError: event log is missing: user'
    """
    found = ERROR_LINE.match(error_line)
    text = error_line[found.start(1) :] if found else error_line or "the step wrote nothing; see the log"
    return text[:MAX_REASON_CHARS]


def failed_step(steps: tuple[StepRecord, ...]) -> StepRecord | None:
    """The step that ended a run, if one did."""
    return next((step for step in steps if step.status == "failed"), None)
