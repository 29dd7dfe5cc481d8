"""The detector takes the very events that the local plane sends. Here it keeps their rows; judging needs alibi-detect."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from features.workspace import Workspace
from inference.plane.events import LoggedEvent, write_event
from monitoring.drift.detector import Detector, RefusedEvent
from monitoring.drift.settings import DriftSettings
from monitoring.drift.windows import Key

AT_US = 1_740_830_400_000_000
REPLY = {
    "predictions": [
        {"entity_id": "u1", "score": 0.25, "cold": False, "degraded": None},
        {"entity_id": "u2", "score": 0.5, "cold": True, "degraded": None},
    ],
    "model_name": "churn",
    "model_version": "3",
    "revision": "stable",
}  # fmt: skip


def log(kind: str, body: object, **more: object) -> tuple[dict[str, str], bytes]:
    content = json.dumps(body).encode()
    event = LoggedEvent(kind, "e1", AT_US, "churn", "canary", "application/json", content, **more)  # type: ignore[arg-type]
    headers, sent = write_event(event, "http://127.0.0.1:8000/")
    return {name.lower(): value for name, value in headers.items()}, sent


@pytest.fixture
def detector(tmp_path: Path) -> Iterator[Detector]:
    opened = Detector(Workspace(tmp_path), DriftSettings())
    yield opened
    opened.close()


def test_a_reply_of_the_plane_is_kept_by_revision_and_version(detector: Detector) -> None:
    headers, body = log("response", REPLY, status=200, latency_ms=3.5)
    assert detector.receive(headers, body, AT_US).kept
    assert detector.open_rows() == {Key("churn", "canary", "3", "replies"): 2}
    # The plane sends an event again where it did not see that it had been taken.
    assert not detector.receive(headers, body, AT_US + 1).kept


def test_failures_retries_and_requests_that_only_name_users_are_passed_over(detector: Detector) -> None:
    for kind, body, more in (
        ("response", {"error": "no"}, {"status": 503, "latency_ms": 1.0}),
        ("response", REPLY, {"status": 200, "latency_ms": 1.0, "retried_on": "stable"}),
        ("request", {"instances": [{"entity_id": "u1"}]}, {}),
    ):
        assert not detector.receive(*log(kind, body, **more), AT_US).kept
    assert detector.open_rows() == {}


def test_no_users_id_reaches_the_disk(detector: Detector, tmp_path: Path) -> None:
    detector.receive(*log("response", REPLY, status=200, latency_ms=3.5), AT_US)
    (path,) = tmp_path.rglob("*.open")
    assert b"u1" not in path.read_bytes()
    assert b"0.25" in path.read_bytes()


@pytest.mark.parametrize("service", ["../churn", "a/b", "", "a@b", ".."])
def test_a_name_that_could_leave_the_folder_is_refused(detector: Detector, service: str) -> None:
    headers, body = log("response", REPLY, status=200)
    with pytest.raises(RefusedEvent):
        detector.receive(headers | {"ce-inferenceservicename": service}, body, AT_US)
    with pytest.raises(RefusedEvent):
        detector.receive(headers, json.dumps(REPLY | {"model_version": f"x/{service}"}).encode(), AT_US)


def test_alibi_detect_is_not_needed_to_take_events_in() -> None:
    assert "alibi_detect" not in sys.modules
