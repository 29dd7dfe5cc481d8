"""CloudEvents as a real sink receives them, and what a slow, failing or absent sink costs: events, never requests."""

from __future__ import annotations

import asyncio
import socket
import time
from datetime import datetime
from pathlib import Path

import orjson
from planes.harness import Threaded, plane_in_thread, service, sink

from inference.plane.events import DROPPED, RESPONSE, EventSender, LoggedEvent, write_event


def test_an_event_is_written_as_cloudevents_binary_mode_says() -> None:
    # 1,740,830,400 s is 2025-03-01T12:00:00Z.
    event = LoggedEvent(RESPONSE, "r1", 1_740_830_400_000_250, "churn", "v2", "application/json", b"{}", 502, 1.25, "stable")
    headers, body = write_event(event, "http://127.0.0.1:8000/")
    assert body == b"{}"
    assert headers == {
        "ce-specversion": "1.0",
        "ce-type": "org.kubeflow.serving.inference.response",
        "ce-source": "http://127.0.0.1:8000/",
        "ce-id": "r1",
        "ce-time": "2025-03-01T12:00:00.000250Z",
        "content-type": "application/json",
        "ce-inferenceservicename": "churn",
        "ce-namespace": "default",
        "ce-component": "predictor",
        "ce-endpoint": "v2",
        "ce-recordedtime": "2025-03-01T12:00:00.000250Z",
        "ce-responsestatus": "502",
        "ce-latencyms": "1.250",
        "ce-retriedon": "stable",
    }


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def log_to(url: str, mode: str = "all") -> dict[str, dict[str, str]]:
    return {"logger": {"mode": mode, "url": url}}


def start(plane: Threaded, url: str, **changes: object) -> None:
    plane.put(service(**log_to(url), **changes))  # type: ignore[arg-type]
    plane.until_ready("stable")


def test_requests_and_answers_failures_among_them_reach_the_sink(tmp_path: Path) -> None:
    with sink() as received, plane_in_thread(tmp_path) as plane:
        start(plane, received.url, canary=2, percent=100)
        plane.until_ready("v2")
        before = time.time()
        assert plane.predict("u1", **{"ce-id": "c1"}).status_code == 200
        assert plane.predict("bad", **{"x-request-id": "x1"}).status_code == 400
        assert plane.predict("die-v2", **{"x-request-id": "x2"}).status_code == 200
        plane.until(lambda: len(received.events) == 6)
        asked = {headers["ce-id"]: (headers, body) for headers, body in received.of("request")}
        answered = {headers["ce-id"]: (headers, body) for headers, body in received.of("response")}
        assert set(asked) == set(answered) == {"c1", "x1", "x2"}
        assert asked["c1"][1] == b'{"instances":[{"entity_id":"u1"}]}'
        assert b'"by": "v2"' in answered["c1"][1]
        statuses = {name: (headers["ce-responsestatus"], headers["ce-endpoint"]) for name, (headers, _) in answered.items()}
        assert statuses == {"c1": ("200", "v2"), "x1": ("400", "v2"), "x2": ("502", "v2")}
        assert answered["x2"][0]["ce-retriedon"] == "stable"
        assert b'"by": "stable"' in answered["x2"][1]  # what the caller got
        assert "ce-retriedon" not in answered["c1"][0]
        assert float(answered["c1"][0]["ce-latencyms"]) > 0
        at = datetime.fromisoformat(asked["c1"][0]["ce-time"]).timestamp()
        assert before - 1 < at < time.time() + 1
        assert plane.metric("plumb_plane_events_sent_total", service="churn") == 6


def test_the_mode_chooses_what_is_sent_and_can_change_while_running(tmp_path: Path) -> None:
    with sink() as first, sink() as second, plane_in_thread(tmp_path) as plane:
        plane.put(service(**log_to(first.url, "request")))  # type: ignore[arg-type]
        plane.until_ready("stable")
        plane.predict("u1")
        plane.until(lambda: len(first.events) == 1)
        plane.patch({"op": "replace", "path": "/spec/predictor/logger", "value": {"mode": "response", "url": second.url}})
        plane.predict("u2")
        plane.until(lambda: len(second.events) == 1)
        plane.patch({"op": "remove", "path": "/spec/predictor/logger"})
        plane.predict("u3")
        assert [len(first.of("request")), len(second.of("response"))] == [1, 1]
        assert len(first.events + second.events) == 2
        assert plane.revision("stable")["restarts"] == 0


def test_a_slow_sink_slows_no_request_and_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    with sink(delay_s=30) as slow, plane_in_thread(tmp_path, events=20) as plane:
        start(plane, slow.url)
        for number in range(60):
            assert plane.predict(f"u{number}").elapsed.total_seconds() < 5
        # 120 events: 4 are being sent, 20 wait, the rest finds no place.
        plane.until(lambda: plane.metric("plumb_plane_events_dropped_total", reason="queue_full") == 96)


def test_the_events_that_have_waited_longest_make_room_for_new_ones(tmp_path: Path) -> None:
    port = closed_port()
    with plane_in_thread(tmp_path, events=20) as plane:
        start(plane, f"http://127.0.0.1:{port}/")
        for number in range(60):
            plane.predict(f"u{number}")
        with sink(port=port) as late:
            plane.until(lambda: len(late.events) == 24)
        about = {orjson.loads(body)["instances"][0]["entity_id"] for _, body in late.of("request")}
    # The first 4 events were being sent (users 0 and 1), the newest 20 waited (users 50 to 59).
    assert about == {"u0", "u1", *(f"u{number}" for number in range(50, 60))}


def test_what_a_plane_counts_stands_at_0_before_it_happens(tmp_path: Path) -> None:
    """Prometheus sees no rise in a series that begins with its first event."""
    with sink() as received, plane_in_thread(tmp_path) as plane:
        start(plane, received.url, canary=2, percent=100)
        lines = plane.http.get(f"{plane.admin}/metrics").text.splitlines()
        for revision in ("stable", "v2"):
            assert f'plumb_plane_retries_total{{revision="{revision}",service="churn"}} 0.0' in lines
            assert f'plumb_plane_requests_total{{code="502",revision="{revision}",service="churn"}} 0.0' in lines
        assert 'plumb_plane_unrouted_requests_total{service="churn"} 0.0' in lines
        for reason in DROPPED:
            assert f'plumb_plane_events_dropped_total{{reason="{reason}",service="churn"}} 0.0' in lines


def test_a_sink_that_comes_back_gets_what_waited_and_one_that_refuses_loses_it(tmp_path: Path) -> None:
    port = closed_port()
    with plane_in_thread(tmp_path) as plane:
        start(plane, f"http://127.0.0.1:{port}/")
        for number in range(5):
            plane.predict(f"u{number}")
        with sink(port=port) as late:
            plane.until(lambda: len(late.events) == 10)
            about = [orjson.loads(body)["instances"][0]["entity_id"] for _, body in late.of("request")]
        assert sorted(about) == [f"u{number}" for number in range(5)]
        assert plane.metric("plumb_plane_events_sent_total", service="churn") == 10
        assert plane.metric("plumb_plane_events_dropped_total", service="churn") == 0
        with sink(status=500) as broken:
            plane.patch({"op": "replace", "path": "/spec/predictor/logger/url", "value": broken.url})
            plane.predict("u9")
            plane.until(lambda: plane.metric("plumb_plane_events_dropped_total", reason="refused") == 2)
            assert len(broken.events) == 2
            assert plane.predict("u10").status_code == 200  # and no request suffers
        assert plane.metric("plumb_plane_events_sent_total", service="churn") == 10


def test_an_event_that_cannot_be_written_is_counted_and_the_next_ones_are_sent(tmp_path: Path) -> None:
    """As many as there are workers: each has met one, and all go on."""

    async def scenario(url: str) -> tuple[list[str], int]:
        lost: list[str] = []
        sent: list[None] = []
        sender = EventSender(url, "http://127.0.0.1/", lambda: sent.append(None), lost.append)
        for number in range(8):
            event_id = "two\nlines" if number < 4 else f"r{number}"
            sender.offer(
                LoggedEvent(RESPONSE, event_id, 1_740_830_400_000_250, "churn", "v2", "application/json", b"{}", 200, 1.0)
            )
        await sender.close(grace_s=20)
        return lost, len(sent)

    with sink() as received:
        lost, sent = asyncio.run(scenario(received.url))
        told = [(headers["ce-id"], headers["ce-lostanswers"]) for headers, _ in received.events]
        senders = {headers["ce-sender"] for headers, _ in received.events}
    assert (lost, sent) == (["unwritable"] * 4, 4)
    assert sorted(name for name, _ in told) == [f"r{number}" for number in range(4, 8)]
    assert max(told) == ("r7", "4")  # each says how many were lost when it was sent
    assert len(senders) == 1


def test_a_worker_that_fails_is_replaced_and_the_operator_is_told(tmp_path: Path) -> None:
    """What counts sent events raises once, as a bug would."""

    async def scenario(url: str) -> list[str]:
        told: list[str] = []
        calls = iter(range(100))

        def count() -> None:
            if next(calls) < 4:
                raise RuntimeError("a bug")

        sender = EventSender(url, "http://127.0.0.1/", count, lambda _reason: None, tell=told.append)
        for number in range(8):
            sender.offer(LoggedEvent(RESPONSE, f"r{number}", 1, "churn", "v2", "application/json", b"{}", 200, 1.0))
        await sender.close(grace_s=20)
        return told

    with sink() as received:
        told = asyncio.run(scenario(received.url))
        assert len(received.events) == 8
    assert told == [f"an event to {received.url} was lost: RuntimeError('a bug')"] * 4
