"""``plumb runs``: what pipeline runs did, from their records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.table import Table

from features.workspace import Workspace
from models.metrics import METRIC_TITLES
from plumb.settings import Settings

if TYPE_CHECKING:
    from pipelines.records import RunRecord, StepRecord

app = typer.Typer(help="Records of pipeline runs.", no_args_is_help=True)
console = Console()

METRICS = {"auc": "AUC", "log_loss": "log loss", "calibration_error": "calibration error"}
RUN_HELP = "Name of a run, or `latest`."
JSON_HELP = "Print JSON instead of a table."
COLOURS = {
    "succeeded": "green", "failed": "red", "not blessed": "yellow", "running": "cyan", "skipped": "dim", "waiting": "dim",
}  # fmt: skip


@app.command("list")
def list_runs(ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False) -> None:
    """List runs, the newest first."""
    from pipelines.records import list_records

    settings: Settings = ctx.obj
    records = list_records(settings.workspace)
    if as_json:
        typer.echo(json.dumps([asdict(record) for record in records], indent=2))
        return
    table = Table("run", "status", "seconds", "AUC", "version")
    for record in records:
        seconds = sum(step.seconds for step in record.steps)
        version = "" if record.registered_version is None else str(record.registered_version)
        table.add_row(record.run_id, coloured(record.status), f"{seconds:.0f}", headline(record), version)
    table.columns[0].no_wrap = table.columns[3].no_wrap = True
    console.print(table)


@app.command("show")
def show_run(
    ctx: typer.Context,
    run_id: Annotated[str, typer.Argument(help=RUN_HELP)],
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Show one run: its steps, its figures beside every baseline, and what it registered."""
    settings: Settings = ctx.obj
    record = find_record(settings.workspace, run_id)
    if as_json:
        typer.echo(record.as_json(), nl=False)
        return
    console.print(render_run(record))
    console.print(f"report: plumb runs report {record.run_id}")


@app.command("report")
def print_report(ctx: typer.Context, run_id: Annotated[str, typer.Argument(help=RUN_HELP)]) -> None:
    """Print where a run's report lies: one HTML file that any browser opens."""
    from pipelines.reports import report_of

    settings: Settings = ctx.obj
    typer.echo(report_of(settings.workspace, find_record(settings.workspace, run_id).run_id))


def find_record(workspace: Workspace, run_id: str) -> RunRecord:
    """A run's record by its name; ``latest`` is the newest.

    Raises:
        RunNotFound: there is none.
    """
    from pipelines.records import list_records, read_record

    newest = list_records(workspace)[:1] if run_id == "latest" else []
    return newest[0] if newest else read_record(workspace, run_id)


def render_run(record: RunRecord) -> Group:
    """Everything a person asks of a run, as tables."""
    return Group(facts_table(record), steps_table(record.steps), *evaluation_tables(record.evaluation))


def facts_table(record: RunRecord) -> Table:
    """Status, decision, parameters, versions and paths."""
    table = Table(title=f"run {record.run_id}", show_header=False, title_justify="left")
    table.add_row("status", coloured(record.status))
    for name, value in (
        ("error", record.error), ("decision", record.decision), ("reason", record.reason.replace("; ", "\n")),
        ("registered version", record.registered_version), ("started", record.started_at), ("finished", record.finished_at),
    ):  # fmt: skip
        if value not in ("", None):
            table.add_row(name, str(value))
    for title, values in (("parameters", record.parameters), ("code", record.code), ("data", record.data)):
        table.add_row(title, _lines(values))
    table.add_row("pipeline", f"{record.pipeline} {record.pipeline_hash[:12]}")
    table.add_row("artifacts", _lines(record.artifacts))
    return table


def steps_table(steps: tuple[StepRecord, ...]) -> Table:
    """One row a step."""
    table = Table("step", "status", "seconds", "reason", title="steps", title_justify="left")
    for step in steps:
        table.add_row(step.name, coloured(step.status), f"{step.seconds:.1f}" if step.attempts else "", step.reason)
    return table


def evaluation_tables(evaluation: Mapping[str, Any]) -> list[Table]:
    """The model's figures beside every baseline's; none before the evaluate step has ended."""
    if not evaluation:
        return []
    title = f"test: {evaluation['rows']:,} rows, {evaluation['entities']:,} entities, {evaluation['positives']:,} positive"
    return [
        comparison_table(evaluation, title),
        *([calibration_table(evaluation["calibration"])] if "calibration" in evaluation else []),
        slices_table(evaluation["slices"]),
    ]


def comparison_table(evaluation: Mapping[str, Any], title: str) -> Table:
    """One row a candidate: every metric with its 95 % interval, and by how much the network's first one is better."""
    metrics = tuple(evaluation["candidates"]["network"])
    titles = [METRIC_TITLES[metric] for metric in metrics]
    table = Table("candidate", *titles, f"network's gain in {titles[0]}", title=title, title_justify="left")
    for name, figures in evaluation["candidates"].items():
        gain = evaluation["gains"].get(name)
        table.add_row(
            name, *(show_figure(figures[metric]) for metric in metrics), show_figure(gain[metrics[0]], "+.3f") if gain else ""
        )
    return table


def calibration_table(calibration: Mapping[str, Any]) -> Table:
    """Mean score and share of positives in bins of the network's score."""
    table = Table("rows", "mean score", "share positive", title="calibration of the network", title_justify="left")
    for entry in calibration.get("network", ()):
        table.add_row(f"{entry['rows']:,}", f"{entry['mean_score']:.3f}", f"{entry['share_positive']:.3f}")
    return table


def slices_table(slices: Mapping[str, Any]) -> Table:
    """The network's first metric and its calibration in every slice, empty where a slice has none; the report has them all."""
    metric = next((name for part in slices.values() for name in part.get("candidates", {}).get("network", ())), "auc")
    head = ("slice", "rows", "positive", METRIC_TITLES[metric], "mean score - share")
    table = Table(*head, title="slices of the network", title_justify="left")
    for title, part in slices.items():
        area = part.get("candidates", {}).get("network", {}).get(metric)
        gap = part.get("gaps", {}).get("network")
        shown = (show_figure(area) if area else "", show_figure(gap, "+.3f") if gap else "")
        table.add_row(title, f"{part['rows']:,}", f"{part['positives']:,}", *shown)
    return table


def headline(record: RunRecord) -> str:
    """AUC of the network with its interval, or its first metric by name; empty before the evaluate step has ended."""
    if not record.evaluation:
        return ""
    metric, figure = next(iter(record.evaluation["candidates"]["network"].items()))
    return show_figure(figure) if metric == "auc" else f"{METRIC_TITLES[metric]} {show_figure(figure)}"


def show_figure(figure: Mapping[str, float], form: str = ".3f") -> str:
    """A value with its 95 % interval.

    Example:
        >>> show_figure({"value": 0.8123, "low": 0.8, "high": 0.82})
        '0.812 [0.800, 0.820]'
    """
    return f"{figure['value']:{form}} [{figure['low']:{form}}, {figure['high']:{form}}]"


def coloured(status: str) -> str:
    """A status in the colour that says whether to look."""
    colour = COLOURS.get(status)
    return f"[{colour}]{status}[/{colour}]" if colour else status


def _lines(values: Mapping[str, Any]) -> str:
    return "\n".join(f"{name} = {value}" for name, value in values.items())
