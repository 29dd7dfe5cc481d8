"""Readiness: a fresh prediction proves it, else one probe asks the model for whoever wants to know."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from features.errors import PlumblineError
from inference.health import Health


def run(probe: Callable[[], bool], scenario: Callable[[Health], Any]) -> Any:
    health = Health(probe)
    try:
        return asyncio.run(scenario(health))
    finally:
        health.close()


def test_a_fresh_prediction_proves_it_without_a_probe() -> None:
    asked: list[int] = []

    async def scenario(health: Health) -> bool:
        health.prove()
        return await health.answers()

    assert run(lambda: bool(asked.append(1)), scenario) is True
    assert asked == []


def test_a_model_that_fails_is_not_ready_and_is_asked_again() -> None:
    answers = iter([False, True])

    async def scenario(health: Health) -> list[bool]:
        return [await health.answers() for _ in range(3)]

    # The third is proved by the second.
    assert run(lambda: next(answers), scenario) == [False, True, True]

    def refuse() -> bool:
        raise PlumblineError("the model folder is gone")

    assert run(refuse, lambda health: health.answers()) is False


def test_many_that_ask_at_once_share_one_probe() -> None:
    asked: list[int] = []
    gate = threading.Event()

    def probe() -> bool:
        asked.append(1)
        return gate.wait(10)

    async def scenario(health: Health) -> list[bool]:
        tasks = [asyncio.create_task(health.answers()) for _ in range(20)]
        await asyncio.sleep(0.05)
        gate.set()
        return await asyncio.gather(*tasks)

    assert run(probe, scenario) == [True] * 20
    assert asked == [1]


def test_whoever_stops_waiting_does_not_stop_the_probe_for_the_others() -> None:
    gate = threading.Event()

    async def scenario(health: Health) -> bool:
        impatient, patient = (asyncio.create_task(health.answers()) for _ in range(2))
        await asyncio.sleep(0.05)
        impatient.cancel()
        await asyncio.sleep(0.01)
        gate.set()
        return await patient

    assert run(lambda: gate.wait(10), scenario) is True
