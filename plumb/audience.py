"""``plumb audience``: build audiences, keep them fresh, show who is in and why, and what changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from features.errors import TemporaryError, explain
from plumb.errors import CommandError
from plumb.features import store_of
from plumb.instants import now_us, parse_instant, show_instant
from plumb.native_log import native_log
from plumb.settings import Settings
from plumb.stream_workers import on_stop, request_stop, stop_requested, wait_for_stop

if TYPE_CHECKING:
    from components.audiences import AudienceSite
    from features.audiences import Audiences

app = typer.Typer(help="Who belongs in a campaign, and why.", no_args_is_help=True)
console = Console()
status = Console(stderr=True)

POLICY_HELP = "YAML: campaigns with content, threshold and limits, and what holds for all of them."
MODEL_HELP = "Name of a model with two towers."
VERSION_HELP = "Of the model; the champion where not given."
AS_OF_HELP = "Score as of this time: ISO 8601 with its zone; now where not given."
STORE_HELP = "redis://HOST:PORT/DATABASE, or a folder, with one for each view. PLUMB_STORE or the workspace's if left out."
TABLE_HELP = "Version of the table, as `plumb audience history` lists them; the newest where not given."
NATIVE_LOG = "native.log"

PolicyArgument = Annotated[Path, typer.Argument(metavar="POLICY", help=POLICY_HELP)]
ModelOption = Annotated[str, typer.Option("--model", help=MODEL_HELP)]
VersionOption = Annotated[int | None, typer.Option("--version", help=VERSION_HELP)]
StoreOption = Annotated[str | None, typer.Option("--store", help=STORE_HELP)]
RunnerOption = Annotated[str, typer.Option("--runner", help="Name of the Beam runner.")]
AtOption = Annotated[int | None, typer.Option("--table", help=TABLE_HELP)]


@app.command("build")
def build(  # noqa: PLR0913 - a command's options
    ctx: typer.Context,
    policy: PolicyArgument,
    model: ModelOption = "audience",
    version: VersionOption = None,
    as_of: Annotated[str | None, typer.Option("--as-of", help=AS_OF_HELP)] = None,
    store: StoreOption = None,
    runner: RunnerOption = "FnApiRunner",
) -> None:
    """Score every user of the online store for every campaign, and put the outcome in the place of the last."""
    settings: Settings = ctx.obj
    at_us = parse_instant(as_of) if as_of else now_us()
    with native_log(settings.workspace.root / NATIVE_LOG):
        from components.audiences import build_audiences

        site = _site(settings, policy, model, version, store)
        build_audiences(site, now_us=at_us, runner=runner)
    _print_figures(_read(settings, model, None))


@app.command("keep")
def keep(  # noqa: PLR0913 - a command's options
    ctx: typer.Context,
    policy: PolicyArgument,
    model: ModelOption = "audience",
    version: VersionOption = None,
    store: StoreOption = None,
    runner: RunnerOption = "FnApiRunner",
    sweep_s: Annotated[int, typer.Option("--sweep-every", min=60, help="Seconds between sweeps of all users.")] = 900,
    poll_s: Annotated[float, typer.Option("--poll-every", min=0.1, help="Seconds between looks at the changelog.")] = 2.0,
) -> None:
    """Score users as the stream changes them, and all of them at tile boundaries, until SIGTERM or Ctrl-C."""
    settings: Settings = ctx.obj
    noise = settings.workspace.root / NATIVE_LOG
    on_stop(request_stop)
    with native_log(noise):
        from components.audience_keeping import AudienceKeeper

        site = _site(settings, policy, model, version, store)
        keeper = AudienceKeeper(site, sweep_s=sweep_s, runner=runner)
    campaigns = len(site.policy.campaigns)
    _tell(f"{model} {site.version}: keeping {campaigns} campaigns fresh, everybody scored every {sweep_s:,} s")
    while not stop_requested():
        try:
            with native_log(noise):
                step = keeper.step(now_us())
        except TemporaryError as error:
            status.print(f"{model}: {error}", style="yellow", highlight=False, soft_wrap=True)
        else:
            if step.kind != "nothing":
                users = "1 user" if step.users == 1 else f"{step.users:,} users"
                _tell(f"{model} {site.version}: {step.kind}, {users} scored, {step.came:,} came, {step.went:,} went")
        wait_for_stop(poll_s)
    _tell(f"{model} {site.version}: stopped; the table holds what was told last")


@app.command("show")
def show(
    ctx: typer.Context,
    model: ModelOption = "audience",
    user: Annotated[str | None, typer.Option("--user", help="Say for each campaign why this user is in or out.")] = None,
    page: Annotated[Path | None, typer.Option("--html", help="Write figures and charts to this file, too.")] = None,
    table: AtOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show size, lift and overlap of the audiences."""
    from models.audience_figures import measure_audiences, measure_overlap

    audiences = _read(ctx.obj, model, table)
    if page is not None:
        from models.audience_page import render_page

        title = f"Audiences of {model} {audiences.sweep.model_version}, {show_instant(audiences.sweep.now_us)}"
        partial = page.with_name(f"{page.name}.partial")
        partial.write_text(render_page(title, measure_audiences(audiences), measure_overlap(audiences)), encoding="utf-8")
        partial.replace(page)
    if user is not None:
        _print_user(audiences, user, as_json)
    elif as_json:
        names, shares = measure_overlap(audiences)
        facts = {
            "table": audiences.version,
            "sweep": asdict(audiences.sweep),
            "overlap": dict(zip(names, shares.tolist(), strict=True)),
        }
        typer.echo(json.dumps(facts | {"campaigns": [asdict(entry) for entry in measure_audiences(audiences)]}, indent=2))
    else:
        _print_figures(audiences)


@app.command("diff")
def diff(
    ctx: typer.Context,
    before: Annotated[int, typer.Argument(help="Version of the table.")],
    after: Annotated[int | None, typer.Argument(help="A later one; the newest where not given.")] = None,
    model: ModelOption = "audience",
) -> None:
    """Show who came and who went between two versions of the table."""
    from models.audience_figures import measure_moves

    earlier, later = _read(ctx.obj, model, before), _read(ctx.obj, model, after)
    shown = Table(
        "campaign", "came", "went", "stayed", "went, because", title=f"from table {earlier.version} to {later.version}"
    )
    for entry in measure_moves(earlier, later):
        why = ", ".join(f"{reason} {count:,}" for reason, count in entry.reasons.items())
        shown.add_row(entry.campaign, f"{entry.came:,}", f"{entry.went:,}", f"{entry.stayed:,}", why)
    console.print(shown)


@app.command("history")
def history(ctx: typer.Context, model: ModelOption = "audience") -> None:
    """List the versions of the table, the newest first."""
    from features.audiences import versions

    settings: Settings = ctx.obj
    shown = Table("table", "kind", "all users scored at", "users", "model version")
    for number, sweep in versions(settings.workspace.audiences(model)):
        kind = f"change {sweep.sequence}" if sweep.sequence else "sweep"
        shown.add_row(str(number), kind, show_instant(sweep.now_us), f"{sweep.population:,}", str(sweep.model_version))
    console.print(shown)


def _tell(line: str) -> None:
    status.print(line, highlight=False, soft_wrap=True)


def _site(settings: Settings, policy: Path, model: str, version: int | None, store: str | None) -> AudienceSite:
    from components.audiences import AudienceSite
    from components.declarations import declarations_of

    _, view = declarations_of(model)
    address = store_of(settings, view.key, store)
    return AudienceSite.of(settings.workspace, model, _read_yaml(policy), store=address, version=version)


def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise CommandError(
            explain("policy cannot be read", which=str(path), expected="a YAML file", got=str(error), next_step="correct it")
        ) from error
    if not isinstance(content, dict):
        raise CommandError(
            explain("policy is no mapping", which=str(path), expected="names and values, campaigns among them",
                    got=type(content).__name__, next_step="correct it; docs/adr/0027 has an example")
        )  # fmt: skip
    return content


def _read(settings: Settings, model: str, version: int | None) -> Audiences:
    from features.audiences import read_audiences

    return read_audiences(settings.workspace.audiences(model), version=version)


def _print_figures(audiences: Audiences) -> None:
    from models.audience_figures import measure_audiences, measure_overlap

    sweep = audiences.sweep
    title = f"{sweep.population:,} users at {show_instant(sweep.now_us)}, model version {sweep.model_version}"
    columns = ("campaign", "members", "share", "mean score", "lift", "take-ups", "out, because")
    shown = Table(*columns, title=f"{title}, table {audiences.version}", title_justify="left")
    for entry in measure_audiences(audiences):
        why = ", ".join(f"{reason} {count:,}" for reason, count in entry.reasons.items() if count)
        share, mean, lift = f"{entry.share:.1%}", f"{entry.mean_score:.3f}", f"{entry.lift:.1f}"
        shown.add_row(entry.campaign, f"{entry.members:,}", share, mean, lift, f"{entry.expected:,.0f}", why)
    console.print(shown)
    names, shares = measure_overlap(audiences)
    places = permutations(range(len(names)), 2)
    shared = sorted(((shares[one, other], names[one], names[other]) for one, other in places), reverse=True)
    for share, one, other in shared[:5]:
        console.print(f"{share:.0%} of {one} are in {other}, too", highlight=False)


def _print_user(audiences: Audiences, user: str, as_json: bool) -> None:
    from features.audiences import BELOW_THRESHOLD

    found = {row["campaign"]: row for row in audiences.rows.filter(entity_id=user).to_dicts()}
    rows = [
        {"campaign": name, "member": found[name]["member"], "reason": found[name]["reason"], "score": found[name]["score"]}
        if name in found
        else {"campaign": name, "member": False, "reason": BELOW_THRESHOLD, "score": None}
        for name in audiences.sweep.mean_scores
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    shown = Table("campaign", "", "reason", "score", title=user)
    for row in rows:
        score = "" if row["score"] is None else f"{row['score']:.3f}"
        shown.add_row(str(row["campaign"]), "in" if row["member"] else "out", str(row["reason"]), score)
    console.print(shown)
