"""A controller and the log of verdicts: what monitors have written there takes traffic, stops promotions, or lets them be."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from e2e.rollouts.simulated import PLAN, Town, open_town

from monitoring.rollout.controller import Controller
from monitoring.rollout.monitors import read_monitors
from monitoring.rollout.records import read_dossier
from monitoring.verdict_log import record_verdicts
from monitoring.verdicts import Outcome, Severity, Verdict

FEATURES = "drift.stable.features"
ONE_STAGE = replace(PLAN, stages=PLAN.stages[:1], gates=PLAN.gates[:1], require=(FEATURES,))


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with open_town(tmp_path) as made:
        yield made


def controller_of(town: Town) -> Controller:
    return town.controller(monitors=functools.partial(read_monitors, town.workspace))


def say(town: Town, reference: str, revision: str, outcome: Outcome) -> None:
    """As the drift watch writes it."""
    severity = Severity.ROLL_BACK if reference == "stable" else Severity.PAGE
    text = "1 of 4 features drifted: hours (effect 0.44)" if outcome is Outcome.FAIL else "none of 4 features drifted"
    verdict = Verdict(f"drift.{reference}.features", f"churn/{revision}", outcome, severity, {}, text, town.now_us)
    record_verdicts(town.workspace, [verdict], valid_for_s=300, now_us=town.now_us)


def test_a_required_monitor_is_waited_for_and_its_pass_promotes(town: Town) -> None:
    town.start(ONE_STAGE)
    controller = controller_of(town)
    town.run(controller, seconds=20)
    assert (town.phase, town.percent) == ("running", 10)
    say(town, "stable", "canary-1", Outcome.PASS)
    town.run(controller, seconds=5, until=lambda: town.phase == "promoted")
    assert town.phase == "promoted"


def test_a_canary_that_differs_from_stable_loses_its_traffic_and_the_step_names_the_feature(town: Town) -> None:
    town.start(ONE_STAGE)
    controller = controller_of(town)
    town.run(controller, seconds=5, until=lambda: town.percent == 10)
    say(town, "training", "canary-1", Outcome.FAIL)
    say(town, "stable", "canary-1", Outcome.FAIL)
    town.run(controller, seconds=3, until=lambda: town.phase == "rolled_back")
    assert (town.phase, town.percent) == ("rolled_back", 0)
    assert town.standing.step.why == f"{FEATURES} of churn/canary-1: 1 of 4 features drifted: hours (effect 0.44)"
    blamed = [entry for entry in town.standing.step.verdicts if entry["outcome"] == "fail"]
    assert {(entry["monitor"], entry["severity"]) for entry in blamed} == {
        (FEATURES, "roll_back"), ("drift.training.features", "page"),
    }  # fmt: skip


def test_drift_of_both_pages_once_promotes_nothing_and_takes_nothing_away(town: Town) -> None:
    town.start(ONE_STAGE)
    controller = controller_of(town)
    town.run(controller, seconds=5, until=lambda: town.percent == 10)
    say(town, "stable", "canary-1", Outcome.PASS)
    for revision in ("stable", "canary-1"):
        say(town, "training", revision, Outcome.FAIL)
    town.run(controller, seconds=40)
    steps = read_dossier(town.workspace, 1).steps
    assert [step.action for step in steps] == ["request", "start", "page"]
    assert "drift.training.features of churn/stable: 1 of 4 features drifted: hours" in steps[-1].why
    assert (town.phase, town.percent) == ("running", 10)
    # A canary whose training knows what stable does not is the cure; the next windows of both references say so.
    for reference in ("training", "stable"):
        say(town, reference, "canary-1", Outcome.PASS)
    town.run(controller, seconds=5, until=lambda: town.phase == "promoted")
    assert town.phase == "promoted"
