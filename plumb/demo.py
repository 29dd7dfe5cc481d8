"""``plumb demo``: the whole line once, on simulated users: from events to a served model whose answers are checked."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from features.workspace import Workspace
from plumb import events
from plumb.demo_rollout import roll_out, timeline_table
from plumb.instants import show_instant
from plumb.native_log import native_log
from plumb.pipelines import launch_blessed
from plumb.runs import comparison_table, show_figure
from plumb.settings import Settings

if TYPE_CHECKING:
    import httpx

    from components.served_parity import Parity
    from pipelines.records import RunRecord

console = Console()
status = Console(stderr=True)

MODEL = "churn"
PLATFORMS = ("ios", "android", "web")
SINGLE_REQUESTS = 300
BATCH_REQUESTS = 60
BATCH_ENTITIES = 64
PARITY_ROWS = 500
LATEST_REQUEST_US = 3 * 86_400 * 1_000_000
"""Requests name a ``now`` up to this long after the store was filled, so that windows have moved on since."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one kind of request, as the client saw them."""

    requests: int
    p50_ms: float
    p99_ms: float

    def __str__(self) -> str:
        return f"{self.p50_ms:.1f} / {self.p99_ms:.1f} ms"


def demo(
    ctx: typer.Context,
    users: Annotated[int, typer.Option(min=5_000, help="Simulated users.")] = 6_000,
    days: Annotated[int, typer.Option(min=280, help="Simulated days.")] = 300,
    seed: Annotated[int, typer.Option(help="Seed of the simulation and of training.")] = 7,
) -> None:
    """Simulate, import, train, report, serve, ask, compare with the batch path; promote a good version, roll back a bad one.

    Exits with 1 if a served value differs, a request is lost, or a rollout ends otherwise.
    """
    settings: Settings = ctx.obj
    workspace = settings.workspace
    started = time.monotonic()
    folder = workspace.root / "simulated"
    announce(f"plumb events simulate --users {users} --days {days} --seed {seed} --out {folder}")
    events.simulate(users=users, days=days, seed=seed, out=folder)
    for name, mapping in (("events", "subscription"), ("accounts", "subscription_accounts")):
        announce(f"plumb events import {folder / name}.parquet --mapping {mapping}")
        events.import_command(ctx, [folder / f"{name}.parquet"], mapping=mapping)
    announce(f"plumb pipelines run {MODEL}")
    record, version = launch_blessed(workspace, MODEL, seed=seed)
    console.print(comparison_table(record.evaluation, f"{MODEL} version {version}: {record.reason}"))
    instances = fill_store(workspace, record, seed=seed)
    single, batch, parity = serve_and_ask(workspace, record, instances)
    console.print(summary_table(record, single, batch, parity))
    announce("plumb up; plumb rollouts run; plumb rollouts start " + MODEL)
    with waiting("roll out a good version and a broken one"):
        outcome = roll_out(workspace, MODEL, version, instances, workspace.runs() / record.run_id)
    console.print(timeline_table(outcome, MODEL))
    console.print(
        f"done in {time.monotonic() - started:.0f} s; look around with `plumb runs show latest --workspace {workspace.root}`"
    )
    if parity.total or not outcome.as_wanted:
        raise typer.Exit(1)


def fill_store(workspace: Workspace, record: RunRecord, *, seed: int) -> list[dict[str, Any]]:
    """Fill the online store as of when the model's training data were known; gives what to ask then."""
    with native_log(workspace.runs() / record.run_id / "demo.log"):
        from components.declarations import declarations_of
        from transforms.materialize import materialize

    catalog, view = declarations_of(MODEL)
    as_of_us = known_as_of_us(record)
    announce(f"plumb features materialize --catalog {catalog.name} --as-of {show_instant(as_of_us)}")
    with waiting("fill the online store"):
        shards = materialize(workspace, catalog, view, as_of_us=as_of_us)
    console.print(
        f"{sum(shard.entities for shard in shards):,} users, {sum(shard.state_bytes for shard in shards):,} bytes of state"
    )
    return draw_instances(workspace, as_of_us, seed=seed)


def known_as_of_us(record: RunRecord) -> int:
    """Event time up to which everything was known when the model was trained."""
    from components.declarations import declarations_of

    return int(record.parameters["known_at_us"]) + declarations_of(MODEL)[1].lag_s * 1_000_000


def serve_and_ask(workspace: Workspace, record: RunRecord, instances: list[dict[str, Any]]) -> tuple[Latency, Latency, Parity]:
    """Start the server, measure it, compare a sample of its answers with the batch path, stop it."""
    folder = workspace.runs() / record.run_id
    with native_log(folder / "demo.log"):
        from components.declarations import declarations_of
        from components.served_parity import compare_with_batch
        from models.versions import load
    from plumb.server_process import predict, serving

    announce(f"plumb serve {MODEL}")
    version = load(workspace, MODEL, record.registered_version)
    store = workspace.online(declarations_of(MODEL)[1].key)
    with (
        waiting("serve and ask") as describe,
        serving(workspace, MODEL, version=version.version, store=store, log=folder / "server.log") as client,
    ):
        describe(f"{SINGLE_REQUESTS} single requests")
        single = measure(client, [[instances[number % len(instances)]] for number in range(SINGLE_REQUESTS)])
        describe(f"{BATCH_REQUESTS} requests of {BATCH_ENTITIES} users")
        spans = [range(number * BATCH_ENTITIES, (number + 1) * BATCH_ENTITIES) for number in range(BATCH_REQUESTS)]
        batch = measure(client, [[instances[place % len(instances)] for place in span] for span in spans])
        describe(f"{PARITY_ROWS} answers with their features")
        asked = instances[:PARITY_ROWS]
        answers = predict(client, MODEL, asked, features=True)
    with waiting("compute the same answers by the batch path"), native_log(folder / "demo.log"):
        served = [{"instance": sent, "prediction": got} for sent, got in zip(asked, answers, strict=True)]
        parity = compare_with_batch(workspace, MODEL, version.path, known_as_of_us(record), served)
    return single, batch, parity


def draw_instances(workspace: Workspace, as_of_us: int, *, seed: int) -> list[dict[str, Any]]:
    """Requests for users in random order, one in fifty unknown, at random instants after the store was filled."""
    from components.declarations import declarations_of
    from features.events import read_events

    catalog, view = declarations_of(MODEL)
    users = read_events(workspace, catalog, view.entity, columns=["entity_id"])["entity_id"].unique().to_pylist()
    chance = random.Random(seed)
    chance.shuffle(users)
    return [
        {
            "entity_id": f"nobody-{number}" if number % 50 == 49 else user,
            "now": as_of_us + chance.randrange(LATEST_REQUEST_US),
            "platform": chance.choice(PLATFORMS),
        }
        for number, user in enumerate(users)
    ]


def measure(client: httpx.Client, requests: list[list[dict[str, Any]]]) -> Latency:
    """Send requests one after the other over one connection."""
    from plumb.server_process import predict

    for request in requests[:10]:
        predict(client, MODEL, request, features=False)
    taken_ms = []
    for request in requests:
        started = time.perf_counter()
        predict(client, MODEL, request, features=False)
        taken_ms.append((time.perf_counter() - started) * 1_000)
    taken_ms.sort()
    return Latency(len(requests), *(taken_ms[round(share * (len(requests) - 1))] for share in (0.5, 0.99)))


def summary_table(record: RunRecord, single: Latency, batch: Latency, parity: Parity) -> Table:
    """What the demo shows in the end."""
    table = Table(show_header=False, title="plumb demo", title_justify="left")
    candidates: Mapping[str, Any] = record.evaluation["candidates"]
    table.add_row("model", f"{record.model} version {record.registered_version}")
    table.add_row("AUC", show_figure(candidates["network"]["auc"]))
    for name, gain in record.evaluation["gains"].items():
        table.add_row(
            f"AUC of {name}", f"{show_figure(candidates[name]['auc'])}, model better by {show_figure(gain['auc'], '+.3f')}"
        )
    table.add_row("endpoint p50 / p99, 1 user", f"{single} over {single.requests} requests")
    table.add_row(f"endpoint p50 / p99, {BATCH_ENTITIES} users", f"{batch} over {batch.requests} requests")
    colour = "red" if parity.total else "green"
    table.add_row(
        "parity mismatches", f"[{colour}]{parity.total}[/{colour}] of {parity.values:,} values in {parity.rows} answers"
    )
    return table


def announce(command: str) -> None:
    """Show which command a step stands for."""
    console.print(f"[bold]$ {command}[/bold]")


@contextlib.contextmanager
def waiting(text: str) -> Iterator[Callable[[str], None]]:
    """A spinner with seconds on stderr; gives a function that changes its text."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=status, transient=True, disable=not status.is_terminal) as progress:
        task = progress.add_task(text, total=None)
        yield lambda changed: progress.update(task, description=changed)
