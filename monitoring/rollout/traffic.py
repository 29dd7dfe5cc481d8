"""How a rollout moves traffic: what any data plane must be able to do, and the adapter for the plane on one machine.

Every verb acts on a ``Routing`` that was read before and does nothing if the plane has changed since; so a controller that
was stopped between reading and acting cannot undo what its successor did. A verb that is repeated on a fresh routing ends
in the same place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import httpx

from features.errors import explain
from monitoring.errors import TrafficChanged, TrafficError, TrafficUnavailable

SERVICES: Final = "/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices"
JSON_PATCH: Final = "application/json-patch+json"
MODE: Final = "serving.kserve.io/deploymentMode"
MODE_PATH: Final = "/metadata/annotations/serving.kserve.io~1deploymentMode"
STORAGE: Final = re.compile(r"pvc://plumb-models/(?P<model>[^/]+)/(?P<version>\d+)/?")
STABLE: Final = "stable"
"""A stable revision's name where its predictor gives none."""
READ_TIMEOUT_S: Final = 5.0
CHANGE_TIMEOUT_S: Final = 30.0
"""A change is answered once no request is with a revision that it took off."""


@dataclass(frozen=True)
class Target:
    """A registered version of a model."""

    model: str
    version: int

    @property
    def storage_uri(self) -> str:
        return f"pvc://plumb-models/{self.model}/{self.version}"

    def __str__(self) -> str:
        return f"{self.model} version {self.version}"


@dataclass(frozen=True)
class Canary:
    """The second revision: its name, what it runs, its share of traffic in percent, and whether it answers."""

    name: str
    target: Target
    percent: int
    ready: bool


@dataclass(frozen=True)
class Routing:
    """A service as it is routed now; ``lock`` changes whenever anything in it does.

    ``ready`` says whether the stable revision answers, ``sends_events`` whether the plane tells somebody what it is
    asked and what it answers.
    """

    service: str
    stable_name: str
    stable: Target
    canary: Canary | None
    ready: bool
    lock: str
    sends_events: bool = True


class Traffic(Protocol):
    """A data plane. KServe's Knative and Standard modes fit behind it as well as ours does.

    Every method raises ``TrafficUnavailable`` where the plane does not answer, ``TrafficError`` where it refuses; those that
    change something raise ``TrafficChanged`` where it is no longer as the routing says.
    """

    def read(self, service: str) -> Routing:
        """How a service is routed now."""

    def start(self, routing: Routing, canary: Target, name: str) -> Routing:
        """Add a canary at 0 %, which begins to load. A plane without names for revisions ignores ``name``."""

    def shift(self, routing: Routing, percent: int) -> Routing:
        """Give the canary this share."""

    def promote(self, routing: Routing) -> Routing:
        """Make the canary the stable revision, without a restart, and leave no canary."""

    def roll_back(self, routing: Routing) -> Routing:
        """Take all traffic from the canary and stop it."""

    def restore(self, routing: Routing, stable: Target, name: str) -> Routing:
        """Run another version as the stable revision, named so where revisions have names, and leave no canary."""


class PlaneTraffic:
    """The plane of ``plumb up``, by its admin API: KServe's Standard mode, ``spec.canary`` (KServe 0.20, RFC 6902 patches)."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx.Client(base_url=url, timeout=READ_TIMEOUT_S)

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def read(self, service: str) -> Routing:
        """How a service is routed now."""
        return read_routing(self._call("GET", service))

    def start(self, routing: Routing, canary: Target, name: str) -> Routing:
        """Add a canary at 0 %."""
        document = self._call("GET", routing.service)
        predictor = {"name": name, "model": {
            "name": "kserve-container", "modelFormat": document["spec"]["predictor"]["model"]["modelFormat"],
            "storageUri": canary.storage_uri,
        }}  # fmt: skip
        entry = [{"trafficPercent": 0, "predictor": predictor}]
        return self._patch(routing, [*_standard_mode(document), {"op": "add", "path": "/spec/canary", "value": entry}])

    def shift(self, routing: Routing, percent: int) -> Routing:
        """Give the canary this share."""
        return self._patch(routing, [{"op": "replace", "path": "/spec/canary/0/trafficPercent", "value": percent}])

    def promote(self, routing: Routing) -> Routing:
        """Make the canary's predictor the stable one, name and all, so that its process goes on."""
        document = self._call("GET", routing.service)
        stable, canary = document["spec"]["predictor"], document["spec"]["canary"][0]["predictor"]
        merged = {**stable, **canary, "model": {**stable["model"], **canary["model"]}}
        return self._patch(
            routing,
            [{"op": "replace", "path": "/spec/predictor", "value": merged}, {"op": "remove", "path": "/spec/canary"}],
        )

    def roll_back(self, routing: Routing) -> Routing:
        """Remove the canary."""
        return self._patch(routing, [{"op": "remove", "path": "/spec/canary"}])

    def restore(self, routing: Routing, stable: Target, name: str) -> Routing:
        """Replace the stable revision's model; it has a new name, so that its events are its own."""
        operations: list[dict[str, Any]] = [
            {"op": "replace", "path": "/spec/predictor/model/storageUri", "value": stable.storage_uri},
            {"op": "add", "path": "/spec/predictor/name", "value": name},
        ]
        if routing.canary is not None:
            operations.append({"op": "remove", "path": "/spec/canary"})
        return self._patch(routing, operations)

    def _patch(self, routing: Routing, operations: list[dict[str, Any]]) -> Routing:
        guarded = [{"op": "test", "path": "/metadata/resourceVersion", "value": routing.lock}, *operations]
        return read_routing(self._call("PATCH", routing.service, guarded))

    def _call(self, method: str, service: str, operations: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        path = f"{SERVICES}/{service}"
        try:
            if operations is None:
                reply = self._client.request(method, path)
            else:
                headers = {"Content-Type": JSON_PATCH}
                reply = self._client.request(method, path, json=operations, headers=headers, timeout=CHANGE_TIMEOUT_S)
        except httpx.TransportError as error:
            raise TrafficUnavailable(
                explain("data plane does not answer", which=self._url, expected="the admin API of plumb up",
                        got=str(error) or type(error).__name__, next_step="start it: plumb up")
            ) from error  # fmt: skip
        content = _json_object(reply)
        if reply.status_code == httpx.codes.OK:
            return content
        told = explain("data plane refused", which=f"{method} {service}", expected="200", next_step="look at the service",
                       got=f"{reply.status_code}: {content.get('message', reply.text)}")  # fmt: skip
        if reply.status_code == httpx.codes.CONFLICT:
            raise TrafficChanged(told)
        if reply.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise TrafficUnavailable(told)
        raise TrafficError(told)


def read_routing(document: Mapping[str, Any]) -> Routing:
    """The routing that an InferenceService with its status describes.

    Raises:
        TrafficError: it is not one of ours.
    """
    try:
        metadata, spec, status = document["metadata"], document["spec"], document.get("status", {})
        ready_by_name = {entry["name"]: entry["ready"] is True for entry in status.get("canaryStatuses", ())}
        conditions = {entry["type"]: entry["status"] for entry in status.get("conditions", ())}
        canary = None
        for entry in spec.get("canary") or ():
            name = entry["predictor"]["name"]
            target = _target(entry["predictor"])
            canary = Canary(name, target, int(entry["trafficPercent"]), ready_by_name.get(name, False))
        predictor = spec["predictor"]
        return Routing(
            metadata["name"], predictor.get("name") or STABLE, _target(predictor), canary, conditions.get("Ready") == "True",
            str(metadata["resourceVersion"]), (predictor.get("logger") or {}).get("mode") == "all",
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrafficError(
            explain("service cannot be read", which="InferenceService", expected="one of plumb up", got=repr(error),
                    next_step="look at it on the admin API")
        ) from error  # fmt: skip


def _target(predictor: Mapping[str, Any]) -> Target:
    uri = str(predictor["model"]["storageUri"])
    found = STORAGE.fullmatch(uri)
    if found is None:
        raise TrafficError(
            explain("model is not a registered version", which=uri, expected="pvc://plumb-models/MODEL/VERSION", got=uri,
                    next_step="correct the service")
        )  # fmt: skip
    return Target(found["model"], int(found["version"]))


def _standard_mode(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Patches that make a service one that may have a canary."""
    annotations = document["metadata"].get("annotations")
    if annotations is None:
        return [{"op": "add", "path": "/metadata/annotations", "value": {MODE: "Standard"}}]
    if annotations.get(MODE) == "Standard":
        return []
    return [{"op": "add", "path": MODE_PATH, "value": "Standard"}]


def _json_object(reply: httpx.Response) -> dict[str, Any]:
    try:
        content = reply.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
