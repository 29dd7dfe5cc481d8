"""``make bench-serving``: ours beside KServe's Feast transformer with its predictor and beside KServe's bare server."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import orjson
import redis
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from services.servers import free_port, run_redis

from plumb.settings import prepare_native_libraries

prepare_native_libraries(os.environ)
os.environ["FEAST_USAGE"] = "False"

from benchmarks.serving_load import Load  # noqa: E402 - TensorFlow and Feast read the environment while they load
from benchmarks.serving_peer import BARE, PREDICTOR, TRANSFORMER, fill_feast  # noqa: E402
from benchmarks.serving_runs import Run, Target, play, process, wait_until_ready  # noqa: E402
from benchmarks.serving_site import MODEL, PLATFORMS, Site, build_site  # noqa: E402
from inference.artifact import read_artifact  # noqa: E402
from inference.predictor import Predictor  # noqa: E402

OURS, PEER = "ours", "transformer + predictor"
PLUMB: Final = "from plumb.app import main; main()"
SECONDS: Final = 4.0
CLIENTS: Final = (1, 16, 64)
CANDIDATES: Final = 100
COMPARED: Final = 200
TOLERANCE: Final = 1e-6
"""Matrix products of batches of different sizes differ in their last bits."""
PRICE_PER_CORE_HOUR: Final = 0.04
"""Dollars; about what the large clouds ask for a core of a general machine."""


def main() -> None:
    """Measure, and print every figure, then each aim."""
    console = Console(width=170)
    load = os.getloadavg()[0]
    with TemporaryDirectory() as place, run_redis() as redis_port:
        folder = Path(place)
        site = build_site(folder, f"redis://127.0.0.1:{redis_port}/0")
        console.print(f"{len(site.entity_ids):,} users, {site.tiles:.0f} tiles a user on average")
        transformed = fill_peer(site, folder, redis_port)
        with servers(site, folder, redis_port) as targets, redis.Redis(port=redis_port) as store:
            compare(site, targets, console)
            runs = list(measure(site, targets, store))
    show(runs, console)
    show_aims(runs, console)
    console.print(f"{transformed.shape[1]} ready values a user in Feast; scores of both were equal within {TOLERANCE:g}")
    console.print(f"load before the run: {load:.1f} on {os.cpu_count()} cores; above 1, wall times are not ours alone")


def platform_of(site: Site, entity_id: str) -> str:
    """The platform that a user comes from: Feast holds features of users alone, so it must be one."""
    return PLATFORMS[site.entity_ids.index(entity_id) % len(PLATFORMS)]


def fill_peer(site: Site, folder: Path, redis_port: int) -> NDArray[np.float32]:
    """Let Feast hold each user's transformed row, as our own graph gives it at the time that requests ask for."""
    from features.online.addresses import ViewVersion, open_store
    from inference.lookup import look_up
    from inference.requests import ScoreRequest

    artifact = read_artifact(site.model_path)
    with open_store(site.store, ViewVersion.of(site.catalog, site.view), readonly=True) as store:
        platforms = [PLATFORMS[number % len(PLATFORMS)] for number in range(len(site.entity_ids))]
        asked = ScoreRequest(site.entity_ids, [site.as_of_us] * len(platforms), {"platform": platforms}, with_features=True)
        inputs = look_up(store, asked, artifact.profile_fields, site.view.freshness_sla_s)
    transformed: NDArray[np.float32] = Predictor(artifact).predict(inputs.tensors, with_features=True).features["transformed"]
    (folder / "feast").mkdir()
    names = [f"f{number:03d}" for number in range(transformed.shape[1])]
    fill_feast(folder / "feast", f"127.0.0.1:{redis_port}", names, site.entity_ids, transformed)
    return transformed


@contextlib.contextmanager
def servers(site: Site, folder: Path, redis_port: int) -> Iterator[dict[str, Target]]:
    """All processes, ready."""
    ours, bare, predictor, transformer = (free_port() for _ in range(4))
    path = f"/v1/models/{MODEL}:predict"
    peer = ("-m", "benchmarks.serving_peer")
    serve = ["--workspace", str(site.workspace.root), "serve", MODEL, "--port", str(ours), "--grpc-port", str(free_port())]
    with contextlib.ExitStack() as stack:

        def start(name: str, port: int, *words: str) -> Any:
            log = folder / f"{name}.log"
            started = stack.enter_context(process(*words, log=log))
            return lambda: (wait_until_ready(port, started, log), started)[1]

        waiting = {
            "ours": start("ours", ours, "-c", PLUMB, *serve, "--store", site.store),
            BARE: start(BARE, bare, *peer, BARE, str(bare), MODEL),
            PREDICTOR: start(PREDICTOR, predictor, *peer, PREDICTOR, str(predictor), MODEL, str(folder / "network.keras")),
            TRANSFORMER: start(
                TRANSFORMER, transformer, *peer, TRANSFORMER, str(transformer), MODEL, str(predictor), str(folder / "feast"),
                f"127.0.0.1:{redis_port}",
            ),
        }  # fmt: skip
        started = {name: wait() for name, wait in waiting.items()}
        yield {
            OURS: Target(OURS, ours, (started["ours"],), path),
            PEER: Target(PEER, transformer, (started[TRANSFORMER], started[PREDICTOR]), path),
            BARE: Target(BARE, bare, (started[BARE],), path),
        }


def instance(site: Site, entity_id: str) -> dict[str, Any]:
    """One user at the time at which the store stands."""
    return {"entity_id": entity_id, "now": site.as_of_us, "platform": platform_of(site, entity_id)}


def candidates_of(site: Site, entity_id: str, platforms: list[str]) -> dict[str, Any]:
    """One user with a candidate for each platform."""
    return {"entity_id": entity_id, "now": site.as_of_us, "candidates": [{"platform": platform} for platform in platforms]}


def compare(site: Site, targets: dict[str, Target], console: Console) -> None:
    """Ask both for the same users, and ours once more by candidates.

    Raises:
        AssertionError: a score differs.
    """
    chosen = random.Random(1).sample(site.entity_ids, COMPARED)
    body = {"instances": [instance(site, entity_id) for entity_id in chosen]}
    ours = np.array([entry["score"] for entry in targets[OURS].ask(body)])
    by_candidate = {"instances": [candidates_of(site, entity_id, [platform_of(site, entity_id)]) for entity_id in chosen]}
    candidates = np.array([entry["scores"][0] for entry in targets[OURS].ask(by_candidate)])
    peers = np.array(targets[PEER].ask(body))
    worst = max(np.abs(ours - peers).max(), np.abs(ours - candidates).max())
    console.print(f"{COMPARED} users: scores differ by at most {worst:.1e}; they spread by {ours.std():.3f}")
    assert worst <= TOLERANCE, "a score differs between ours and the peer"
    assert ours.std() > 0.01, "a network that answers one number proves nothing"


def measure(site: Site, targets: dict[str, Target], store: redis.Redis[bytes]) -> Iterator[Run]:
    """Every load on every target, taking turns; a short one first, which is thrown away."""
    chance = random.Random(2)
    users = chance.choices(site.entity_ids, k=400)
    single = [_body([instance(site, entity_id)]) for entity_id in users]
    ready = [_body([instance(site, entity_id)] * CANDIDATES) for entity_id in users[:100]]
    candidates = [_body([candidates_of(site, user, chance.choices(PLATFORMS, k=CANDIDATES))]) for user in users[:100]]
    for target in targets.values():
        play(target, Load(target.port, target.path, single, 16, 1.0), 1, store)
    for clients in CLIENTS:
        for target in targets.values():
            yield play(target, Load(target.port, target.path, single, clients, SECONDS), 1, store)
    for target in (targets[OURS], targets[PEER]):
        yield play(
            target, Load(target.port, target.path, single, 16, SECONDS, rate=200 if target.name == OURS else 50), 1, store
        )
    for clients in CLIENTS[:2]:
        for target in (targets[OURS], targets[PEER]):
            bodies = candidates if target.name == OURS else ready
            yield play(target, Load(target.port, target.path, bodies, clients, SECONDS), CANDIDATES, store)


def _body(instances: list[dict[str, Any]]) -> str:
    return orjson.dumps({"instances": instances}).decode()


def describe(run: Run) -> str:
    """A load in words."""
    pace = f"{run.load.rate:.0f} requests/s" if run.load.rate else f"{run.load.clients} clients"
    return f"{run.predictions} a request, {pace}" if run.predictions > 1 else pace


def show(runs: list[Run], console: Console) -> None:
    """Every run."""
    columns = ("load", "target", "requests/s", "predictions/s", "p50 ms", "p99 ms", "server CPU s", "client CPU s",
               "predictions a CPU s", "$ a million")  # fmt: skip
    table = Table(*columns, title=f"V1 over HTTP; CPU of a target's processes and of Redis; ${PRICE_PER_CORE_HOUR} a core-hour")
    for run in runs:
        result = run.result
        cost = 1e6 / run.per_cpu_s / 3_600 * PRICE_PER_CORE_HOUR
        table.add_row(
            describe(run), run.target, f"{result.answered / result.wall_s:,.0f}", f"{run.rate:,.0f}", f"{result.p50_ms:.2f}",
            f"{result.p99_ms:.2f}", f"{run.server_cpu_s:.2f}", f"{result.cpu_s:.2f}", f"{run.per_cpu_s:,.0f}", f"{cost:.5f}",
        )  # fmt: skip
    console.print(table)


def show_aims(runs: list[Run], console: Console) -> None:
    """What was aimed at, what was measured, whether it was reached."""
    of = {(run.target, describe(run)): run for run in runs}
    table = Table("aim", "measured", "reached", title="aims")

    def add(aim: str, measured: str, reached: bool) -> None:
        table.add_row(aim, measured, "yes" if reached else "no")

    for load in dict.fromkeys(describe(run) for run in runs if not run.load.rate):
        ours, peer = of[OURS, load], of[PEER, load]
        ratio = ours.per_cpu_s / peer.per_cpu_s
        add(f"{load}: >= 10x the transformer's predictions a CPU second", f"{ratio:.1f}x", ratio >= 10)
    single = of[OURS, "200 requests/s"].result.p99_ms
    add("single requests at 200/s: p99 < 10 ms", f"{single:.2f} ms", single < 10)
    best = of[OURS, f"{CANDIDATES} a request, {CLIENTS[1]} clients"]
    add("220,000 predictions/s at p99 < 80 ms", f"{best.rate:,.0f} at {best.result.p99_ms:.1f} ms",
        best.rate >= 220_000 and best.result.p99_ms < 80)  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
