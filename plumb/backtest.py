"""``plumb models backtest``: train as of past cutoffs, serve, score everyone over HTTP, compare with what happened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from features.workspace import Workspace
from plumb.instants import now_us, parse_instant, show_instant
from plumb.native_log import native_log
from plumb.pipelines import launch_blessed, run_id_of
from plumb.runs import METRICS, show_figure
from plumb.settings import Settings

console = Console()

BACKTEST_FILE = "backtest.json"
BACKTESTS_FOLDER = "backtests"
STORE_FOLDER = "online"
SERVER_LOG = "server.log"
NATIVE_LOG = "native.log"
CUTOFF_HELP = "Train with what was known then and score then; a date or an ISO 8601 time with its zone. Repeatable."


def backtest(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Name of a model spec.")],
    cutoff: Annotated[list[str], typer.Option("--cutoff", metavar="TIME", help=CUTOFF_HELP)],
    seed: Annotated[int, typer.Option("--seed", help="Seed of weights, shuffling and bootstrap.")] = 0,
) -> None:
    """Train at past cutoffs, serve each version, score the population over HTTP, and compare with what then happened.

    A model whose rows are drawn at events scores every such event from the cutoff on, each as known at its own time.
    """
    settings: Settings = ctx.obj
    cutoffs_us = [(text, parse_instant(text)) for text in cutoff]
    judged = [(text, backtest_at(settings.workspace, model, cutoff_us, seed=seed)) for text, cutoff_us in cutoffs_us]
    for text, evaluation in judged:
        for table in tables_of(text, evaluation):
            console.print(table)


def backtest_at(workspace: Workspace, model: str, cutoff_us: int, *, seed: int) -> Mapping[str, Any]:
    """One cutoff: the evaluation, which is also written into the folder of the run that trained the model.

    Runs, versions and the online store of a backtest lie in a workspace of its own under ``backtests``.

    Raises:
        CommandError: the gate did not bless the model, so there is nothing to serve.
        EvaluationError: what happened after the cutoff is not known yet.
    """
    with native_log(workspace.root / NATIVE_LOG):
        from components.backtesting import judge_served, read_outcomes
        from components.declarations import declarations_of
        from models.evaluation import write_evaluation
        from transforms.materialize import materialize
    from plumb.server_process import predict, serving

    outcomes = read_outcomes(workspace, model, cutoff_us)
    past = past_workspace(workspace, run_id_of(now_us(), model))
    record, version = launch_blessed(past, model, known_at_us=cutoff_us, seed=seed)
    folder = past.runs() / record.run_id
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("fill the online store as of the cutoff", total=None)
        store, predictions = folder / STORE_FOLDER, list[dict[str, Any]]()
        materialize(past, *declarations_of(model), as_of_us=cutoff_us, store=store)
        progress.update(task, description="start the server")
        with serving(past, model, version=version, store=store, log=folder / SERVER_LOG) as client:
            for moment_us, instances in outcomes.moments():
                if moment_us > cutoff_us:
                    progress.update(task, description=f"bring the online store up to {show_instant(moment_us)}")
                    materialize(past, *declarations_of(model), as_of_us=moment_us, store=store)
                progress.update(task, description=f"score {len(outcomes.now_us):,} rows over HTTP, {len(predictions):,} done")
                predictions += predict(client, model, instances, features=True)
        progress.update(task, description="fit baselines and compare")
        features = Path(record.artifacts["fit-graph/features"])
        evaluation = judge_served(model, outcomes, predictions, features, seed=seed)
        write_evaluation(evaluation, folder / BACKTEST_FILE)
    return evaluation


def past_workspace(workspace: Workspace, name: str) -> Workspace:
    """A workspace within another one that shares its events and profiles, and nothing else.

    A version trained in the past neither meets today's champion, which has learned from what came later, nor takes its place.
    """
    past = Workspace(workspace.root / BACKTESTS_FOLDER / name)
    past.root.mkdir(parents=True)
    for shared in ("events", "profiles"):
        (past.root / shared).symlink_to((workspace.root / shared).resolve(), target_is_directory=True)
    return past


def tables_of(cutoff: str, evaluation: Mapping[str, Any]) -> Iterator[Table]:
    """The comparison, and where some outcomes are still open, that of the rows whose outcomes are settled."""
    settled = evaluation.get("matured")
    if settled is None:
        yield comparison(f"at {cutoff}", evaluation)
        return
    still_open = evaluation["rows"] - settled["rows"]
    yield comparison(f"from {cutoff} on, {still_open:,} outcomes still open and judged as seen so far", evaluation)
    yield comparison(f"from {cutoff} on, settled outcomes alone", settled)


def comparison(when: str, evaluation: Mapping[str, Any]) -> Table:
    """One line a candidate: the served model and every baseline on the same rows."""
    counts = f"{evaluation['rows']:,} scored over HTTP, {evaluation['positives']:,} positive"
    title = f"{evaluation['model']} {when}: {counts}"
    table = Table("candidate", *METRICS.values(), "served model's gain in AUC", title=title, title_justify="left")
    for name, figures in evaluation["candidates"].items():
        gain = evaluation["gains"].get(name)
        table.add_row(
            "served model" if name == "network" else name,
            *(show_figure(figures[metric]) for metric in METRICS),
            show_figure(gain["auc"], "+.3f") if gain else "",
        )
    return table
