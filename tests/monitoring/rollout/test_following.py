"""When a stage's evidence begins, what is judged at a share that was not the plan's, and what is done without a record."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from e2e.rollouts.document_plane import SERVICE
from e2e.rollouts.simulated import PLAN, Town, broken_score, open_town

from monitoring.errors import TrafficUnavailable
from monitoring.rollout.evidence import Evidence
from monitoring.rollout.evidence_json import read_evidence
from monitoring.rollout.journal import Request, request_command
from monitoring.rollout.leader import US_PER_S
from monitoring.rollout.records import read_dossier, read_snapshot
from monitoring.rollout.step import Phase
from monitoring.rollout.traffic import Routing

STAY = replace(PLAN, stages=(replace(PLAN.stages[0], bake_s=3_600),))
"""One stage at 10 % that no test sees the end of."""


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with open_town(tmp_path) as made:
        yield made


class Meddling:
    """A data plane; ``then`` is called once, with the percent, right after the shift to ``at`` has taken hold."""

    def __init__(self, town: Town, at: int, then: Callable[[int], object]) -> None:
        self._traffic, self._at, self._then = town.traffic, at, then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._traffic, name)

    def shift(self, routing: Routing, percent: int) -> Routing:
        after = self._traffic.shift(routing, percent)
        if percent == self._at:
            self._at = -1
            self._then(percent)
        return after


def gathered(town: Town) -> Evidence:
    """What was kept last."""
    snapshot = read_snapshot(town.workspace, 1)
    assert snapshot is not None
    return read_evidence(snapshot.evidence)


def applied_us(town: Town, action: str) -> int:
    step = next(step for step in read_dossier(town.workspace, 1).steps if step.action == action)
    assert step.applied_at_us is not None
    return step.applied_at_us


def test_a_stage_begins_with_the_look_after_the_one_that_moved_traffic(town: Town) -> None:
    moved: list[int] = []
    town.start(STAY)
    town.run(town.controller(traffic=Meddling(town, 10, lambda _percent: moved.append(town.now_us))), seconds=8)
    assert applied_us(town, "start") == moved[0] + US_PER_S
    assert gathered(town).begun_us == moved[0] + US_PER_S


def test_a_change_that_took_hold_though_its_answer_was_lost_counts_from_the_second_look_that_sees_it(town: Town) -> None:
    moved: list[int] = []

    def lose_the_answer(_percent: int) -> None:
        moved.append(town.now_us)
        raise TrafficUnavailable("no answer")

    town.start(STAY)
    town.run(town.controller(traffic=Meddling(town, 10, lose_the_answer)), seconds=8)
    # The first look that sees 10 % cannot know whether that came before it began.
    assert applied_us(town, "start") == moved[0] + 2 * US_PER_S


def test_requests_that_were_routed_at_a_share_raised_by_hand_are_not_counted(town: Town) -> None:
    town.start(STAY)
    controller = town.controller()
    town.run(controller, seconds=4)
    town.traffic.shift(town.traffic.read(SERVICE), 90)
    town.run(controller, seconds=20)
    assert town.percent == 10
    # Some 18 s of 200 requests, 10 % to the canary; the second at 90 % alone would bring 180 of its some 540 requests.
    stable, canary = gathered(town).requests[0]
    assert stable + canary > 3_000
    assert canary / (stable + canary) < 0.13


def test_harm_at_a_share_that_was_lowered_by_hand_takes_it_all(town: Town) -> None:
    town.start(replace(PLAN, stages=(replace(PLAN.stages[1], bake_s=3_600),)))
    controller = town.controller()
    town.run(controller, seconds=6)
    town.traffic.shift(town.traffic.read(SERVICE), 5)
    town.run(controller, seconds=5)
    # Judged at the share that is, not the plan's: these requests are neither harm nor a wrong split of 50 %.
    assert (town.phase, town.percent) == ("paused", 5)
    evidence = gathered(town)
    assert (evidence.percent, evidence.stage) == (5, 0)
    assert evidence.begun_us == applied_us(town, "pause")
    assert [step.action for step in read_dossier(town.workspace, 1).steps] == ["request", "start", "pause"]
    town.answer = broken_score
    town.run(controller, seconds=60, until=lambda: town.phase == "rolled_back")
    assert (town.phase, town.percent) == ("rolled_back", 0)
    assert "score" in town.standing.step.why


def test_a_share_that_is_resumed_gathers_its_evidence_anew(town: Town) -> None:
    town.start(STAY)
    controller = town.controller()
    town.run(controller, seconds=6)
    town.traffic.shift(town.traffic.read(SERVICE), 2)
    town.run(controller, seconds=6)
    request_command(town.workspace, 1, "resume", Request("bob", "it was not the canary", town.now_us))
    town.run(controller, seconds=8)
    evidence = gathered(town)
    assert (town.phase, town.percent, evidence.percent) == ("running", 10, 10)
    assert evidence.begun_us == applied_us(town, "resume")


@pytest.mark.parametrize("text", ["", '{"format":7}', '{"format":2,"evidence":{"type":"Evidence"}}'])
def test_evidence_that_cannot_be_read_is_gathered_anew(town: Town, text: str) -> None:
    town.start(STAY)
    town.run(town.controller(), seconds=8)
    with sqlite3.connect(town.workspace.control_database) as connection:
        connection.execute("UPDATE rollout_evidence SET evidence = ?", (text,))
    connection.close()
    town.now_us += 10 * US_PER_S
    town.run(town.controller("second"), seconds=8)
    assert [line for line in town.told if line.startswith("rollout 1: evidence begins anew: evidence cannot be read")]
    assert (town.phase, town.percent) == ("running", 10)
    assert 0 < gathered(town).requests[0, 1] < 300


def test_a_controller_that_comes_back_after_a_while_does_not_take_its_own_absence_for_silence(town: Town) -> None:
    town.start(STAY)
    town.run(town.controller(), seconds=8)
    town.now_us += 3 * PLAN.blind_s * US_PER_S
    town.run(town.controller("second"), seconds=5)
    assert [step.action for step in read_dossier(town.workspace, 1).steps] == ["request", "start"]


def lock(town: Town) -> sqlite3.Connection:
    """From now on the control database does not answer: another connection keeps it to itself."""
    connection = sqlite3.connect(town.workspace.control_database, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN EXCLUSIVE")
    return connection


def test_harm_at_a_share_that_could_not_be_marked_is_seen_without_the_database(town: Town) -> None:
    locks: list[sqlite3.Connection] = []
    town.start()
    controller = town.controller(traffic=Meddling(town, 50, lambda _percent: locks.append(lock(town))))
    town.run(controller, seconds=30, until=lambda: bool(locks))
    town.answer = broken_score
    town.run(controller, seconds=20, until=lambda: town.percent == 0)
    assert town.percent == 0
    locks[0].close()
    town.run(controller, seconds=15, until=lambda: town.phase == Phase.ROLLED_BACK)
    assert town.phase == "rolled_back"


def test_a_rollback_that_was_recorded_is_done_without_the_database(town: Town) -> None:
    locks: list[sqlite3.Connection] = []

    class Away(Meddling):
        """The plane is away when it is told to roll back, and then the database is."""

        def roll_back(self, routing: Routing) -> Routing:
            if not locks:
                locks.append(lock(town))
                raise TrafficUnavailable("gone")
            return self._traffic.roll_back(routing)

    town.start(STAY)
    controller = town.controller(traffic=Away(town, -1, lambda percent: percent))
    town.run(controller, seconds=6)
    town.answer = broken_score
    town.run(controller, seconds=60, until=lambda: bool(locks))
    assert town.percent == 10
    town.run(controller, seconds=1)
    assert town.percent == 0
    locks[0].close()
    town.run(controller, seconds=5, until=lambda: not town.standing.needs_controller)
    assert town.phase == "rolled_back"
    assert town.traffic.read(SERVICE).canary is None
