"""A run that brings labels in, in a process of its own that kills itself in the middle."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from components.served_labels import label_served
from features.workspace import Workspace

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["components.served_labels"])

FOLLOWED = ("components/served_labels.py", "features/served_labels.py", "features/delta.py")


def label_and_die(root: Path, now_us: int, calls: int) -> None:
    """Label churn, two rows at a time, but die by signal 9 at the n-th call or return within the modules that do it."""

    def die(count: int) -> None:
        if count == calls:
            os.kill(os.getpid(), signal.SIGKILL)

    label_and_count(root, now_us, die)


def label_and_count(root: Path, now_us: int, tell: Callable[[int], None] = lambda count: None) -> int:
    """How many calls and returns there are in a whole run."""
    count = 0

    def follow(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        if event in ("call", "return") and frame.f_code.co_filename.endswith(FOLLOWED):
            count += 1
            tell(count)

    sys.setprofile(follow)
    try:
        label_served(Workspace(root), "churn", now_us=now_us, rows_a_commit=2)
    finally:
        sys.setprofile(None)
    return count
