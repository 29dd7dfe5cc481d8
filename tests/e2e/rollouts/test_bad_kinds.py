"""Each of the six bad kinds, really inside a served version: how soon after its first requests has it no traffic left?

One plane and one controller for all, with the default gates. A client counts what it sent and what was answered.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.rollouts.bad_models import FAULTS
from e2e.rollouts.harness import Load, Stage, controlled, sending, stage
from e2e.rollouts.small_model import make_workspace

from components.faults import register_broken
from features.workspace import Workspace
from monitoring.rollout.records import list_rollouts, read_dossier

RATE = 200
USERS = 20_000
PLAN = {"stages": [{"percent": 10, "bake_s": 60, "least_users": 200}, {"percent": 50, "bake_s": 60, "least_users": 500}]}
OFF_WITHIN_S = 60.0
"""Median over the kinds."""


@dataclass(frozen=True)
class Course:
    """How one bad version fared: seconds from its first share of the traffic until it had none, requests it answered or lost
    meanwhile, the gates that told, requests of the client, how many a second the machine held, and how many were not answered
    well."""

    kind: str
    off_s: float
    asked: int
    gates: tuple[str, ...]
    sent: int
    rate: float
    lost: int

    def __str__(self) -> str:
        return (
            f"{self.kind:<22}{self.off_s:>7.1f} s{self.asked:>7} canary requests  {', '.join(self.gates):<24}"
            f"{self.sent:>7} sent, {self.rate:.0f} a second, {self.lost} lost"
        )


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, dict[str, int]]:
    """A workspace whose version 1 is good, and the version of each kind."""
    made = make_workspace(tmp_path_factory.mktemp("kinds") / "workspace", users=USERS, versions=1)
    return made, {kind: register_broken(made, "churn", 1, fault).version for kind, fault in FAULTS.items()}


@pytest.fixture(scope="module")
def courses(versions: tuple[Workspace, dict[str, int]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Course]]:
    """Every kind's rollout, one after the other on the same processes."""
    workspace, numbers = versions
    folder = tmp_path_factory.mktemp("stage")
    (folder / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    with stage(workspace.root, folder, version=1) as place, controlled(place, tick_s=1, lease_s=10):
        yield [roll_out(place, kind, version, folder / "plan.yaml") for kind, version in numbers.items()]


def roll_out(place: Stage, kind: str, version: int, plan: Path) -> Course:
    """Start a rollout under traffic, and wait until its version is off."""
    workspace = Workspace(place.workspace)
    with sending(place.plane.url, rate=RATE, users=USERS) as sent:
        place.plumb("rollouts", "start", "churn", "--version", str(version), "--plan", str(plan), "--why", kind)

        def is_over() -> bool:
            standing = list_rollouts(workspace)[0]
            assert standing.step.phase in ("pending", "running", "rolled_back"), standing.step
            return standing.step.phase == "rolled_back" and standing.step.applied_at_us is not None

        place.until(is_over, timeout_s=400, what=f"the rollback of {kind}")
    return describe(place, kind, sent)


def describe(place: Stage, kind: str, sent: Load) -> Course:
    """What records and client say of the newest rollout."""
    workspace = Workspace(place.workspace)
    facts = list_rollouts(workspace)[0].facts
    applied = {step.action: step.applied_at_us for step in read_dossier(workspace, facts.id).steps}
    name = f"canary-{facts.id}"
    asked = sum(
        place.plane.metric("plumb_plane_requests_total", service="churn", revision=name, code=code) for code in ("200", "502")
    )
    failed: list[dict[str, Any]] = [entry for entry in place.show()["verdicts"] if entry["outcome"] == "fail"]
    seconds = (applied["rollback"] - applied["start"]) / 1_000_000
    gates = tuple(entry["monitor"] for entry in failed)
    return Course(kind, seconds, int(asked), gates, sent.sent, sent.rate, sent.lost)


def test_half_of_the_bad_kinds_are_off_within_a_minute(courses: list[Course], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\n{RATE} requests/s, {USERS:,} users, 10 % of them on the canary\n")
        sys.stdout.writelines(f"{course}\n" for course in courses)
    assert [course.kind for course in courses] == list(FAULTS)
    assert statistics.median(course.off_s for course in courses) < OFF_WITHIN_S


def test_no_request_is_lost_while_a_bad_version_comes_and_goes(courses: list[Course]) -> None:
    assert [(course.kind, course.lost) for course in courses] == [(course.kind, 0) for course in courses]
    assert min(course.sent for course in courses) > 10 * RATE
