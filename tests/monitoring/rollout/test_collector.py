"""Events as the plane writes them, gathered into what the gates see."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np

from inference.plane.events import LoggedEvent, write_event
from monitoring.rollout.collector import Collector, check_collection
from monitoring.rollout.events import hash_entity
from monitoring.verdicts import Outcome

START_US = 1_700_000_000_000_000
ARMS = {"stable": 0, "canary-1": 1}


def event(kind: str, body: dict[str, Any], revision: str = "stable", **facts: Any) -> tuple[dict[str, str], bytes]:
    at_us = facts.pop("at_us", START_US + 1_000_000)
    logged = LoggedEvent(kind, facts.pop("id", "r1"), at_us, "churn", revision, "application/json", json.dumps(body).encode())
    headers, content = write_event(replace(logged, **facts), "http://127.0.0.1:8000")
    return {name.lower(): value for name, value in headers.items()}, content


def asked(*entities: str, **facts: Any) -> tuple[dict[str, str], bytes]:
    return event("request", {"instances": [{"entity_id": entity} for entity in entities]}, **facts)


def answered(*rows: tuple[str, float, str | None], **facts: Any) -> tuple[dict[str, str], bytes]:
    names = ("entity_id", "score", "degraded")
    body = {"predictions": [dict(zip(names, row, strict=True)) for row in rows]}
    return event("response", body, **{"status": 200, "latency_ms": 12.5, **facts})


def watching(**limits: int) -> Collector:
    collector = Collector(**limits)
    collector.watch("churn", ARMS, START_US)
    return collector


def test_every_entity_of_an_answer_is_a_row_of_its_arm() -> None:
    collector = watching()
    assert collector.receive(*asked("a", "b"))
    assert collector.receive(*answered(("a", 0.25, None), ("b", 0.5, "store_down")))
    assert collector.receive(*answered(("c", 0.75, None), revision="canary-1", id="r2"))
    seen, losses = collector.drain("churn", START_US + 2_000_000)
    assert seen.arm.tolist() == [0, 0, 1]
    assert seen.entity.tolist() == [hash_entity(name) for name in "abc"]
    assert seen.score.tolist() == [0.25, 0.5, 0.75]
    assert seen.degraded.tolist() == [False, True, False]
    assert seen.latency_s.tolist() == [0.0125] * 3
    assert seen.request is not None
    assert len(set(seen.request.tolist())) == 2
    assert not seen.failed.any()
    assert (losses.kept, losses.dropped, losses.unreadable) == (2, 0, 0)
    assert len(collector.drain("churn", START_US + 3_000_000)[0]) == 0


def test_a_v2_answer_takes_its_entities_from_the_request() -> None:
    collector = watching()
    collector.receive(*event("request", {"inputs": [{"name": "entity_id", "datatype": "BYTES", "data": ["a", "b"]}]}))
    outputs = [{"name": "score", "data": [0.25, 0.5]}, {"name": "degraded", "data": ["", "store_slow"]}]
    collector.receive(*event("response", {"outputs": outputs}, status=200, latency_ms=3.0))
    seen, _ = collector.drain("churn", START_US)
    assert seen.entity.tolist() == [hash_entity("a"), hash_entity("b")]
    assert seen.degraded.tolist() == [False, True]


def test_a_failure_is_a_row_of_whoever_was_asked_for_and_has_no_score() -> None:
    collector = watching()
    collector.receive(*asked("a", revision="canary-1"))
    collector.receive(*event("response", {"error": "boom"}, "canary-1", status=500, latency_ms=1.0))
    # A revision whose process died: another one answered, but this one has failed.
    collector.receive(*asked("b", revision="canary-1", id="r2"))
    collector.receive(*answered(("b", 0.5, None), revision="canary-1", id="r2", retried_on="stable"))
    seen, _ = collector.drain("churn", START_US)
    assert seen.failed.tolist() == [True, True]
    assert seen.arm.tolist() == [1, 1]
    assert seen.entity.tolist() == [hash_entity("a"), hash_entity("b")]
    assert np.isnan(seen.score).all()


def test_failures_that_come_before_their_requests_are_one_user_and_not_one_each() -> None:
    collector = watching()
    for number in range(10):
        collector.receive(*event("response", {"error": "boom"}, "canary-1", id=str(number), status=500, latency_ms=1.0))
        if number == 5:  # a tick between an answer and its request
            assert collector.drain("churn", START_US)[0].entity.tolist() == [hash_entity("a")] * 5
        collector.receive(*asked("a", revision="canary-1", id=str(number)))
    assert collector.drain("churn", START_US)[0].entity.tolist() == [hash_entity("a")] * 5


def test_a_failure_whose_request_never_comes_counts_with_the_second_tick() -> None:
    collector = watching()
    collector.receive(*event("response", {"error": "boom"}, "canary-1", status=500, latency_ms=1.0))
    assert len(collector.drain("churn", START_US)[0]) == 0
    seen, losses = collector.drain("churn", START_US)
    assert (seen.entity.tolist(), seen.failed.tolist(), losses.kept) == ([hash_entity("r1")], [True], 1)


def test_unreadable_events_of_one_service_say_nothing_of_another() -> None:
    collector = watching()
    collector.watch("other", {"stable": 0}, START_US)
    headers, _ = answered(("a", 0.5, None))
    assert not collector.receive({**headers, "ce-inferenceservicename": "other"}, b"\x00\x01")
    assert collector.drain("churn", START_US)[1].unreadable == 0
    assert collector.drain("other", START_US)[1].unreadable == 1


def test_a_request_that_was_routed_before_the_stage_began_does_not_count() -> None:
    collector = watching()
    # Answered 5 ms after the stage began, having taken 12.5 ms.
    collector.receive(*answered(("a", 0.5, None), at_us=START_US + 5_000))
    collector.receive(*answered(("b", 0.5, None), at_us=START_US + 12_500))
    assert collector.drain("churn", START_US)[0].entity.tolist() == [hash_entity("b")]


def test_services_and_revisions_that_nobody_watches_are_ignored() -> None:
    collector = watching()
    collector.receive(*answered(("a", 0.5, None), revision="canary-0"))
    collector.forget("churn")
    collector.receive(*answered(("a", 0.5, None)))
    assert len(collector.drain("churn", START_US)[0]) == 0


def test_what_is_too_much_or_unreadable_is_counted_and_fails_the_check() -> None:
    collector = watching(most_rows=10, most_waiting=2)
    for number in range(19):
        collector.receive(*asked(f"u{number}", id=str(number)))
        collector.receive(*answered((f"u{number}", 0.5, None), id=str(number)))
    assert not collector.receive({"ce-type": "org.kubeflow.serving.inference.response"}, b"{}")
    assert not collector.receive(answered(("a", 0.5, None))[0], b"\x00\x01")
    seen, losses = collector.drain("churn", START_US)
    assert len(seen) == 10
    # 10 of 19 answers kept, 9 too many, 2 events unreadable: 11 of 21 lost.
    assert (losses.kept, losses.dropped, losses.unreadable) == (10, 9, 2)
    verdict = check_collection("churn/canary", losses, START_US)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.evidence["lost_share"] == 11 / 21
    assert verdict.text == "11 of 21 events lost (9 too many, 2 unreadable, 0 never sent)"


def sent_by(sender: str, lost: int, number: int) -> tuple[dict[str, str], bytes]:
    """An answer whose sender says how many it has lost."""
    headers, body = answered((f"u{number}", 0.5, None), id=f"r{number}")
    return {**headers, "ce-sender": sender, "ce-lostanswers": str(lost)}, body


def test_answers_that_the_plane_could_not_send_are_missing_here() -> None:
    collector = watching()
    # It lost 500 before anybody watched, and what it was about to send meanwhile still says 0.
    collector.receive(*sent_by("a", 0, 0))
    collector.receive(*sent_by("a", 500, 1))
    assert collector.drain("churn", START_US)[1].unsent == 0
    assert collector.drain("churn", START_US)[1].unsent == 0
    for number in range(2, 20):
        collector.receive(*sent_by("a", 500, number))
    assert check_collection("churn/canary", collector.drain("churn", START_US)[1], START_US).outcome is Outcome.PASS
    collector.receive(*sent_by("a", 503, 20))
    collector.receive(*sent_by("a", 501, 21))  # four connections send: events overtake each other
    losses = collector.drain("churn", START_US)[1]
    verdict = check_collection("churn/canary", losses, START_US)
    assert (losses.unsent, verdict.outcome) == (3, Outcome.FAIL)
    assert verdict.text == "3 of 25 events lost (0 too many, 0 unreadable, 3 never sent)"
    collector.receive(*sent_by("b", 70, 22))  # the plane was started anew
    assert collector.drain("churn", START_US)[1].unsent == 3


def test_what_is_remembered_of_requests_is_bounded_by_those_they_name() -> None:
    collector = watching(most_waiting=1_000)
    for number in range(30):
        collector.receive(*asked(*(f"u{number}-{place}" for place in range(100)), id=str(number)))
    outputs = [{"name": "score", "data": [0.5] * 100}, {"name": "degraded", "data": [""] * 100}]
    for number in (19, 20):  # 30 requests name 3,000; the last ten of them are remembered
        collector.receive(*event("response", {"outputs": outputs}, id=str(number), status=200, latency_ms=1.0))
    assert len(collector.drain("churn", START_US)[0]) == 100
    assert collector.drain("churn", START_US)[0].entity.tolist() == [hash_entity("19")]  # nobody else is known for it
    # Answers that wait for their requests take room for each score: ten of them, and what comes then does not wait.
    for number in range(100, 112):
        collector.receive(*event("response", {"outputs": outputs}, id=str(number), status=200, latency_ms=1.0))
    seen, _ = collector.drain("churn", START_US)
    assert hash_entity("109") not in seen.entity.tolist()
    assert {hash_entity("110"), hash_entity("111")} <= set(seen.entity.tolist())
