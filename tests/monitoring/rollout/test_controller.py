"""The controller under a hand clock, on both control databases where it matters."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from e2e.rollouts.document_plane import SERVICE
from e2e.rollouts.simulated import PLAN, Town, broken_score, open_town

from monitoring.errors import RolloutError, TrafficUnavailable
from monitoring.rollout.journal import Request, request_command
from monitoring.rollout.records import read_dossier
from monitoring.rollout.traffic import Routing, Target, Traffic


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with open_town(tmp_path) as made:
        yield made


@pytest.fixture
def either_town(tmp_path: Path, control_url: str) -> Iterator[Town]:
    with open_town(tmp_path, control_url) as made:
        yield made


def ask(town: Town, action: str, number: int = 1) -> None:
    request_command(town.workspace, number, action, Request("bob", f"wants to {action}", town.now_us))


def test_a_good_canary_goes_through_its_stages_and_becomes_champion(either_town: Town) -> None:
    town = either_town
    town.start()
    town.run(town.controller(), seconds=60, until=lambda: town.phase == "promoted" and not town.standing.needs_controller)
    steps = read_dossier(town.workspace, 1).steps
    assert [(step.action, step.percent, step.who) for step in steps] == [
        ("request", 0, "ann"), ("start", 10, "controller"), ("shift", 50, "controller"), ("promote", 100, "controller"),
    ]  # fmt: skip
    assert all(step.applied_at_us is not None for step in steps)
    routing = town.traffic.read(SERVICE)
    assert (routing.stable.version, routing.stable_name, routing.canary) == (2, "canary-1", None)
    assert town.registry.champions == {"churn": 2}
    assert town.registry.reasons == ["rollout 1, promote by controller: every gate passed at 50 %"]
    # One change of the document a step: the canary at 0 %, its two shares, the promotion.
    assert town.plane.history == [0, 10, 50, 0]


def test_a_canary_whose_score_is_broken_goes_back_to_nothing(either_town: Town) -> None:
    town = either_town
    town.answer = broken_score
    town.start()
    took_s = town.run(town.controller(), seconds=120, until=lambda: not town.standing.needs_controller)
    assert took_s < 60
    last = town.standing.step
    assert (last.action, last.percent, last.who) == ("rollback", 0, "controller")
    assert last.applied_at_us is not None
    assert "score" in last.why
    assert town.traffic.read(SERVICE).canary is None
    assert town.registry.champions == {"churn": 1}
    failed = [entry for entry in read_dossier(town.workspace, 1).outcomes if entry.outcome == "fail"]
    assert {entry.monitor for entry in failed} == {"score"}


def test_a_stage_is_judged_only_on_requests_that_were_routed_in_it(town: Town) -> None:
    town.start()
    controller = town.controller()
    town.plane.unready.add("canary-1")
    town.run(controller, seconds=10)
    assert (town.phase, town.percent, town.standing.step.applied_at_us) == ("running", 0, None)
    town.plane.unready.clear()
    town.run(controller, seconds=2)
    applied_us = town.standing.step.applied_at_us
    assert town.percent == 10
    assert applied_us is not None
    # It loaded for ten seconds; its five seconds of baking begin only now.
    took_s = town.run(controller, seconds=30, until=lambda: town.percent == 50)
    assert 4 <= took_s <= 8


def test_a_canary_that_dies_of_its_first_requests_is_judged_and_not_waited_for(town: Town) -> None:
    town.start()
    controller = town.controller()
    town.run(controller, seconds=10, until=lambda: town.percent == 10)
    assert town.standing.step.applied_at_us is None
    town.plane.unready.add("canary-1")
    town.run(controller, seconds=2)
    assert (town.phase, town.percent) == ("running", 10)
    assert town.standing.step.applied_at_us is not None


def test_a_canary_that_never_answers_is_taken_off(town: Town) -> None:
    town.start()
    town.plane.unready.add("canary-1")
    town.run(town.controller(), seconds=40, until=lambda: town.phase == "rolled_back")
    assert town.standing.step.why == "the canary's model did not answer within 20 s"
    assert town.traffic.read(SERVICE).canary is None
    assert set(town.plane.history) == {0}


def test_pause_holds_the_weight_and_resume_goes_on(town: Town) -> None:
    town.start()
    controller = town.controller()
    town.run(controller, seconds=4)
    ask(town, "pause")
    town.run(controller, seconds=30)
    assert (town.phase, town.percent) == ("paused", 10)
    ask(town, "resume")
    town.run(controller, seconds=60, until=lambda: town.phase == "promoted")
    actions = [(step.action, step.who, step.why) for step in read_dossier(town.workspace, 1).steps]
    assert actions[2:4] == [("pause", "bob", "wants to pause"), ("resume", "bob", "wants to resume")]


def test_harm_takes_a_paused_canary_back_too(town: Town) -> None:
    town.start()
    controller = town.controller()
    town.run(controller, seconds=4)
    ask(town, "pause")
    town.run(controller, seconds=2)
    town.answer = broken_score
    town.run(controller, seconds=120, until=lambda: town.phase == "rolled_back")
    assert town.percent == 0


@pytest.mark.parametrize(
    ("action", "phase", "version"), [("abort", "aborted", 1), ("promote", "promoted", 2), ("rollback", "rolled_back", 1)]
)
def test_a_person_may_end_it_at_any_time(town: Town, action: str, phase: str, version: int) -> None:
    town.start()
    controller = town.controller()
    town.run(controller, seconds=4)
    ask(town, action)
    town.run(controller, seconds=2)
    assert (town.phase, town.standing.step.who) == (phase, "bob")
    routing = town.traffic.read(SERVICE)
    assert (routing.stable.version, routing.canary) == (version, None)
    assert town.registry.champions == {"churn": version}


def test_a_rollback_after_the_promotion_restores_the_version_before(town: Town) -> None:
    town.start()
    controller = town.controller()
    town.run(controller, seconds=60, until=lambda: town.phase == "promoted" and not town.standing.needs_controller)
    ask(town, "rollback")
    town.run(controller, seconds=5)
    assert (town.phase, town.standing.step.action, town.standing.step.who) == ("rolled_back", "restore", "bob")
    assert not town.standing.needs_controller
    routing = town.traffic.read(SERVICE)
    assert (routing.stable.version, routing.stable_name, routing.canary) == (1, "restored-1", None)
    assert town.registry.champions == {"churn": 1}
    with pytest.raises(RolloutError, match="rollout cannot be changed so: rollback of rollout 1"):
        ask(town, "rollback")


def test_a_rollback_of_what_is_no_longer_served_is_refused_with_a_reason(town: Town) -> None:
    town.start()
    controller = town.controller()
    town.run(controller, seconds=60, until=lambda: town.phase == "promoted" and not town.standing.needs_controller)
    town.start(canary=3, stable=2)
    town.run(controller, seconds=60, until=lambda: town.phase == "promoted" and not town.standing.needs_controller)
    ask(town, "rollback", number=1)
    town.run(controller, seconds=2)
    (command,) = read_dossier(town.workspace, 1).commands
    told = "refused: rollout is no longer what is served: rollout 1 of churn; expected churn version 2; got churn version 3;"
    assert command.result.startswith(told)
    assert town.traffic.read(SERVICE).stable.version == 3


def test_of_two_controllers_one_acts_and_the_other_takes_over_when_it_is_gone(either_town: Town) -> None:
    town = either_town
    town.start()
    first, second = town.controller("first"), town.controller("second")
    town.run(first, second, seconds=4)
    assert (first.acts, second.acts) == (True, False)
    tokens = {step.token for step in read_dossier(town.workspace, 1).steps}
    town.run(second, seconds=80, until=lambda: town.phase == "promoted")
    assert second.acts
    later = {step.token for step in read_dossier(town.workspace, 1).steps} - tokens
    assert min(later) > max(tokens)
    first.tick(town.now_us)
    assert not first.acts


def test_nothing_is_promoted_while_nothing_is_seen_and_it_pages_once(town: Town) -> None:
    town.start(replace(PLAN, stages=PLAN.stages[:1]))
    controller = town.controller()
    town.run(controller, seconds=4)
    town.silent = True
    town.run(controller, seconds=90)
    assert (town.phase, town.percent) == ("running", 10)
    assert [step.action for step in read_dossier(town.workspace, 1).steps] == ["request", "start", "page"]
    assert "nothing seen of stable and canary" in town.standing.step.why
    town.silent = False
    town.run(controller, seconds=60, until=lambda: town.phase == "promoted")
    assert town.phase == "promoted"


def test_a_share_that_was_lowered_by_hand_stays_lowered_until_somebody_resumes(town: Town) -> None:
    town.start()
    controller = town.controller()
    town.run(controller, seconds=3)
    town.traffic.shift(town.traffic.read(SERVICE), 1)
    town.run(controller, seconds=20)
    assert (town.phase, town.percent, town.standing.step.who) == ("paused", 1, "plane")
    ask(town, "resume")
    town.run(controller, seconds=2)
    assert (town.phase, town.percent) == ("running", 10)


def test_a_share_that_was_lowered_by_hand_while_the_next_one_was_under_way_stays_lowered(town: Town) -> None:
    town.start()
    other = Interrupted(town.traffic, "", lambda routing: town.traffic.shift(routing, 0))
    controller = town.controller(traffic=other)
    town.run(controller, seconds=3)
    assert town.percent == 10
    other.fail_at("shift")
    town.run(controller, seconds=15, until=lambda: town.percent == 0)
    town.run(controller, seconds=3)
    assert (town.phase, town.percent, town.standing.step.who) == ("paused", 0, "plane")
    ask(town, "resume")
    town.run(controller, seconds=2)
    assert (town.phase, town.percent) == ("running", 50)


def test_a_share_that_was_raised_by_hand_goes_back_to_what_is_recorded(town: Town) -> None:
    town.start()
    controller = town.controller()
    town.run(controller, seconds=3)
    town.traffic.shift(town.traffic.read(SERVICE), 90)
    town.run(controller, seconds=1)
    assert (town.phase, town.percent) == ("running", 10)


def test_a_service_that_others_have_changed_ends_the_rollout(town: Town) -> None:
    town.start()
    controller = town.controller()
    town.run(controller, seconds=3)
    town.traffic.promote(town.traffic.read(SERVICE))
    town.run(controller, seconds=2)
    assert town.phase == "aborted"
    assert town.standing.step.why == "churn was changed by others: it runs churn version 2"
    assert town.traffic.read(SERVICE).stable.version == 2


def test_while_the_control_database_is_down_nothing_moves_up_and_harm_still_goes_down(town: Town) -> None:
    town.start()
    controller = town.controller()
    town.run(controller, seconds=4)
    assert town.percent == 10
    with locked(town):
        town.run(controller, seconds=12)
        assert town.percent == 10
        town.answer = broken_score
        town.run(controller, seconds=20, until=lambda: town.percent == 0)
        assert town.percent == 0
    town.run(controller, seconds=15, until=lambda: town.phase == "rolled_back")
    assert town.phase == "rolled_back"
    assert town.traffic.read(SERVICE).canary is None
    assert any(line.startswith("blind: control database did not answer") for line in town.told)


class Interrupted:
    """A data plane that fails once at one verb, and meanwhile somebody does something by hand."""

    def __init__(self, traffic: Traffic, verb: str, meanwhile: Callable[[Routing], object]) -> None:
        self._traffic, self._verb, self._meanwhile = traffic, verb, meanwhile

    def fail_at(self, verb: str) -> None:
        self._verb = verb

    def __getattr__(self, name: str) -> Any:
        if name != self._verb:
            return getattr(self._traffic, name)

        def fail(routing: Routing, *_arguments: Any) -> Routing:
            self._verb = ""
            self._meanwhile(routing)
            raise TrafficUnavailable("gone")

        return fail


def test_a_promotion_that_others_forestalled_makes_nobody_champion(town: Town) -> None:
    town.start()
    other = Interrupted(town.traffic, "promote", lambda routing: town.traffic.restore(routing, Target("churn", 7), "other"))
    controller = town.controller(traffic=other)
    town.run(controller, seconds=4)
    ask(town, "promote")
    town.run(controller, seconds=4)
    assert (town.phase, town.standing.needs_controller) == ("promoted", False)
    assert town.traffic.read(SERVICE).stable.version == 7
    assert town.registry.champions == {"churn": 1}


@contextmanager
def locked(town: Town) -> Iterator[None]:
    """The control database does not answer: another connection keeps it to itself."""
    connection = sqlite3.connect(town.workspace.control_database, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()
