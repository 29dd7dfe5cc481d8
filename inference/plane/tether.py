"""Ends a server process with the plane that started it, however the plane ended: no orphan keeps a port or answers anyone.

The plane holds the other end of the process's standard input and never writes to it. When the plane is gone, killed or not,
the system closes it, and a thread here that waits for that tells the process to stop. (Linux could send a signal instead,
PR_SET_PDEATHSIG, but only on the end of the thread that forked, and only one signal: this one asks before it insists.)
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Final

STDIN: Final = 0
GRACE_S: Final = 15.0


def hold(grace_s: float = GRACE_S) -> None:
    """From now on, end this process once its standard input closes: SIGTERM, and SIGKILL if that took too long."""
    threading.Thread(target=_end_with_input, args=(grace_s,), name="tether", daemon=True).start()


def _end_with_input(grace_s: float) -> None:
    while os.read(STDIN, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os.kill(os.getpid(), signal.SIGKILL)
