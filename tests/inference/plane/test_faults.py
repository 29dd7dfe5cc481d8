"""A plane under faults, with stand-in servers: what a caller sees, what is counted, what is left running."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest
from planes.harness import canary_of, plane_in_thread, service

from inference.plane.routing import bucket_of


def users(salt: str, percent: int, count: int, *, inside: bool) -> list[str]:
    """Entities that a sticky split of this share has, or has not, in the canary."""
    named = (f"u{number}" for number in itertools.count())
    found = (name for name in named if (bucket_of("churn", salt, name) < percent * 100) == inside)
    return list(itertools.islice(found, count))


def test_a_canary_gets_its_share_only_once_it_is_ready_and_keeps_its_users(tmp_path: Path) -> None:
    with plane_in_thread(tmp_path) as plane:
        plane.put(service())
        plane.until_ready("stable")
        slow = canary_of(2, 5)
        slow["predictor"]["model"]["env"] = [{"name": "STAND_IN_START_S", "value": "1.5"}]
        shown = plane.patch({"op": "add", "path": "/spec/canary", "value": [slow]}).json()
        assert shown["status"]["canaryStatuses"] == [{"name": "v2", "ready": False, "trafficPercent": 5}]
        chosen, others = users("v2", 5, 3, inside=True), users("v2", 25, 3, inside=False)
        assert plane.predict(chosen[0]).headers["x-plumb-revision"] == "stable"
        assert plane.metric("plumb_plane_weight", revision="v2") == 0
        plane.until_ready("v2")
        assert plane.get()["status"]["canaryStatuses"][0]["ready"]
        assert plane.metric("plumb_plane_weight", revision="v2") == 5
        for percent in (5, 25):
            plane.shift(percent)
            assert {plane.predict(user).headers["x-plumb-revision"] for user in chosen} == {"v2"}
            assert {plane.predict(user).headers["x-plumb-revision"] for user in others} == {"stable"}
        plane.shift(0)
        assert {plane.predict(user).headers["x-plumb-revision"] for user in chosen + others} == {"stable"}
        plane.shift(100)
        assert {plane.predict(user).headers["x-plumb-revision"] for user in chosen + others} == {"v2"}


def test_a_request_of_several_entities_is_divided_and_joined_in_order(tmp_path: Path) -> None:
    with plane_in_thread(tmp_path) as plane:
        plane.put(service(canary=2, percent=30))
        plane.until_ready("stable", "v2")
        inside, outside = users("v2", 30, 3, inside=True), users("v2", 30, 3, inside=False)
        mixed = [inside[0], outside[0], outside[1], inside[1], outside[2], inside[2]]
        reply = plane.predict(*mixed)
        assert [entry["entity_id"] for entry in reply.json()["predictions"]] == mixed
        assert [entry["by"] for entry in reply.json()["predictions"]] == reply.json()["revisions"]
        assert reply.json()["revisions"] == ["v2", "stable", "stable", "v2", "stable", "v2"]
        assert reply.headers["x-plumb-revision"] == "v2,stable"
        refused = plane.predict(inside[0], outside[0], "bad")
        assert (refused.status_code, refused.json()) == (400, {"error": "bad entity"})
        both = httpx.post(
            f"{plane.url}/v2/models/churn/infer", json={"inputs": [{"name": "entity_id", "data": [inside[0], outside[0]]}]}
        )
        assert both.headers["x-plumb-revision"] == "v2"


def test_a_crashing_canarys_requests_are_answered_by_stable_and_counted_against_it(tmp_path: Path) -> None:
    with plane_in_thread(tmp_path) as plane:
        plane.put(service(canary=2, percent=100))
        plane.until_ready("stable", "v2")
        reply = plane.predict("die-v2", **{"x-request-id": "r1"})
        assert (reply.status_code, reply.headers["x-plumb-revision"]) == (200, "stable")
        assert reply.json()["request_id"] == reply.headers["x-request-id"] == "r1"
        assert plane.metric("plumb_plane_requests_total", revision="v2", code="502") == 1
        assert plane.metric("plumb_plane_requests_total", revision="stable", code="200") == 1
        assert plane.metric("plumb_plane_retries_total", revision="v2") == 1
        plane.until_ready("v2")
        assert plane.revision("v2")["restarts"] == 1
        assert plane.predict("u1").headers["x-plumb-revision"] == "v2"
        assert any(line.startswith("churn/v2 not ready: ended with -9") for line in plane.told)


def test_without_stable_its_users_are_refused_at_once_and_not_given_to_the_canary(tmp_path: Path) -> None:
    with plane_in_thread(tmp_path, backoff_s=1.0) as plane:
        plane.put(service(canary=2, percent=30))
        plane.until_ready("stable", "v2")
        inside, outside = users("v2", 30, 1, inside=True), users("v2", 30, 1, inside=False)
        os.kill(plane.revision("stable")["pid"], signal.SIGKILL)
        plane.until(lambda: not plane.revision("stable")["ready"])
        reply = plane.predict(outside[0])
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        assert "x-plumb-revision" not in reply.headers
        assert plane.predict(inside[0]).headers["x-plumb-revision"] == "v2"
        assert plane.metric("plumb_plane_unrouted_requests_total", service="churn") == 1
        assert plane.http.get(f"{plane.url}/v2/health/ready").status_code == 503
        plane.until(lambda: plane.predict(outside[0]).status_code == 200)


def test_a_revision_that_stops_answering_probes_gets_nothing_and_is_started_again(tmp_path: Path) -> None:
    with plane_in_thread(tmp_path, probe_timeout_s=0.3, hung_failures=40) as plane:
        plane.put(service(canary=2, percent=100))
        plane.until_ready("stable", "v2")
        httpx.get(f"http://127.0.0.1:{plane.revision('v2')['port']}/v2/models/churn/turn/unready")
        plane.until(lambda: not plane.revision("v2")["ready"])
        assert plane.predict("u1").headers["x-plumb-revision"] == "stable"
        plane.until_ready("v2")  # hung_failures later, as a new process
        assert plane.revision("v2")["restarts"] == 1
        assert any("no answer to 40 probes" in line for line in plane.told)


def test_a_stable_revision_too_busy_for_probes_is_still_asked_because_nobody_stands_in_for_it(tmp_path: Path) -> None:
    with plane_in_thread(tmp_path, probe_timeout_s=0.3, hung_failures=100) as plane:
        plane.put(service())
        plane.until_ready("stable")
        httpx.get(f"http://127.0.0.1:{plane.revision('stable')['port']}/v2/models/churn/turn/unready")
        plane.until(lambda: not plane.revision("stable")["ready"])
        assert plane.predict("u1").headers["x-plumb-revision"] == "stable"


def test_a_canary_at_zero_answers_nobody_though_it_runs_the_version_of_a_busy_stable_revision(tmp_path: Path) -> None:
    with plane_in_thread(tmp_path, probe_timeout_s=0.3, hung_failures=100) as plane:
        plane.put(service(canary=1, percent=0))
        plane.until_ready("stable", "v1")
        httpx.get(f"http://127.0.0.1:{plane.revision('stable')['port']}/v2/models/churn/turn/unready")
        plane.until(lambda: not plane.revision("stable")["ready"])
        assert plane.predict("u1").headers["x-plumb-revision"] == "stable"


def test_requests_in_flight_on_a_hung_process_are_answered_by_stable(tmp_path: Path) -> None:
    with plane_in_thread(tmp_path, probe_timeout_s=0.2, hung_failures=4) as plane:
        plane.put(service(canary=2, percent=100))
        plane.until_ready("stable", "v2")
        os.kill(plane.revision("v2")["pid"], signal.SIGSTOP)
        started = time.monotonic()
        assert plane.predict("u1").headers["x-plumb-revision"] == "stable"
        assert time.monotonic() - started < 10


def test_a_weight_of_zero_is_acknowledged_once_nobody_is_answered_there_any_more(tmp_path: Path) -> None:
    with plane_in_thread(tmp_path) as plane:
        plane.put(service(canary=2, percent=100))
        plane.until_ready("stable", "v2")
        replies: dict[str, tuple[float, httpx.Response]] = {}

        def ask(entity: str) -> None:
            reply = plane.predict(entity)
            replies[entity] = (time.monotonic(), reply)

        threads = [threading.Thread(target=ask, args=(entity,)) for entity in ("sleep-500-a", "sleep-5000-b")]
        for thread in threads:
            thread.start()
        plane.until(lambda: plane.metric("plumb_plane_weight", revision="v2") == 100)
        time.sleep(0.2)
        plane.shift(0)
        acknowledged = time.monotonic()
        for thread in threads:
            thread.join()
        at, finished = replies["sleep-500-a"]
        assert finished.headers["x-plumb-revision"] == "v2"  # it had time to finish
        assert at < acknowledged + 0.1
        _, cut = replies["sleep-5000-b"]
        assert (cut.status_code, cut.headers["x-plumb-revision"]) == (200, "stable")  # drain_s is 1 s here
        assert plane.revision("v2")["ready"]
        assert plane.revision("v2")["restarts"] == 0


def test_a_promoted_canary_keeps_its_process_and_the_old_stable_ends(tmp_path: Path) -> None:
    with plane_in_thread(tmp_path) as plane:
        plane.put(service(canary=2, percent=100))
        plane.until_ready("stable", "v2")
        old, new = plane.revision("stable")["pid"], plane.revision("v2")["pid"]
        predictor = {"op": "replace", "path": "/spec/predictor", "value": canary_of(2, 0)["predictor"]}
        shown = plane.patch(predictor, {"op": "remove", "path": "/spec/canary"}).json()
        assert [entry["name"] for entry in shown["status"]["revisions"]] == ["v2"]
        assert (plane.revision("v2")["pid"], plane.revision("v2")["trafficPercent"]) == (new, 100)
        assert plane.predict("u1").headers["x-plumb-revision"] == "v2"
        plane.until(lambda: not Path(f"/proc/{old}").exists())


def test_a_replaced_stable_answers_until_its_successor_is_ready_and_no_request_is_lost(tmp_path: Path) -> None:
    with plane_in_thread(tmp_path, environment={"STAND_IN_START_S": "0.5"}) as plane:
        plane.put(service())
        plane.until_ready("stable")
        codes: list[tuple[int, str]] = []
        done = threading.Event()

        def ask() -> None:
            with httpx.Client() as client:
                while not done.is_set():
                    body = {"instances": [{"entity_id": f"sleep-20-{len(codes)}"}]}
                    reply = client.post(f"{plane.url}/v1/models/churn:predict", json=body)
                    codes.append((reply.status_code, reply.headers.get("x-plumb-revision", "")))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        version = {"op": "replace", "path": "/spec/predictor/model/storageUri", "value": "pvc://plumb-models/churn/3"}
        plane.patch(version, {"op": "add", "path": "/spec/predictor/name", "value": "v3"})
        plane.until_ready("v3")
        plane.until(lambda: codes[-1][1] == "v3")
        done.set()
        for thread in threads:
            thread.join()
        assert {code for code, _ in codes} == {200}
        names = [name for _, name in codes]
        assert set(names) == {"stable", "v3"}


def test_a_version_that_cannot_start_is_tried_ever_more_rarely_and_the_one_before_goes_on(tmp_path: Path) -> None:
    with plane_in_thread(tmp_path, backoff_s=0.1) as plane:
        plane.put(service())
        plane.until_ready("stable")
        broken = [{"name": "STAND_IN_START_S", "value": "soon"}]
        plane.patch(
            {"op": "add", "path": "/spec/predictor/name", "value": "broken"},
            {"op": "add", "path": "/spec/predictor/model/env", "value": broken},
        )
        plane.until(lambda: plane.revision("broken")["restarts"] >= 3)
        assert plane.predict("u1").headers["x-plumb-revision"] == "stable"
        shown = plane.get()["status"]["conditions"][0]
        assert shown["status"] == "False"
        assert "could not convert string to float: 'soon'" in shown["message"]


@pytest.mark.parametrize("gone", [0, 50])
def test_a_plane_that_stops_leaves_no_process(tmp_path: Path, gone: int) -> None:
    with plane_in_thread(tmp_path) as plane:
        plane.put(service(canary=2, percent=gone))
        plane.until_ready("stable", "v2")
        processes = [plane.revision(name)["pid"] for name in ("stable", "v2")]
    assert not [process for process in processes if Path(f"/proc/{process}").exists()]
    with plane_in_thread(tmp_path) as again:
        assert again.get()["spec"]["canary"][0]["trafficPercent"] == gone
        again.until_ready("stable", "v2")


def test_a_plane_that_stops_answers_what_it_has_taken(tmp_path: Path) -> None:
    replies: list[httpx.Response] = []
    with plane_in_thread(tmp_path) as plane:
        plane.put(service())
        plane.until_ready("stable")
        asking = threading.Thread(target=lambda: replies.append(httpx.post(
            f"{plane.url}/v1/models/churn:predict", json={"instances": [{"entity_id": "sleep-1500-a"}]}, timeout=30
        )))  # fmt: skip
        asking.start()
        time.sleep(0.5)
    asking.join()
    assert replies[0].status_code == 200
