"""Merging: whoever waits at the same time shares a call; errors, cancelling and bounds stay each request's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from features.errors import PlumblineError, StoreUnavailable
from inference.merging import MergeLimits, Merger, Overloaded


class Doubling:
    """Doubles integers, together; waits at a gate, refuses 13, and remembers which were asked together."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, requests: Sequence[int]) -> list[int]:
        self.batches.append(list(requests))
        assert self.gate.wait(10)
        if 13 in requests:
            raise PlumblineError("13 is not doubled")
        return [2 * request for request in requests]


def run(work: Doubling, limits: MergeLimits, scenario: Any) -> Any:
    async def play() -> Any:
        with ThreadPoolExecutor(limits.batches) as executor:
            return await scenario(Merger[int, int](work, executor, limits))

    return asyncio.run(play())


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0.01)


def test_a_lone_request_starts_at_once_and_alone() -> None:
    work = Doubling()

    async def scenario(merger: Merger[int, int]) -> list[int]:
        return [await merger.submit(number, 1) for number in range(3)]

    # Were it to wait for company, three requests would take three minutes.
    limits = MergeLimits(wait_s=60)
    assert run(work, limits, lambda merger: asyncio.wait_for(scenario(merger), 5)) == [0, 2, 4]
    assert work.batches == [[0], [1], [2]]


def test_requests_that_arrive_while_a_batch_runs_form_the_next_one_in_order() -> None:
    work = Doubling()

    async def scenario(merger: Merger[int, int]) -> list[int]:
        work.gate.clear()
        tasks = [asyncio.create_task(merger.submit(number, 1)) for number in range(6)]
        await settle()
        work.gate.set()
        return await asyncio.gather(*tasks)

    assert run(work, MergeLimits(batches=1), scenario) == [0, 2, 4, 6, 8, 10]
    assert work.batches == [[0], [1, 2, 3, 4, 5]]


def test_a_second_batch_runs_beside_the_first_once_it_has_waited_or_is_large() -> None:
    async def scenario(merger: Merger[int, int]) -> list[int]:
        work.gate.clear()
        tasks = [asyncio.create_task(merger.submit(number, 10)) for number in range(4)]
        await settle()
        started = [list(batch) for batch in work.batches]
        work.gate.set()
        await asyncio.gather(*tasks)
        return started

    work = Doubling()
    assert run(work, MergeLimits(wait_s=0.001), scenario) == [[0], [1, 2, 3]]
    work = Doubling()
    assert run(work, MergeLimits(wait_s=60, full_rows=20), scenario) == [[0], [1, 2]]
    work = Doubling()
    assert run(work, MergeLimits(wait_s=60), scenario) == [[0]]


def test_a_batch_takes_no_more_than_its_bound_but_always_one() -> None:
    work = Doubling()

    async def scenario(merger: Merger[int, int]) -> None:
        work.gate.clear()
        tasks = [asyncio.create_task(merger.submit(number, rows)) for number, rows in enumerate([1, 4, 4, 4, 99])]
        await settle()
        work.gate.set()
        await asyncio.gather(*tasks)

    run(work, MergeLimits(batches=1, max_rows=8), scenario)
    assert work.batches == [[0], [1, 2], [3], [4]]


def test_a_request_at_fault_is_found_and_its_neighbours_get_their_answers() -> None:
    work = Doubling()

    async def scenario(merger: Merger[int, int]) -> list[Any]:
        work.gate.clear()
        tasks = [asyncio.create_task(merger.submit(number, 1)) for number in (0, 1, 13, 2, 3, 13)]
        await settle()
        work.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = run(work, MergeLimits(batches=1), scenario)
    assert [answers[place] for place in (0, 1, 3, 4)] == [0, 2, 4, 6]
    assert [str(answers[place]) for place in (2, 5)] == ["13 is not doubled"] * 2
    # Of [1, 13 | 2, 3, 13] both halves fail, and their halves in turn.
    assert work.batches[:4] == [[0], [1, 13, 2, 3, 13], [1, 13], [2, 3, 13]]


def test_a_failure_that_all_share_is_everybodys_at_once_and_asked_for_once() -> None:
    class Down(Doubling):
        def __call__(self, requests: Sequence[int]) -> list[int]:
            done = super().__call__(requests)
            if len(self.batches) == 2:
                raise StoreUnavailable("store is down")
            return done

    work = Down()

    async def scenario(merger: Merger[int, int]) -> list[Any]:
        work.gate.clear()
        tasks = [asyncio.create_task(merger.submit(number, 1)) for number in range(9)]
        await settle()
        work.gate.set()
        return [*await asyncio.gather(*tasks, return_exceptions=True), await merger.submit(9, 1)]

    first, *others, last = run(work, MergeLimits(batches=1), scenario)
    assert (first, last) == (0, 18)
    assert [str(answer) for answer in others] == ["store is down"] * 8
    assert work.batches == [[0], [1, 2, 3, 4, 5, 6, 7, 8], [9]]


def test_a_cancelled_request_leaves_the_queue_and_harms_nobody() -> None:
    work = Doubling()

    async def scenario(merger: Merger[int, int]) -> list[int]:
        work.gate.clear()
        tasks = [asyncio.create_task(merger.submit(number, 1)) for number in range(4)]
        await settle()
        for cancelled in (0, 2):  # one is under way, one waits
            tasks[cancelled].cancel()
        await settle()
        work.gate.set()
        return await asyncio.gather(tasks[1], tasks[3])

    assert run(work, MergeLimits(batches=1), scenario) == [2, 6]
    assert work.batches == [[0], [1, 3]]


def test_more_than_may_wait_is_refused_but_a_large_request_is_taken_when_nothing_waits() -> None:
    work = Doubling()

    async def scenario(merger: Merger[int, int]) -> list[int]:
        assert await merger.submit(1, 500) == 2
        work.gate.clear()
        tasks = [asyncio.create_task(merger.submit(number, 60)) for number in range(2)]
        await settle()
        with pytest.raises(Overloaded, match="server is overloaded: waiting requests"):
            await merger.submit(9, 60)
        work.gate.set()
        return await asyncio.gather(*tasks)

    assert run(work, MergeLimits(batches=1, max_waiting_rows=100), scenario) == [0, 2]
