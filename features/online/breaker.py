"""A circuit breaker: after some failures in a row nobody asks for a while, then one call tries."""

from __future__ import annotations

from threading import Lock
from typing import Final, Literal

from features import layout

CLOSED: Final = "closed"
OPEN: Final = "open"
HALF_OPEN: Final = "half_open"
State = Literal["closed", "open", "half_open"]


class Breaker:
    """Closed: every call may go. Open: none may. Half-open: one call tries, and its result closes or opens again.

    Safe to use from several threads; time is an argument, UTC microseconds.
    """

    def __init__(self, failures_to_open: int, open_s: float) -> None:
        self._failures_to_open = failures_to_open
        self._open_us = round(open_s * layout.US_PER_S)
        self._failures = 0
        self._state: State = CLOSED
        self._waits_until_us = 0
        self._lock = Lock()

    @property
    def state(self) -> State:
        """Closed, open or half-open, as the last call left it."""
        return self._state

    def allows(self, now_us: int) -> bool:
        """Whether a call may go now; whoever is allowed must tell how it went."""
        if self._state == CLOSED:
            return True
        with self._lock:
            if now_us < self._waits_until_us:
                return False
            # A trial that never tells how it went does not hold up the next one for longer than the first waited.
            self._state, self._waits_until_us = HALF_OPEN, now_us + self._open_us
            return True

    def succeeded(self) -> None:
        """A call was answered."""
        if self._failures or self._state != CLOSED:
            with self._lock:
                self._state, self._failures = CLOSED, 0

    def failed(self, now_us: int) -> None:
        """A call was not answered."""
        with self._lock:
            self._failures += 1
            if self._state == HALF_OPEN or self._failures >= self._failures_to_open:
                self._state, self._waits_until_us = OPEN, now_us + self._open_us
