"""What the control database keeps of rollouts: SQLite and PostgreSQL promise the same."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DatabaseError

from features.control_database import control_url as url_of
from features.errors import StoreUnavailable
from features.workspace import Workspace
from models.aliases import history
from monitoring.errors import LeaseLost, RolloutError
from monitoring.rollout.journal import (
    Decision,
    NewRollout,
    Request,
    keep_evidence,
    record_applied,
    record_step,
    refuse_command,
    request_command,
    request_rollout,
)
from monitoring.rollout.leader import US_PER_S, Claim, Lease, take
from monitoring.rollout.plan import DEFAULT_PLAN, describe_plan, read_plan
from monitoring.rollout.records import (
    Outcome,
    Snapshot,
    find_rollout,
    list_pending,
    list_rollouts,
    list_work,
    read_dossier,
)

NEW = NewRollout("churn", "churn", stable_version=1, canary_version=2, plan=describe_plan(DEFAULT_PLAN))
ANN = Request("ann", "better in every slice", 1_700_000_000 * US_PER_S)
START = Decision("start", "running", 5, {"stage": 0}, [], "controller", "started")
NOW_US = ANN.at_us + 5 * US_PER_S


@pytest.fixture
def workspace(tmp_path: Path, control_url: str) -> Workspace:
    return Workspace(tmp_path, control_url)


@pytest.fixture
def lease(workspace: Workspace) -> Lease:
    taken = take(workspace, Claim("first"), None, ANN.at_us)
    assert taken is not None
    return taken


def test_a_rollout_that_was_asked_for_waits_with_its_plan_and_its_reason(workspace: Workspace) -> None:
    assert list_rollouts(workspace) == []
    made = request_rollout(workspace, NEW, ANN)
    assert list_rollouts(workspace) == list_work(workspace) == [made]
    assert (made.facts.id, made.step.phase, made.step.percent, made.step.who) == (1, "pending", 0, "ann")
    assert read_plan(made.facts.plan) == DEFAULT_PLAN
    assert made.step.state["canary_version"] == 2


def test_a_service_has_one_open_rollout_whoever_asks_first(workspace: Workspace) -> None:
    def ask(number: int) -> str:
        try:
            return str(request_rollout(workspace, NEW, replace(ANN, who=f"person {number}")).facts.id)
        except RolloutError as error:
            return str(error)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(6)))
    assert answers.count("1") == 1
    assert sum("service has an open rollout: rollout 1 of churn" in answer for answer in answers) == 5
    assert request_rollout(workspace, replace(NEW, service="other"), ANN).facts.id == 2


def test_a_step_is_recorded_before_and_marked_after_traffic_follows(workspace: Workspace, lease: Lease) -> None:
    made = request_rollout(workspace, NEW, ANN)
    step = record_step(workspace, lease, made, START, NOW_US)
    assert (step.sequence, step.token, step.applied_at_us) == (2, lease.token, None)
    record_applied(workspace, lease, step, NOW_US + 1)
    record_applied(workspace, lease, step, NOW_US + 2)
    (standing,) = list_rollouts(workspace)
    assert standing.step == replace(step, applied_at_us=NOW_US + 1)


def test_two_decisions_on_the_same_ground_cannot_both_be_recorded(workspace: Workspace, lease: Lease) -> None:
    made = request_rollout(workspace, NEW, ANN)
    record_step(workspace, lease, made, START, NOW_US)
    with pytest.raises(RolloutError, match="stepped meanwhile: rollout 1; expected step 1; got step 2"):
        record_step(workspace, lease, made, replace(START, action="shift", percent=25), NOW_US)


def test_a_controller_without_the_lease_records_nothing(workspace: Workspace, lease: Lease) -> None:
    made = request_rollout(workspace, NEW, ANN)
    take(workspace, Claim("second"), None, lease.expires_at_us)
    with pytest.raises(LeaseLost):
        record_step(workspace, lease, made, START, NOW_US)
    assert list_rollouts(workspace) == [made]


def test_a_finished_rollout_is_work_until_traffic_follows_it(workspace: Workspace, lease: Lease) -> None:
    made = request_rollout(workspace, NEW, ANN)
    over = record_step(workspace, lease, made, replace(START, action="abort", phase="aborted", percent=0), NOW_US)
    assert [entry.step for entry in list_work(workspace)] == [over]
    with pytest.raises(RolloutError, match="service has an open rollout"):
        request_rollout(workspace, NEW, ANN)
    record_applied(workspace, lease, over, NOW_US + 1)
    assert list_work(workspace) == []
    assert request_rollout(workspace, NEW, ANN).facts.id == 2


def test_commands_keep_who_and_why_and_are_done_with_the_step_they_cause(workspace: Workspace, lease: Lease) -> None:
    made = request_rollout(workspace, NEW, ANN)
    running = replace(made, step=record_step(workspace, lease, made, START, NOW_US))
    bob = Request("bob", "support calls", NOW_US)
    command = request_command(workspace, 1, "pause", bob)
    assert request_command(workspace, 1, "pause", bob) == command
    assert [(entry, standing.step.sequence) for entry, standing in list_pending(workspace)] == [(command, 2)]
    paused = Decision("pause", "paused", 5, {}, [], "bob", "support calls")
    record_step(workspace, lease, running, paused, NOW_US + 1, command=command)
    assert list_pending(workspace) == []
    refused = request_command(workspace, 1, "resume", bob)
    refuse_command(workspace, lease, refused, "too early", NOW_US + 2)
    results = [(entry.action, entry.result, entry.done_at_us) for entry in read_dossier(workspace, 1).commands]
    assert results == [("pause", "done", NOW_US + 1), ("resume", "refused: too early", NOW_US + 2)]


@pytest.mark.parametrize(
    ("action", "why", "told"),
    [
        ("pause", "because", "rollout cannot be changed so: pause of rollout 1; expected running; got pending"),
        ("resume", "because", "expected paused; got pending"),
        ("abort", " ", "request has no reason: abort of rollout 1"),
        ("stop", "because", "unknown command: stop of rollout 1; expected pause or resume or promote or abort or rollback"),
    ],
)
def test_what_cannot_be_done_is_told_to_whoever_asks(workspace: Workspace, action: str, why: str, told: str) -> None:
    request_rollout(workspace, NEW, ANN)
    with pytest.raises(RolloutError, match=told):
        request_command(workspace, 1, action, Request("bob", why, NOW_US))
    with pytest.raises(RolloutError, match="rollout does not exist: 7"):
        request_command(workspace, 7, "abort", ANN)


def test_evidence_is_kept_a_step_and_a_changed_outcome_for_good(workspace: Workspace, lease: Lease) -> None:
    made = request_rollout(workspace, NEW, ANN)
    record_step(workspace, lease, made, START, NOW_US)
    snapshot = Snapshot(1, 2, '{"n": 1}', [{"monitor": "errors"}], {"stage": 0}, "hold: bakes", NOW_US)
    failed = Outcome("errors", "churn/canary", "fail", "roll_back", {"effect": 0.25}, "too many errors", NOW_US)
    keep_evidence(workspace, lease, snapshot, [])
    keep_evidence(workspace, lease, replace(snapshot, evidence='{"n": 2}', judged_at_us=NOW_US + 1), [failed])
    dossier = read_dossier(workspace, 1)
    assert dossier.snapshot == replace(snapshot, evidence='{"n": 2}', judged_at_us=NOW_US + 1)
    assert dossier.outcomes == [failed]
    assert [step.action for step in dossier.steps] == ["request", "start"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rollouts SET who = 'x'", "DELETE FROM rollouts", "DELETE FROM rollout_steps",
        "UPDATE rollout_steps SET percent = 100", "UPDATE rollout_steps SET applied_at_us = 5 WHERE applied_at_us IS NOT NULL",
    ],
)  # fmt: skip
def test_what_has_happened_cannot_be_changed(workspace: Workspace, lease: Lease, statement: str) -> None:
    made = request_rollout(workspace, NEW, ANN)
    record_step(workspace, lease, made, START, NOW_US)
    engine = create_engine(url_of(workspace))
    with pytest.raises(DatabaseError, match="rollouts are history and never change"), engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_rollouts_and_versions_share_a_database_without_knowing_each_other(workspace: Workspace) -> None:
    request_rollout(workspace, NEW, ANN)
    assert history(workspace) == []
    engine = create_engine(url_of(workspace))
    with engine.begin() as connection:
        connection.execute(text("UPDATE rollouts_schema SET version = 99"))
    engine.dispose()
    with pytest.raises(RolloutError, match="control database is of a newer release"):
        list_rollouts(workspace)
    assert history(workspace) == []


def test_a_rollout_is_found_by_its_number_or_by_its_service(workspace: Workspace) -> None:
    request_rollout(workspace, NEW, ANN)
    assert find_rollout(workspace, "1") == find_rollout(workspace, "churn")
    with pytest.raises(RolloutError, match=r"rollout does not exist: '9'; expected .*: 1 \(churn\)"):
        find_rollout(workspace, "9")


def test_a_database_that_is_down_is_told_within_the_time_given(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "postgresql://plumb@127.0.0.1:1/plumbline")
    with pytest.raises(StoreUnavailable):
        list_work(workspace, timeout_s=2)
