"""Several ``plumb stream`` processes as one: started together, stopped together, and none goes on without the others."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType

POLL_S = 0.1
STOP_TIMEOUT_S = 60

_STOPPING = threading.Event()


def divide(partitions: Sequence[int], workers: int) -> list[list[int]]:
    """Partitions of each worker; fewer workers where there are fewer partitions.

    Example:
        >>> divide(range(5), 2)
        [[0, 2, 4], [1, 3]]
    """
    return [list(partitions[index::workers]) for index in range(min(workers, len(partitions)))]


def on_stop(act: Callable[[], None]) -> None:
    """Call ``act`` on SIGTERM and on Ctrl-C."""

    def handle(_signal: int, _frame: FrameType | None) -> None:
        act()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


def request_stop() -> None:
    """Ask the stream of this process to end."""
    _STOPPING.set()


def stop_requested() -> bool:
    """Whether this process was asked to end."""
    return _STOPPING.is_set()


def wait_for_stop(seconds: float) -> None:
    """Sleep, but no longer than until this process is asked to end."""
    _STOPPING.wait(seconds)


def run_workers(commands: Sequence[Sequence[str]]) -> int:
    """Run ``plumb`` with each of these argument lists until all have ended or one has failed.

    Returns:
        0, or the exit code of the first that failed; the others have then been stopped.
    """
    entry = [sys.executable, "-c", "from plumb.app import main; main()"]
    processes = [subprocess.Popen([*entry, *command]) for command in commands]

    def stop() -> None:
        request_stop()
        for process in processes:
            if process.poll() is None:
                process.terminate()

    def failure() -> int:
        """Exit code of a worker that failed; one that was told to end before it could listen has not."""
        codes = [process.returncode for process in processes if process.returncode]
        return next((code for code in codes if not (stop_requested() and code == -signal.SIGTERM)), 0)

    on_stop(stop)
    failed = 0
    try:
        if stop_requested():
            stop()
        while any(process.poll() is None for process in processes) and not failed:
            failed = failure()
            time.sleep(POLL_S)
        if failed:
            stop()
        for process in processes:
            process.wait(STOP_TIMEOUT_S)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return failed or failure()
