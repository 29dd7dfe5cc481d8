"""``make audit``: a million rows served while events arrive late and twice, streams die and a view is added; then the audit.

A producer appends to the live log; ``plumb stream`` folds, is killed with signal 9 and started again; profiles change and the
store is filled anew; users are deleted; a second view gets its store and stream while the first is live. Rows are served in
this process by lookup, predictor and prediction log, 1,000 users a request, and some by ``plumb serve`` over HTTP. In the
end ``plumb audit skew`` makes all of them again. Exits with 1 if one differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from audit.site import PLATFORMS, make_model, register_model
from audit.two_views import CATALOG, ENGAGEMENT
from rich.console import Console

from benchmarks.audit_site import ENTITY, Producer, append_profile_values, clock_us, plumb, streaming
from features.declarations import View
from features.online.addresses import ViewVersion, open_store
from features.online.store import OnlineStore
from features.workspace import Workspace
from inference.artifact import read_artifact
from inference.lookup import look_up
from inference.prediction_log import PredictionLog, Server, finish_by
from inference.predictor import Predictor
from inference.replies import Answer
from inference.requests import ScoreRequest
from plumb.server_process import predict, serving

SUBSCRIBER: Final = CATALOG.view("subscriber")
BATCH: Final = 1_000
HTTP_BATCH: Final = 100
HTTP_EVERY: Final = 10
"""One request in so many also goes to the HTTP server."""
KILLS_AT: Final = (0.15, 0.3, 0.55, 0.75, 0.9)
ADD_VIEW_AT: Final = 0.4
PROFILES_AT: Final = 0.5
DELETE_AT: Final = 0.65
DELETED: Final = 20

console = Console()


@dataclass
class Service:
    """One model that is served in this process."""

    model: str
    view: View
    store: OnlineStore
    predictor: Predictor
    server: Server
    log: PredictionLog
    rng: np.random.Generator
    users: int
    served: int = 0
    dropped: int = 0

    def answer(self) -> None:
        """One request for random users, now."""
        ids = [f"user-{number}" for number in self.rng.integers(self.users + 50, size=BATCH).tolist()]
        now_us = clock_us()
        platforms = [PLATFORMS[number] for number in self.rng.integers(len(PLATFORMS), size=BATCH).tolist()]
        request = ScoreRequest(ids, [now_us] * BATCH, {"platform": platforms}, with_features=False)
        inputs = look_up(self.store, request, self.server.artifact.profile_fields, self.view.freshness_sla_s)
        answer = Answer(request, inputs, self.predictor.predict(inputs.tensors, with_features=False))
        taken = self.log.offer(answer, request_id=f"{self.model}-{self.served}", answered_at_us=clock_us())
        self.served += BATCH if taken else 0
        self.dropped += 0 if taken else BATCH


@contextlib.contextmanager
def in_process(workspace: Workspace, model: str, view: View, users: int, rate: float) -> Iterator[Service]:
    """A model served in this process, its rows logged."""
    artifact = read_artifact(workspace.model(model, 1))
    predictor = Predictor(artifact)
    server = Server(model, 1, "in-process", artifact)
    address = str(workspace.online(view.key))
    with (
        open_store(address, ViewVersion.of(CATALOG, view), readonly=True) as store,
        PredictionLog(workspace.predictions(model), server, finish_by(predictor), whole_rate=rate) as log,
    ):
        yield Service(model, view, store, predictor, server, log, np.random.default_rng(7), users)


def run(folder: Path, options: argparse.Namespace) -> Workspace:
    """The run; leaves the workspace to be audited."""
    workspace = Workspace(folder / "workspace")
    models = {"subscriber-model": SUBSCRIBER, "engagement-model": ENGAGEMENT}
    for name, view in models.items():
        register_model(workspace, make_model(folder / name, CATALOG, view), name, view, CATALOG)
    producer = Producer(workspace, options.users, rate=options.events_per_s)
    producer.import_history(options.history)
    append_profile_values(workspace, options.users, "first profiles", seed=1)
    plumb(workspace, "features", "materialize", "--catalog", CATALOG.name, "--view", SUBSCRIBER.name)
    with ExitStack() as opened:
        opened.enter_context(producer)
        stream = opened.enter_context(streaming(workspace, SUBSCRIBER.name, folder / "stream.log"))
        services = [opened.enter_context(in_process(workspace, "subscriber-model", SUBSCRIBER, options.users, options.whole))]
        store = workspace.online(SUBSCRIBER.key)
        client = opened.enter_context(
            serving(workspace, "subscriber-model", version=1, store=store, log=folder / "server.log")
        )  # fmt: skip
        began, done = time.monotonic(), set()
        over_http = requests = 0
        while (served := sum(service.served for service in services)) < options.rows:
            progress = served / options.rows
            for event in _due(progress, done):
                console.print(f"{time.monotonic() - began:,.0f} s, {served:,} rows: {event}", highlight=False)
                if event == "add a view":
                    _add_view(opened, workspace, folder, services, options)
                elif event == "change profiles":
                    _change_profiles(workspace, stream, options.users)
                elif event == "delete users":
                    _delete(workspace, producer)
                else:
                    stream.kill()
                    stream.start()
            services[requests % len(services)].answer()
            requests += 1
            if requests % HTTP_EVERY == 0:
                rng = services[0].rng
                instances = [
                    {"entity_id": f"user-{number}", "platform": "web"}
                    for number in rng.integers(options.users, size=HTTP_BATCH).tolist()
                ]
                over_http += len(predict(client, "subscriber-model", instances, features=False))
        stream.stop()
    spent_s = time.monotonic() - began
    console.print(f"served {sum(service.served for service in services):,} rows in this process and {over_http:,} over HTTP in "
                  f"{spent_s:,.0f} s; dropped {sum(service.dropped for service in services):,}", highlight=False)  # fmt: skip
    console.print(f"meanwhile {producer.appended:,} events, {producer.late:,} of them hours to weeks late and "
                  f"{producer.repeated:,} repeated; {stream.kills} kills", highlight=False)  # fmt: skip
    return workspace


def _due(progress: float, done: set[str]) -> list[str]:
    """What is to happen now; each once."""
    plan = {f"kill the stream ({number + 1})": at for number, at in enumerate(KILLS_AT)}
    plan |= {"add a view": ADD_VIEW_AT, "change profiles": PROFILES_AT, "delete users": DELETE_AT}
    due = [name for name, at in plan.items() if progress >= at and name not in done]
    done.update(due)
    return due


def _add_view(
    opened: ExitStack, workspace: Workspace, folder: Path, services: list[Service], options: argparse.Namespace
) -> None:  # fmt: skip
    """Fill a second view from the batch log while the first streams on, then stream it too and serve its model."""
    plumb(workspace, "stream", "compact", "--catalog", CATALOG.name, "--entity", ENTITY)
    plumb(workspace, "features", "materialize", "--catalog", CATALOG.name, "--view", ENGAGEMENT.name)
    opened.enter_context(streaming(workspace, ENGAGEMENT.name, folder / "second-stream.log"))
    services.append(
        opened.enter_context(in_process(workspace, "engagement-model", ENGAGEMENT, options.users, options.whole))
    )  # fmt: skip


def _change_profiles(workspace: Workspace, stream: Any, users: int) -> None:
    """New profile values reach the store by another fill, for which the stream stands aside."""
    append_profile_values(workspace, users, "second profiles", seed=2)
    stream.stop()
    time.sleep(SUBSCRIBER.lag_s + 1)  # the store must not go back: events younger than the declared lag would be left out
    plumb(workspace, "stream", "compact", "--catalog", CATALOG.name, "--entity", ENTITY)
    plumb(workspace, "features", "materialize", "--catalog", CATALOG.name, "--view", SUBSCRIBER.name)
    stream.start()


def _delete(workspace: Workspace, producer: Producer) -> None:
    """Delete some users beside the stream, which has to read on until the deletion is complete."""
    names = [f"user-{number}" for number in range(DELETED)]
    with producer.aside():
        plumb(workspace, "users", "erase", "--catalog", CATALOG.name, "--reason", "asked", "--wait-s", "300", *names)


def audit(workspace: Workspace, model: str) -> dict[str, Any]:
    """Run ``plumb audit skew`` and print what it says."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = plumb(workspace, "audit", "skew", "--model", model, "--json", check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stderr[-1500:])
    found: dict[str, Any] = json.loads(done.stdout)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    console.print(f"{model}: {found['rows']:,} rows, {found['whole']:,} whole, {found['statuses']}", highlight=False)
    console.print(f"  mismatches {found['mismatched']}, first {found['first']}", highlight=False)
    console.print(f"  {time.monotonic() - began:,.0f} s, {cpu_s:,.0f} s of processor time, "
                  f"peak {after.ru_maxrss / 1024:,.0f} MB", highlight=False)  # fmt: skip
    training = [row for row in found["differences"] if row["comparison"] == "training"]
    worst = sorted(training, key=lambda row: -row["share"])[:3]
    shares = ", ".join(f"{row['signal']} {row['share']:.2%}" for row in worst)
    console.print(f"  against training at the same time: {shares}", highlight=False)
    return found


def main() -> None:
    """Run, audit, and exit with 1 if a row differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows to serve in this process")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--history", type=int, default=200_000, help="events imported before the run")
    parser.add_argument("--events-per-s", type=int, default=2_000)
    parser.add_argument("--whole", type=float, default=0.01, help="share of rows logged whole")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="plumb-audit-") as scratch:
        workspace = run(Path(scratch), options)
        plumb(workspace, "stream", "compact", "--catalog", CATALOG.name, "--entity", ENTITY)
        found = [audit(workspace, model) for model in ("subscriber-model", "engagement-model")]
    mismatches = sum(one["mismatches"] for one in found)
    console.print(f"{sum(one['rows'] for one in found):,} rows audited, {mismatches:,} mismatches", highlight=False)
    raise SystemExit(mismatches > 0)


if __name__ == "__main__":
    main()
