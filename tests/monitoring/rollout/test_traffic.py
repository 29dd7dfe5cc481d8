"""What any data plane promises a rollout, held against the documents and the admin API of ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from e2e.rollouts.document_plane import SERVICE, START_US, DocumentPlane, document, serve_admin
from planes.harness import plane_in_thread

from monitoring.errors import TrafficChanged, TrafficError, TrafficUnavailable
from monitoring.rollout.traffic import Canary, PlaneTraffic, Target, Traffic, read_routing

ONE, TWO = Target("churn", 1), Target("churn", 2)


@pytest.fixture
def plane(tmp_path: Path) -> DocumentPlane:
    made = DocumentPlane(tmp_path / "services")
    made.documents.apply_file(document(1), START_US)
    return made


@pytest.fixture
def documents(plane: DocumentPlane) -> Iterator[Traffic]:
    """Documents without processes, of which a test says whether they answer."""
    with serve_admin(plane) as url:
        adapter = PlaneTraffic(url)
        yield adapter
        adapter.close()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Traffic]:
    """The whole plane, with a small server process for each revision."""
    with plane_in_thread(tmp_path / "plane") as running:
        assert running.put(document(1)).status_code == 200
        running.until_ready("stable")
        adapter = PlaneTraffic(running.admin)
        yield adapter
        adapter.close()


@pytest.fixture(params=["documents", "processes"])
def traffic(request: pytest.FixtureRequest) -> Traffic:
    """What every test that asks for it runs over."""
    made: Traffic = request.getfixturevalue(request.param)
    return made


def test_a_service_without_a_canary_names_its_version(traffic: Traffic) -> None:
    routing = traffic.read(SERVICE)
    assert (routing.stable, routing.stable_name, routing.canary, routing.ready) == (ONE, "stable", None, True)


@pytest.mark.parametrize(("mode", "sends"), [("all", True), ("response", False), ("request", False)])
def test_only_a_service_that_sends_requests_and_responses_sends_events(plane: DocumentPlane, mode: str, sends: bool) -> None:
    # A failure's response names nobody: without its request nobody could tell one user from many.
    content = plane.show(SERVICE)
    assert content is not None
    content["spec"]["predictor"]["logger"]["mode"] = mode
    assert read_routing(content).sends_events is sends


def test_a_canary_starts_without_traffic_and_gets_what_it_is_given_once_it_answers(traffic: Traffic) -> None:
    started = traffic.start(traffic.read(SERVICE), TWO, "canary-1")
    assert started.canary is not None
    assert replace(started.canary, ready=False) == Canary("canary-1", TWO, percent=0, ready=False)
    wait_until(lambda: (canary := traffic.read(SERVICE).canary) is not None and canary.ready)
    shifted = traffic.shift(traffic.read(SERVICE), 25)
    assert shifted.canary == Canary("canary-1", TWO, percent=25, ready=True)
    assert traffic.read(SERVICE) == shifted


def test_a_canary_that_does_not_answer_is_told_apart(plane: DocumentPlane, documents: Traffic) -> None:
    plane.unready.add("canary-1")
    started = documents.start(documents.read(SERVICE), TWO, "canary-1")
    assert started.canary == Canary("canary-1", TWO, percent=0, ready=False)


def test_a_promoted_canary_is_the_stable_revision_under_its_own_name(traffic: Traffic) -> None:
    traffic.start(traffic.read(SERVICE), TWO, "canary-1")
    promoted = traffic.promote(traffic.shift(traffic.read(SERVICE), 50))
    assert (promoted.stable, promoted.stable_name, promoted.canary) == (TWO, "canary-1", None)
    wait_until(lambda: traffic.read(SERVICE).ready)


def test_a_promotion_keeps_the_process_and_the_sink_of_events(plane: DocumentPlane, documents: Traffic) -> None:
    traffic = documents
    traffic.start(traffic.read(SERVICE), TWO, "canary-1")
    canary = plane.documents.service(SERVICE)
    traffic.promote(traffic.read(SERVICE))
    # Two equal predictors are one process: it goes on without a restart, and events still go to the same sink.
    after = plane.documents.service(SERVICE)
    assert canary is not None
    assert canary.canary is not None
    assert after is not None
    assert after.stable == canary.canary.predictor
    assert after.logger == canary.logger


def test_a_rolled_back_canary_is_gone_and_stable_is_as_it_was(traffic: Traffic) -> None:
    before = traffic.read(SERVICE)
    traffic.start(before, TWO, "canary-1")
    after = traffic.roll_back(traffic.shift(traffic.read(SERVICE), 25))
    assert replace(after, lock=before.lock) == before


def test_a_promotion_can_be_undone_also_under_a_new_canary(traffic: Traffic) -> None:
    traffic.start(traffic.read(SERVICE), TWO, "canary-1")
    promoted = traffic.promote(traffic.read(SERVICE))
    started = traffic.start(promoted, Target("churn", 3), "canary-2")
    restored = traffic.restore(started, ONE, "restored-1")
    assert (restored.stable, restored.stable_name, restored.canary) == (ONE, "restored-1", None)
    wait_until(lambda: traffic.read(SERVICE).ready)


def test_what_has_changed_since_it_was_read_is_left_alone(traffic: Traffic) -> None:
    old = traffic.read(SERVICE)
    traffic.start(old, TWO, "canary-1")
    for act in (
        lambda: traffic.start(old, TWO, "canary-2"),
        lambda: traffic.shift(old, 50),
        lambda: traffic.promote(old),
        lambda: traffic.roll_back(old),
        lambda: traffic.restore(old, TWO, "restored-1"),
    ):
        with pytest.raises(TrafficChanged, match="data plane refused: PATCH churn; .* 409: document is not as expected"):
            act()
    canary = traffic.read(SERVICE).canary
    assert canary is not None
    assert (canary.name, canary.percent) == ("canary-1", 0)


def test_what_the_plane_refuses_is_told_in_one_line(traffic: Traffic) -> None:
    with pytest.raises(TrafficError, match="404: inferenceservices 'nobody' not found"):
        traffic.read("nobody")
    started = traffic.start(traffic.read(SERVICE), TWO, "canary-1")
    with pytest.raises(TrafficError, match="422: not a share of traffic"):
        traffic.shift(started, 101)


def test_a_plane_that_does_not_answer_is_a_temporary_error() -> None:
    adapter = PlaneTraffic("http://127.0.0.1:1")
    with pytest.raises(TrafficUnavailable, match="data plane does not answer: http://127.0.0.1:1"):
        adapter.read(SERVICE)
    adapter.close()


def test_the_lock_changes_with_every_change_of_others(plane: DocumentPlane, documents: Traffic) -> None:
    first = documents.read(SERVICE)
    asyncio.run(plane.change(SERVICE, lambda current: {**(current or {}), "spec": {**(current or {})["spec"]}}))
    assert documents.read(SERVICE).lock != first.lock


def wait_until(holds: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
