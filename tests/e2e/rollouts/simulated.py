"""A controller under a hand clock: users of a town ask once a while, the plane's documents decide who answers, and events of
every answer go to the collector as the plane would write them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e.rollouts.document_plane import SERVICE, START_US, DocumentPlane, document, serve_admin

from features.workspace import Workspace
from inference.plane.events import LoggedEvent, write_event
from inference.plane.routing import Split
from monitoring.rollout.collector import Collector
from monitoring.rollout.controller import Controller
from monitoring.rollout.journal import NewRollout, Request, request_rollout
from monitoring.rollout.leader import US_PER_S, Claim
from monitoring.rollout.plan import GateSpec, Plan, Stage, describe_plan
from monitoring.rollout.records import Standing, list_rollouts
from monitoring.rollout.surroundings import Surroundings
from monitoring.rollout.traffic import PlaneTraffic, Traffic

PLAN = Plan(
    stages=(Stage(10, 5, 30), Stage(50, 5, 100)),
    gates=(GateSpec("errors", 0.05), GateSpec("score", 0.2)),
    hold_s=30,
    blind_s=20,
)
"""Two stages of 5 s and two gates: what a test can walk through."""
USERS = 2_000
REQUESTS_A_S = 200


class Registry:
    """Champions by model, as the controller asks for them."""

    def __init__(self) -> None:
        self.champions: dict[str, int] = {"churn": 1}
        self.reasons: list[str] = []

    def champion(self, model: str) -> int | None:
        return self.champions.get(model)

    def promote(self, model: str, version: int, why: str, at_us: int) -> None:
        self.champions[model] = version
        self.reasons.append(why)


@dataclass
class Town:
    """One plane with its users, and the time; ``controllers`` tick in order, once a second."""

    workspace: Workspace
    plane: DocumentPlane
    traffic: Traffic
    registry: Registry = field(default_factory=Registry)
    now_us: int = START_US
    told: list[str] = field(default_factory=list)
    answer: Callable[[int, random.Random], tuple[int, float]] = lambda version, rng: (200, rng.betavariate(2, 5))
    silent: bool = False
    url: str = ""
    rate: int = REQUESTS_A_S
    lease_s: float = 10
    chance: random.Random = field(default_factory=lambda: random.Random(5))

    def controller(self, holder: str = "first", **changes: Any) -> Controller:
        facts: dict[str, Any] = {
            "workspace": self.workspace, "traffic": self.traffic, "collector": Collector(), "aliases": self.registry,
            "claim": Claim(holder, ttl_s=self.lease_s, timeout_s=0.2), "tell": self.told.append, "ready_within_s": 20,
        }  # fmt: skip
        self.collector = facts["collector"] = changes.pop("collector", facts["collector"])
        return Controller(Surroundings(**{**facts, **changes}))

    def start(self, plan: Plan = PLAN, canary: int = 2, stable: int = 1) -> Standing:
        new = NewRollout(SERVICE, "churn", stable, canary, describe_plan(plan))
        return request_rollout(self.workspace, new, Request("ann", "better offline", self.now_us))

    def send(self, collectors: list[Collector]) -> None:
        """One second of requests, routed as the plane's document says now."""
        service = self.plane.documents.service(SERVICE)
        assert service is not None
        canary = service.canary if service.canary and service.canary.predictor.name not in self.plane.unready else None
        split = Split(SERVICE, service.salt, canary.percent if canary else 0)
        for number in range(0 if self.silent else self.rate):
            user = f"u{self.chance.randrange(USERS)}"
            predictor = canary.predictor if canary is not None and split.takes(user) else service.stable
            status, score = self.answer(predictor.version, self.chance)
            body = {"predictions": [{"entity_id": user, "score": score, "degraded": None}]} if status == 200 else {"error": "x"}
            at_us = self.now_us + number * (US_PER_S // self.rate)
            logged = LoggedEvent(
                "response", f"{self.now_us}-{number}", at_us, SERVICE, predictor.name, "application/json",
                json.dumps(body).encode(), status=status, latency_ms=0.5,
            )  # fmt: skip
            headers, content = write_event(logged, "http://127.0.0.1")
            for collector in collectors:
                collector.receive({name.lower(): value for name, value in headers.items()}, content)

    def run(self, *controllers: Controller, seconds: int, until: Callable[[], bool] = lambda: False) -> int:
        """Tick until it is so or the time is over; returns the seconds that went by."""
        for second in range(seconds):
            if until():
                return second
            self.send([controller.collector for controller in controllers])
            self.now_us += US_PER_S
            for controller in controllers:
                controller.tick(self.now_us)
        return seconds

    @property
    def standing(self) -> Standing:
        """The newest rollout."""
        return list_rollouts(self.workspace)[0]

    @property
    def phase(self) -> str:
        return self.standing.step.phase

    @property
    def percent(self) -> int:
        """What the plane gives the canary now."""
        service = self.plane.documents.service(SERVICE)
        assert service is not None
        return service.canary.percent if service.canary else 0


@contextmanager
def open_town(folder: Path, control_url: str = "") -> Iterator[Town]:
    """A plane that serves version 1, with its admin API on loopback."""
    plane = DocumentPlane(folder / "services")
    plane.documents.apply_file(document(1), START_US)
    with serve_admin(plane) as url:
        traffic = PlaneTraffic(url)
        try:
            yield Town(Workspace(folder / "workspace", control_url), plane, traffic)
        finally:
            traffic.close()


def broken_score(version: int, rng: random.Random) -> tuple[int, float]:
    """Version 2 answers almost always the same."""
    return 200, rng.betavariate(2, 5) if version == 1 else rng.uniform(0.9, 1.0)
