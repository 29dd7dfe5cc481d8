"""Repeated timing of a call: rate, p50, p99 and the processor time that it took."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timing:
    """Of one call, in seconds; ``cpu_s`` is processor time of the whole process."""

    p50_s: float
    p99_s: float
    cpu_s: float

    def rate(self, items: int) -> float:
        """Items a second of one core: by processor time, which other processes on the machine do not stretch."""
        return items / self.cpu_s


def measure(call: Callable[[], object], *, budget_s: float = 1.5, least: int = 5) -> Timing:
    """Time a call repeatedly after one warm-up, for about ``budget_s`` seconds and at least ``least`` times."""
    call()
    times: list[float] = []
    started, cpu = time.perf_counter(), time.process_time()
    while len(times) < least or time.perf_counter() - started < budget_s:
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    cpu_s = (time.process_time() - cpu) / len(times)
    return Timing(float(np.percentile(times, 50)), float(np.percentile(times, 99)), cpu_s)
