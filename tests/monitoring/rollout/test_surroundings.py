"""What others say of a rollout is weighed like the gates' own verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from e2e.rollouts.simulated import PLAN, Town, open_town

from features.errors import EventLogError
from monitoring.rollout.records import Standing
from monitoring.rollout.traffic import Routing
from monitoring.verdicts import Outcome, Severity, Verdict

ONE_STAGE = replace(PLAN, stages=PLAN.stages[:1])


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with open_town(tmp_path) as made:
        yield made


def drift(outcome: Outcome, severity: Severity, now_us: int) -> Verdict:
    return Verdict("drift.stable.features", "churn/canary-1", outcome, severity, {}, "drift: of age", now_us)


def test_a_monitor_that_has_found_nothing_yet_holds_and_one_that_passes_lets_it_go_on(town: Town) -> None:
    outcome = Outcome.INCONCLUSIVE
    asked: list[tuple[int, str, int]] = []

    def monitors(standing: Standing, routing: Routing, now_us: int) -> Sequence[Verdict]:
        asked.append((standing.facts.id, routing.stable_name, now_us))
        return (drift(outcome, Severity.PAGE, now_us),)

    town.start(ONE_STAGE)
    controller = town.controller(monitors=monitors)
    town.run(controller, seconds=25)
    assert (town.phase, town.percent) == ("running", 10)
    assert asked[-1] == (1, "stable", town.now_us)
    outcome = Outcome.PASS
    town.run(controller, seconds=5, until=lambda: town.phase == "promoted")
    assert town.phase == "promoted"


def test_a_monitors_harm_takes_the_canary_back(town: Town) -> None:
    town.start(ONE_STAGE)
    town.run(town.controller(monitors=lambda _standing, _routing, now_us: (drift(Outcome.FAIL, Severity.ROLL_BACK, now_us),)),
             seconds=10, until=lambda: town.phase == "rolled_back")  # fmt: skip
    assert town.standing.step.why == "drift: of age"
    assert town.percent == 0


def test_monitors_that_cannot_be_asked_hold_the_rollout_and_say_why(town: Town) -> None:
    def monitors(standing: Standing, routing: Routing, now_us: int) -> Sequence[Verdict]:
        raise EventLogError("verdicts\nare damaged")

    town.start(ONE_STAGE)
    town.run(town.controller(monitors=monitors), seconds=50)
    assert town.percent == 10
    assert (town.standing.step.action, town.standing.step.why) == (
        "page", "inconclusive: monitors cannot be asked: verdicts are damaged",
    )  # fmt: skip
