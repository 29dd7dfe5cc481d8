"""Rollouts are judged by what became of what was served: the labels' way from a prediction to a rollback."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from e2e.rollouts.simulated import PLAN, Town, open_town
from labels.predicted import Asked, tabulate

from features import served_labels
from features.rows import SERVED_LABEL, TIME
from inference.plane.routing import Split
from monitoring.rollout.events import hash_entity
from monitoring.rollout.labels import SETTLING_US, Share, read_matured, shares_of
from monitoring.rollout.leader import US_PER_S
from monitoring.rollout.placement import canary_name
from monitoring.rollout.plan import GateSpec, Stage
from monitoring.rollout.records import Step, read_dossier
from monitoring.verdicts import Severity

HOUR_US = 3_600 * US_PER_S
LONG = replace(PLAN, stages=(Stage(50, 120, 30),), gates=(GateSpec("errors", 0.05), GateSpec("labels", 0.02, least_users=0)))
"""One stage of two minutes. Nothing but labels could find a canary whose scores alone are wrong."""


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with open_town(tmp_path) as made:
        yield made


def write(folder: Path, *rows: dict[str, Any]) -> None:
    """Labels of requests: user, revision, at_us, score, label."""
    asked = tabulate("churn", [Asked(row["user"], 0, row["score"], revision=row["revision"]) for row in rows])
    at = pa.array([row["at_us"] for row in rows]).cast(TIME)
    columns = {name: asked[name] for name in SERVED_LABEL.names if name in asked.column_names}
    columns |= {"answered_at": at, "now": at, "matured_at": at, "known_at": at}
    columns["label"] = pa.array([row["label"] for row in rows], pa.int8())
    with served_labels.writing(folder) as progress:
        table = pa.table([columns[field.name] for field in SERVED_LABEL], schema=SERVED_LABEL)
        served_labels.append(folder, table, progress)


def serve_and_mature(town: Town, since_us: int, until_us: int, *, canary_odds: float) -> None:
    """Users of both revisions are scored between two times, and it is known at once what became of them.

    Stable's scores are true. The canary states odds that are so many times too high; who is with whom is the plane's own split.
    """
    chance = random.Random(2)
    split = Split("churn", canary_name(town.standing.facts), town.percent)
    rows = []
    for number in range(1_500):
        user, truth = f"u{number}", chance.betavariate(2, 5)
        score = truth
        if split.takes(user):
            score = canary_odds * truth / (1 + (canary_odds - 1) * truth)
        revision = canary_name(town.standing.facts) if split.takes(user) else town.traffic.read("churn").stable_name
        at_us = chance.randrange(since_us, until_us)
        rows.append({"user": user, "revision": revision, "at_us": at_us, "score": score, "label": int(chance.random() < truth)})
    write(town.workspace.served_labels("churn"), *rows)


def gate_text(town: Town, monitor: str) -> str:
    snapshot = read_dossier(town.workspace, 1).snapshot
    assert snapshot is not None
    return next(verdict["text"] for verdict in snapshot.verdicts if verdict["monitor"] == monitor)


def test_labels_that_show_a_miscalibrated_canary_take_it_back(town: Town) -> None:
    town.start(LONG)
    controller = town.controller()
    town.run(controller, seconds=40)
    assert (town.phase, town.percent) == ("running", 50)
    assert gate_text(town, "labels") == "labels: none of the canary's has matured, and the plan waits for none"
    applied_us = town.standing.step.applied_at_us
    assert applied_us is not None
    serve_and_mature(town, applied_us + SETTLING_US, town.now_us, canary_odds=3)
    took_s = town.run(controller, seconds=30, until=lambda: town.phase == "rolled_back")
    assert took_s <= 2
    assert town.standing.step.why.startswith("labels (")
    failed = [entry.monitor for entry in read_dossier(town.workspace, 1).outcomes if entry.outcome == "fail"]
    assert failed == ["labels"]
    assert town.traffic.read("churn").canary is None


def test_labels_of_a_true_canary_do_not_and_a_restart_counts_none_twice(town: Town) -> None:
    town.start(LONG)
    first = town.controller()
    town.run(first, seconds=40)
    applied_us = town.standing.step.applied_at_us
    assert applied_us is not None
    serve_and_mature(town, applied_us + SETTLING_US, town.now_us, canary_odds=1)
    town.run(first, seconds=8)
    seen = gate_text(town, "labels")
    assert seen.startswith("labels (log loss): no harm found in 7")  # half of 1,500 users
    second = town.controller("second")
    town.run(second, seconds=20)
    assert second.acts
    assert gate_text(town, "labels") == seen
    town.run(second, seconds=150, until=lambda: town.phase == "promoted")
    assert town.phase == "promoted"


def test_a_model_without_mature_labels_is_promoted_unless_the_plan_asks_for_labels(town: Town) -> None:
    town.start(replace(PLAN, gates=(*PLAN.gates, GateSpec("labels", 0.02, least_users=0))))
    town.run(town.controller(), seconds=60, until=lambda: town.phase == "promoted" and not town.standing.needs_controller)
    assert town.phase == "promoted"
    town.start(replace(PLAN, gates=(*PLAN.gates, GateSpec("labels", 0.02, Severity.PAGE, least_users=100))), canary=3, stable=2)
    town.run(town.controller(), seconds=60)
    assert (town.phase, town.percent) == ("running", 10)
    snapshot = read_dossier(town.workspace, 2).snapshot
    assert snapshot is not None
    assert "labels (log loss): 0 canary users of 100" in [verdict["text"] for verdict in snapshot.verdicts]


def test_labels_of_before_the_rollout_and_of_other_revisions_are_left_out(tmp_path: Path) -> None:
    shares = [Share(10, 100, 200), Share(50, 300, 400)]
    write(
        tmp_path,
        {"user": "before", "revision": "stable", "at_us": 99, "score": 0.1, "label": 0},
        {"user": "a", "revision": "stable", "at_us": 100, "score": 0.25, "label": 1},
        {"user": "between", "revision": "canary-1", "at_us": 200, "score": 0.1, "label": 0},
        {"user": "b", "revision": "canary-1", "at_us": 399, "score": 0.5, "label": 0},
        {"user": "other", "revision": "canary-9", "at_us": 350, "score": 0.1, "label": 0},
    )
    found = read_matured(tmp_path, {"stable": 0, "canary-1": 1}, shares)
    assert found.label_entity.tolist() == [hash_entity("a"), hash_entity("b")]
    assert (found.label_arm.tolist(), found.label.tolist()) == ([0, 1], [True, False])
    assert (found.label_score.tolist(), found.label_percent.tolist()) == ([0.25, 0.5], [10, 50])
    nothing = read_matured(tmp_path, {"stable": 0}, [])
    assert [len(column) for column in vars(nothing).values()] == [0] * 5
    assert nothing.label_score.dtype == np.float32
    assert len(read_matured(tmp_path / "never", {"stable": 0}, shares).label) == 0


def test_a_share_stands_from_its_application_to_the_next_step_less_what_may_be_under_way() -> None:
    def step(percent: int, at_s: int, applied_s: int | None) -> Step:
        applied_us = None if applied_s is None else applied_s * US_PER_S
        return cast("Step", SimpleNamespace(percent=percent, at_us=at_s * US_PER_S, applied_at_us=applied_us))

    steps = [step(0, 0, 0), step(5, 1, 20), step(25, 100, 102), step(50, 200, None)]
    # Of 5 %: applied at 20 s, the next recorded at 100 s; of 25 %: 102 to 200 s; 50 % is not on the plane yet.
    expected = [Share(5, 25 * US_PER_S, 95 * US_PER_S), Share(25, 107 * US_PER_S, 195 * US_PER_S)]
    assert shares_of(steps, 300 * US_PER_S) == expected
    assert shares_of(steps[:3], 300 * US_PER_S)[-1] == Share(25, 107 * US_PER_S, 300 * US_PER_S)
