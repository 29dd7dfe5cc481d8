"""What a controller shows at its ``/metrics``, over rollouts that really happen in its control database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.rollouts.document_plane import START_US, DocumentPlane, document, serve_admin
from e2e.rollouts.simulated import Town, broken_score

from features.workspace import Workspace
from monitoring.rollout.controller import Controller
from monitoring.rollout.metrics import ControllerMetrics
from monitoring.rollout.records import list_rollouts
from monitoring.rollout.traffic import PlaneTraffic


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    plane = DocumentPlane(tmp_path / "services")
    plane.documents.apply_file(document(1), START_US)
    with serve_admin(plane) as url:
        traffic = PlaneTraffic(url)
        yield Town(Workspace(tmp_path / "workspace"), plane, traffic)
        traffic.close()


def test_a_rollouts_share_phase_and_steps_are_shown_and_only_of_the_newest(town: Town) -> None:
    metrics, controller = ControllerMetrics(), town.controller()

    def value(name: str, **labels: str) -> float | None:
        metrics.show(controller, list_rollouts(town.workspace), town.now_us)
        return metrics.registry.get_sample_value(name, labels)

    first, second = {"service": "churn", "rollout": "1"}, {"service": "churn", "rollout": "2"}
    assert value("plumb_rollout_controller_acts") == 0
    town.start()
    town.run(controller, seconds=3)
    assert value("plumb_rollout_percent", **first) == 10
    assert value("plumb_rollout_phase", **first, phase="running") == 1
    assert value("plumb_rollout_phase", **first, phase="paused") == 0
    assert value("plumb_rollout_steps_total", service="churn", action="rollback") == 0  # so that the first one is a rise
    assert value("plumb_rollout_paged", **first) == 0
    # It was asked for before the first look of these metrics that found it; its start is the newest step after that look.
    assert value("plumb_rollout_steps_total", service="churn", action="start") == 1
    step = list_rollouts(town.workspace)[0].step
    assert value("plumb_rollout_last_step_seconds", **first, action="start") == step.at_us / 1e6

    town.answer = broken_score
    town.run(controller, seconds=60, until=lambda: town.phase == "rolled_back" and not town.standing.needs_controller)
    assert value("plumb_rollout_phase", **first, phase="rolled_back") == 1
    assert value("plumb_rollout_last_step_seconds", **first, action="start") is None
    assert value("plumb_rollout_steps_total", service="churn", action="rollback") == 1

    town.start()
    assert value("plumb_rollout_phase", **second, phase="pending") == 1
    assert value("plumb_rollout_phase", **first, phase="rolled_back") is None
    assert value("plumb_rollout_percent", **first) is None


def test_what_happened_before_a_controller_began_is_no_rise_of_its_counts(town: Town) -> None:
    town.start()
    town.run(town.controller(), seconds=3)
    metrics = ControllerMetrics()
    metrics.show(town.controller("second"), list_rollouts(town.workspace), town.now_us)
    assert metrics.registry.get_sample_value("plumb_rollout_steps_total", {"service": "churn", "action": "start"}) == 0


def test_evidence_that_cannot_be_read_any_more_is_counted_from_0(town: Town) -> None:
    town.start()
    first = town.controller()
    town.run(first, seconds=6)
    with sqlite3.connect(town.workspace.control_database) as connection:
        connection.execute("UPDATE rollout_evidence SET evidence = ?", ('{"format":7}',))
    connection.close()
    metrics, second = ControllerMetrics(), town.controller("second")

    def lost(controller: Controller) -> float | None:
        metrics.show(controller, list_rollouts(town.workspace), town.now_us)
        return metrics.registry.get_sample_value("plumb_rollout_evidence_lost_total")

    assert lost(second) == 0
    town.now_us += 10_000_000  # the first one's lease is over
    town.run(second, seconds=3)
    assert [lost(second), lost(second)] == [1, 1]


def test_a_controller_without_its_database_says_that_it_is_blind_and_keeps_what_it_knew(town: Town) -> None:
    metrics, controller = ControllerMetrics(), town.controller()
    town.start()
    town.run(controller, seconds=3)
    metrics.show(controller, list_rollouts(town.workspace), town.now_us)
    metrics.show_blind(controller, town.now_us + 1_000_000)
    value = metrics.registry.get_sample_value
    assert value("plumb_controller_blind") == 1
    assert value("plumb_rollout_last_tick_seconds") == town.now_us / 1e6 + 1  # it ticks: blind is not stuck
    assert value("plumb_rollout_faults_total") == 1
    assert value("plumb_rollout_percent", {"service": "churn", "rollout": "1"}) == 10
    metrics.show(controller, list_rollouts(town.workspace), town.now_us)
    assert value("plumb_controller_blind") == 0
