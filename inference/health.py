"""Whether the model answers: proved by what it has just answered, else by asking it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Final

from features.errors import PlumblineError

PROOF_S: Final = 1.0
"""A prediction that succeeded so lately proves that the next one can."""
PROBE_TIMEOUT_S: Final = 5.0


class Health:
    """Readiness of a model; cheap however often it is asked, and not held up by the requests that are served meanwhile."""

    def __init__(self, probe: Callable[[], bool]) -> None:
        """Nothing is proved yet.

        Args:
            probe: makes one prediction, blocking, and says whether it succeeded; runs on a thread of its own.
        """
        self._probe = probe
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="health")
        self._proved_at = float("-inf")
        self._probing: asyncio.Future[bool] | None = None

    def prove(self) -> None:
        """A prediction has just succeeded."""
        self._proved_at = monotonic()

    async def answers(self) -> bool:
        """Whether a prediction would succeed now. Whoever asks while a probe is under way gets its result."""
        if monotonic() - self._proved_at < PROOF_S:
            return True
        if self._probing is None or self._probing.done():
            self._probing = asyncio.get_running_loop().run_in_executor(self._executor, self._ask)
        try:
            return await asyncio.wait_for(asyncio.shield(self._probing), PROBE_TIMEOUT_S)
        except TimeoutError:
            return False

    def close(self) -> None:
        """Let a probe under way end."""
        self._executor.shutdown()

    def _ask(self) -> bool:
        try:
            answered = self._probe()
        except PlumblineError:
            return False
        if answered:
            self.prove()
        return answered
