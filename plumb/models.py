"""``plumb models``: registered versions, and what the specs say."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from plumb.backtest import backtest
from plumb.delays import delays
from plumb.instants import now_us, show_instant
from plumb.labels import labels
from plumb.retrainings import retrainings
from plumb.settings import Settings

if TYPE_CHECKING:
    from models.aliases import Promotion
    from models.versions import ModelVersion

app = typer.Typer(help="Registered model versions and model specs.", no_args_is_help=True)
app.command("backtest")(backtest)
app.command("delays")(delays)
app.command("labels")(labels)
app.command("retrainings")(retrainings)
console = Console()

JSON_HELP = "Print JSON instead of a table."
VERSION_HELP = "Which version; the champion where not given."
MODEL_HELP = "Name of a model."
ModelArgument = Annotated[str, typer.Argument(help=MODEL_HELP)]
JsonOption = Annotated[bool, typer.Option("--json", help=JSON_HELP)]


@app.command("list")
def list_models(ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False) -> None:
    """List registered versions, by model, the newest first."""
    from models.aliases import list_aliases
    from models.versions import list_versions

    settings: Settings = ctx.obj
    versions = list_versions(settings.workspace)
    standing: dict[tuple[str, int], list[str]] = {}
    for entry in list_aliases(settings.workspace):
        standing.setdefault((entry.model, entry.to_version), []).append(entry.alias)
    if as_json:
        facts = [{**_facts(version), "aliases": standing.get((version.model, version.version), [])} for version in versions]
        typer.echo(json.dumps(facts, indent=2))
        return
    table = Table("model", "version", "alias", "blessed", "created", "AUC", "view", "run")
    for version in versions:
        table.add_row(
            version.model,
            str(version.version),
            ", ".join(standing.get((version.model, version.version), [])),
            "[green]yes[/green]" if version.blessed else "[yellow]no[/yellow]",
            show_instant(version.created_at_us),
            _headline(version.metrics),
            version.view_key,
            version.run_id,
        )
    for column in table.columns[:3]:
        column.no_wrap = True
    console.print(table)


def _headline(metrics: Mapping[str, float]) -> str:
    """AUC, or of a model of hours of the week its NLL by name; empty where neither was kept."""
    if "network_auc" in metrics:
        return f"{metrics['network_auc']:.3f}"
    return f"NLL {metrics['network_nll']:.3f}" if "network_nll" in metrics else ""


@app.command("show")
def show_model(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Name of a model.")],
    version: Annotated[int | None, typer.Option("--version", help=VERSION_HELP)] = None,
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
        table.add_row(name, _show(value))
    console.print(table)


@app.command("promote")
def promote_version(
    ctx: typer.Context,
    model: ModelArgument,
    version: Annotated[int, typer.Argument(help="A blessed version.")],
    why: Annotated[str, typer.Option("--why", help="Kept in the history beside your name.")],
    expect: Annotated[
        int | None, typer.Option("--expect", help="Refuse unless this version is champion; the one of now where not given.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a version the champion, which is what is served. To roll back, promote the one before."""
    from models.aliases import Change, champion_of, promote

    settings: Settings = ctx.obj
    expected = champion_of(settings.workspace, model) if expect is None else expect
    change = Change(who=operator(), why=why, at_us=now_us())
    done = promote(settings.workspace, model, version, change, expected=expected)
    if as_json:
        typer.echo(json.dumps(_promotion_facts(done), indent=2))
        return
    before = "there was no champion before" if done.from_version is None else f"version {done.from_version} was"
    console.print(f"{model} version {version} is champion; {before}. Servers take it when they start.")


@app.command("aliases")
def show_aliases(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Argument(help="Name of a model; all where not given.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show which versions are champion and candidate, and since when."""
    from models.aliases import list_aliases

    settings: Settings = ctx.obj
    _print_promotions(list_aliases(settings.workspace, model), as_json=as_json)


@app.command("history")
def show_history(ctx: typer.Context, model: ModelArgument, as_json: JsonOption = False) -> None:
    """Show every promotion of a model, the newest first: who, from which version to which, and why."""
    from models.aliases import history

    settings: Settings = ctx.obj
    _print_promotions(history(settings.workspace, model), as_json=as_json)


@app.command("card")
def show_card(
    ctx: typer.Context,
    model: ModelArgument,
    version: Annotated[int | None, typer.Option("--version", help=VERSION_HELP)] = None,
    html: Annotated[bool, typer.Option("--html", help="Print HTML instead of Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card's facts and its path as JSON.")] = False,
) -> None:
    """Print a version's model card: what it predicts, how well, its limits, how to go back."""
    from models.card import CARD_FILES, read_card
    from models.versions import load

    settings: Settings = ctx.obj
    form = "html" if html else "markdown"
    found = load(settings.workspace, model, version, require_blessed=False)
    text = read_card(found, form)
    if as_json:
        facts = {"model": model, "version": found.version, "path": str(found.path / CARD_FILES[form]), "card": text}
        typer.echo(json.dumps(facts, indent=2))
        return
    typer.echo(text, nl=False)


def operator() -> str:
    """The account that runs this process, by name where it has one."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


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


def _promotion_facts(promotion: Promotion) -> dict[str, Any]:
    return {**asdict(promotion), "at": show_instant(promotion.at_us)}


def _print_promotions(promotions: list[Promotion], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([_promotion_facts(entry) for entry in promotions], indent=2))
        return
    for entry in promotions:
        before = "nothing" if entry.from_version is None else f"version {entry.from_version}"
        console.print(
            f"[bold]{entry.model} {entry.alias}[/bold]: {before} -> [bold]version {entry.to_version}[/bold]"
            f" at {show_instant(entry.at_us)} by {escape(entry.who)}"
        )
        console.print(f"  {escape(entry.why)}", highlight=False)


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(
            f"{key} = {entry:.4f}" if isinstance(entry, float) else f"{key} = {entry}" for key, entry in value.items()
        )
    return "" if value is None else str(value)
