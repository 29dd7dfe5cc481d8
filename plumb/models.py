"""``plumb models``: registered versions, and what the specs say."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from plumb.backtest import backtest
from plumb.instants import show_instant
from plumb.settings import Settings

if TYPE_CHECKING:
    from models.versions import ModelVersion

app = typer.Typer(help="Registered model versions and model specs.", no_args_is_help=True)
app.command("backtest")(backtest)
console = Console()

JSON_HELP = "Print JSON instead of a table."


@app.command("list")
def list_models(ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False) -> None:
    """List registered versions, by model, the newest first."""
    from models.versions import list_versions

    settings: Settings = ctx.obj
    versions = list_versions(settings.workspace)
    if as_json:
        typer.echo(json.dumps([_facts(version) for version in versions], indent=2))
        return
    table = Table("model", "version", "blessed", "created", "AUC", "view", "run", "reason")
    for version in versions:
        area = version.metrics.get("network_auc")
        table.add_row(
            version.model,
            str(version.version),
            "[green]yes[/green]" if version.blessed else "[yellow]no[/yellow]",
            show_instant(version.created_at_us),
            "" if area is None else f"{area:.3f}",
            version.view_key,
            version.run_id,
            version.reason,
        )
    console.print(table)


@app.command("show")
def show_model(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Name of a model.")],
    version: Annotated[
        int | None, typer.Option("--version", help="Which version; the newest blessed one where not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Show one version, blessed or not."""
    from models.specs import load_spec
    from models.versions import load

    load_spec(model)
    settings: Settings = ctx.obj
    facts = _facts(load(settings.workspace, model, version, require_blessed=False))
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    table = Table(show_header=False, title=f"{model} version {facts['version']}", title_justify="left")
    for name, value in facts.items():
        shown = "\n".join(f"{key} = {figure:.4f}" for key, figure in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(name, shown)
    console.print(table)


@app.command("specs")
def list_specs(as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False) -> None:
    """List the models that can be trained."""
    from models.specs import all_specs

    specs = all_specs().values()
    if as_json:
        typer.echo(json.dumps([asdict(spec) for spec in specs], indent=2))
        return
    table = Table("model", "predicts", "catalog", "view", "baselines")
    for spec in specs:
        table.add_row(spec.name, spec.title, spec.catalog, spec.view, ", ".join(spec.baselines))
    console.print(table)


def _facts(version: ModelVersion) -> dict[str, Any]:
    return {**asdict(version), "created_at": show_instant(version.created_at_us), "path": str(version.path)}
