"""Requests that wait at the same time are answered together: one lookup and one graph call for all of them.

Nothing waits for company that may not come: while no batch is under way, a request starts at once, and whoever arrives
meanwhile forms the next batch. A second batch runs beside the first only if it is worth it, by its size or by how long its
oldest request has waited. The busier a server is, the larger its batches are, and the less a request costs (Crankshaw et
al., Clipper, NSDI 2017, batch by delay; here no delay is added).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from time import perf_counter
from typing import Generic, TypeVar

from features.errors import TemporaryError, explain

Request = TypeVar("Request")
Answer = TypeVar("Answer")

Work = Callable[[Sequence[Request]], Sequence[Answer]]
"""Answers requests together, in their order; raises where it cannot answer one of them, ``TemporaryError`` where it can answer
none of them now."""


class Overloaded(TemporaryError):
    """More requests wait than the server lets wait; the caller should try again later, or elsewhere."""


@dataclass(frozen=True)
class MergeLimits:
    """How large batches grow and how much waits.

    Attributes:
        batches: most batches under way, each on a thread.
        max_rows: a batch takes no further request once it has so many scores.
        full_rows: so many waiting scores start a batch beside another one.
        wait_s: so does a request that has waited for so long.
        max_waiting_rows: a request that would make more scores wait is refused, unless nothing waits.
    """

    batches: int = 2
    max_rows: int = 2_048
    full_rows: int = 512
    wait_s: float = 0.002
    max_waiting_rows: int = 50_000


@dataclass(eq=False)
class _Waiting(Generic[Request, Answer]):
    request: Request
    rows: int
    future: asyncio.Future[Answer]
    since: float


class Merger(Generic[Request, Answer]):
    """Merges the requests of one event loop; ``submit`` is called there, the work runs in an executor."""

    def __init__(
        self,
        work: Work[Request, Answer],
        executor: Executor,
        limits: MergeLimits,
        observe_wait: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """Merge nothing yet.

        Args:
            work: answers requests together; called from the executor's threads.
            executor: has at least ``limits.batches`` threads.
            limits: see ``MergeLimits``.
            observe_wait: told for each request how many seconds it has waited for its batch.
        """
        self._work = work
        self._executor = executor
        self._limits = limits
        self._observe_wait = observe_wait
        self._waiting: deque[_Waiting[Request, Answer]] = deque()
        self._halves: deque[list[_Waiting[Request, Answer]]] = deque()
        """Of batches that failed."""
        self._waiting_rows = 0
        self._running = 0
        self._timer: asyncio.TimerHandle | None = None

    async def submit(self, request: Request, rows: int) -> Answer:
        """The request's own answer, whoever shared its batch; cancelling takes it out of the queue.

        Args:
            rows: how many scores it asks for.

        Raises:
            Overloaded: too many scores wait.
            Exception: what ``work`` raised for this request.
        """
        if self._waiting_rows and self._waiting_rows + rows > self._limits.max_waiting_rows:
            raise Overloaded(
                explain("server is overloaded", which="waiting requests", got=f"{self._waiting_rows} scores wait",
                        expected=f"at most {self._limits.max_waiting_rows}", next_step="try again later")
            )  # fmt: skip
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(request, rows, future, perf_counter()))
        self._waiting_rows += rows
        self._start_batches()
        return await future

    def _start_batches(self) -> None:
        while self._running < self._limits.batches and (batch := self._next_batch()):
            self._run(batch)
        if self._waiting and self._running < self._limits.batches and self._timer is None:
            patience_s = self._waiting[0].since + self._limits.wait_s - perf_counter()
            self._timer = asyncio.get_running_loop().call_later(max(patience_s, 0), self._lose_patience)

    def _lose_patience(self) -> None:
        self._timer = None
        self._start_batches()

    def _next_batch(self) -> list[_Waiting[Request, Answer]]:
        """The next requests to run, or none if they should wait for company."""
        while self._halves:
            if half := [waiting for waiting in self._halves.popleft() if not waiting.future.done()]:
                return half
        now = perf_counter()
        while self._waiting and self._waiting[0].future.done():
            self._waiting_rows -= self._waiting.popleft().rows
        if not self._waiting:
            return []
        worth_it = self._waiting_rows >= self._limits.full_rows or now - self._waiting[0].since >= self._limits.wait_s
        if self._running and not worth_it:
            return []
        batch: list[_Waiting[Request, Answer]] = []
        rows = 0
        while self._waiting and (not batch or rows + self._waiting[0].rows <= self._limits.max_rows):
            waiting = self._waiting.popleft()
            self._waiting_rows -= waiting.rows
            if not waiting.future.done():
                batch.append(waiting)
                rows += waiting.rows
                self._observe_wait(now - waiting.since)
        return batch

    def _run(self, batch: list[_Waiting[Request, Answer]]) -> None:
        loop = asyncio.get_running_loop()
        self._running += 1
        done = self._executor.submit(self._work, [waiting.request for waiting in batch])

        def hand_over(finished: Future[Sequence[Answer]]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._finish, batch, finished)

        done.add_done_callback(hand_over)

    def _finish(self, batch: list[_Waiting[Request, Answer]], finished: Future[Sequence[Answer]]) -> None:
        self._running -= 1
        error = finished.exception()
        if error is None:
            for waiting, answer in zip(batch, finished.result(), strict=True):
                if not waiting.future.done():
                    waiting.future.set_result(answer)
        elif isinstance(error, TemporaryError):
            # What is down for one is down for all: asking for each half again would only double the load on it.
            for waiting in batch:
                if not waiting.future.done():
                    waiting.future.set_exception(error)
        elif len(batch) > 1:
            # One of them is at fault, and the others must not suffer for it: it is found by halving.
            self._halves += [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
        elif not batch[0].future.done():
            batch[0].future.set_exception(error)
        self._start_batches()
