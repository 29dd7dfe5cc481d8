"""The admin API: Kubernetes' calls and codes, on a running plane."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from planes.harness import Threaded, canary_of, plane_in_thread, service

from inference.plane.admin import COLLECTION


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Threaded]:
    with plane_in_thread(tmp_path_factory.mktemp("plane")) as running:
        assert running.put(service()).status_code == 200
        running.until_ready("stable")
        yield running


def status_of(reply: httpx.Response) -> tuple[int, str]:
    content = reply.json()
    assert (content["kind"], content["code"]) == ("Status", reply.status_code)
    assert "\n" not in content["message"]
    return reply.status_code, content["reason"]


def test_a_service_is_shown_with_its_status(plane: Threaded) -> None:
    shown = plane.get()
    assert shown["metadata"]["namespace"] == "default"
    assert int(shown["metadata"]["resourceVersion"]) > 0
    assert shown["status"]["conditions"] == [
        {"type": "Ready", "status": "True"}, {"type": "Recorded", "status": "True"},
    ]  # fmt: skip
    assert shown["status"]["url"] == f"{plane.url}/v1/models/churn:predict"
    (revision,) = shown["status"]["revisions"]
    expected = {
        "name": "stable",
        "storageUri": "pvc://plumb-models/churn/1",
        "ready": True,
        "restarts": 0,
        "trafficPercent": 100,
    }
    assert {key: revision[key] for key in expected} == expected
    assert revision["port"] > 0
    listed = plane.http.get(f"{plane.admin}{COLLECTION}").json()
    assert [item["metadata"]["name"] for item in listed["items"]] == ["churn"]


def test_a_patch_that_tests_an_old_version_is_a_conflict_and_changes_nothing(plane: Threaded) -> None:
    before = plane.get()
    version = before["metadata"]["resourceVersion"]
    test = {"op": "test", "path": "/metadata/resourceVersion", "value": version}
    label = {"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}
    after = plane.patch(test, label).json()
    assert int(after["metadata"]["resourceVersion"]) > int(version)
    assert after["metadata"]["labels"] == {"a": "b"}
    assert status_of(plane.patch(test, {"op": "remove", "path": "/metadata/labels"})) == (409, "Conflict")
    assert plane.get()["metadata"] == after["metadata"]


def test_a_put_names_the_version_it_read(plane: Threaded) -> None:
    document = plane.get()
    assert plane.put(document).status_code == 200
    assert status_of(plane.put(document)) == (409, "Conflict")
    assert status_of(plane.put(service())) == (409, "Conflict")


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ({"op": "test", "path": "/spec/predictor/timeout", "value": 5}, (422, "Invalid")),
        ({"op": "add", "path": "/spec/transformer", "value": {}}, (422, "Invalid")),
        ({"op": "add", "path": "/spec/canary", "value": [canary_of(2, 200)]}, (422, "Invalid")),
        ({"op": "move", "path": "/spec", "from": "/kind"}, (422, "Invalid")),
        ({"op": "replace", "path": "/metadata/resourceVersion", "value": "1"}, (409, "Conflict")),
        ({"op": "replace", "path": "/metadata/name", "value": "other"}, (422, "Invalid")),
    ],
)
def test_a_patch_that_cannot_be_followed_is_refused_and_changes_nothing(
    plane: Threaded, operation: dict[str, Any], expected: tuple[int, str]
) -> None:
    before = plane.get()
    assert status_of(plane.patch(operation)) == expected
    assert plane.get() == before


def test_what_cannot_be_read_or_found_is_said_in_kubernetes_words(plane: Threaded) -> None:
    address = f"{plane.admin}{COLLECTION}"
    assert status_of(plane.http.get(f"{address}/nobody")) == (404, "NotFound")
    assert status_of(plane.patch(name="nobody")) == (404, "NotFound")
    assert status_of(plane.http.delete(f"{address}/nobody")) == (404, "NotFound")
    assert status_of(plane.http.patch(f"{address}/churn", json={})) == (415, "UnsupportedMediaType")
    assert status_of(plane.http.put(f"{address}/churn", content=b"{")) == (400, "BadRequest")
    assert status_of(plane.http.put(f"{address}/churn", json=[])) == (422, "Invalid")


def test_a_service_is_put_served_and_deleted(plane: Threaded) -> None:
    assert plane.put(service(name="second")).status_code == 200
    plane.until_ready("stable", of="second")
    assert plane.predict("u1", name="second").json()["path"] == "/v1/models/churn:predict"
    assert plane.http.delete(f"{plane.admin}{COLLECTION}/second").json()["status"] == "Success"
    assert plane.predict("u1", name="second").status_code == 404
    assert plane.predict("u1").status_code == 200


def test_health_and_metrics_are_there(plane: Threaded) -> None:
    assert plane.http.get(f"{plane.admin}/healthz").text == "ok"
    assert plane.metric("plumb_plane_weight", service="churn", revision="stable") == 100
