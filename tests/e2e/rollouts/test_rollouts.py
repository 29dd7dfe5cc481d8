"""Whole rollouts with real processes: a plane with its servers, a controller, and a client that counts what it got."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest
from e2e.rollouts.bad_models import ALMOST_SURE
from e2e.rollouts.harness import Load, Stage, controlled, kill, sending, stage, start_controller, write_plan
from e2e.rollouts.small_model import make_workspace

from components.faults import register_broken
from features.workspace import Workspace
from monitoring.rollout.records import list_rollouts, read_dossier

RATE = 40
USERS = 2_000
GOOD, BAD = 2, 3
KILLS = 6
OFF_WITHIN_S = 60.0


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Versions 1 and 2 are equal; 3 is 2 with a broken score."""
    made = make_workspace(tmp_path_factory.mktemp("rollouts") / "workspace", users=USERS)
    assert register_broken(made, "churn", GOOD, ALMOST_SURE).version == BAD
    return made


@pytest.fixture(scope="module")
def place(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(workspace.root, tmp_path_factory.mktemp("stage"), version=1) as running:
        yield running


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_plan(tmp_path_factory.mktemp("plan") / "plan.yaml", (20, 5, 50), (50, 5, 100)))


def start(place: Stage, version: int, plan: str) -> None:
    place.plumb("rollouts", "start", "churn", "--version", str(version), "--plan", plan, "--why", "try it")


def finish(place: Stage, phase: str) -> None:
    """Wait until the newest rollout is over and traffic has followed."""

    def is_over() -> bool:
        standing = list_rollouts(Workspace(place.workspace))[0]
        assert standing.step.phase in ("pending", "running", "paused", phase), standing.step
        return standing.step.phase == phase and standing.step.applied_at_us is not None

    place.until(is_over, timeout_s=400, what=phase)


def assert_nothing_lost(sent: Load) -> None:
    assert sent.sent > 100
    assert sent.lost == 0, [answer for answer in sent.answers if answer.status != 200][:5]


def test_a_good_version_is_promoted_and_its_promotion_can_be_undone(place: Stage, plan: str) -> None:
    with controlled(place), sending(place.plane.url, rate=RATE, users=USERS) as sent:
        start(place, GOOD, plan)
        finish(place, "promoted")
        facts = place.show()
        assert [entry["action"] for entry in facts["timeline"]] == ["request", "start", "shift", "promote"]
        assert "champion" in place.plumb("models", "list")
        assert place.plane.predict("u000001").json()["model_version"] == str(GOOD)
        place.plumb("rollouts", "rollback", "churn", "--why", "support calls", "--wait", "60")
        finish(place, "rolled_back")
        assert place.plane.predict("u000001").json()["model_version"] == "1"
    assert_nothing_lost(sent)


def test_a_version_with_a_broken_score_is_off_within_a_minute(place: Stage, plan: str) -> None:
    with controlled(place), sending(place.plane.url, rate=RATE, users=USERS) as sent:
        start(place, BAD, plan)
        finish(place, "rolled_back")
        assert place.weight() == 0
        name = f"canary-{place.show()['id']}"
        time.sleep(1)
    off_s = sent.last(name).answered_s - sent.first(name).answered_s
    assert off_s < OFF_WITHIN_S
    assert "score" in place.show()["step_why"]
    assert_nothing_lost(sent)


def test_a_controller_killed_again_and_again_never_leaves_a_weight_that_is_not_recorded(place: Stage, plan: str) -> None:
    rng = random.Random(3)
    with sending(place.plane.url, rate=RATE, users=USERS) as sent:
        start(place, BAD, plan)
        for number in range(KILLS):
            controller = start_controller(place, tick_s=0.3, lease_s=1)
            if number == 0:  # not all of them while the canary still loads
                place.until(lambda: place.weight() > 0, what="the canary's first share")
            time.sleep(rng.uniform(0.2, 4))
            kill(controller)
            assert_recorded(place)
        with controlled(place, tick_s=0.3, lease_s=1):
            finish(place, "rolled_back")
        assert place.weight() == 0
    assert_nothing_lost(sent)


def assert_recorded(place: Stage) -> None:
    """The plane's weight is that of the newest step, or of the one before where the newest is not applied."""
    workspace = Workspace(place.workspace)
    steps = read_dossier(workspace, list_rollouts(workspace)[0].facts.id).steps
    allowed = {steps[-1].percent}
    if steps[-1].applied_at_us is None:
        allowed.add(steps[-2].percent)
    assert place.weight() in allowed, steps[-2:]
