"""``plumb alerts``: what calls for somebody now, what is known of it, and who sees to it.

Alerts come from Alertmanager, where one runs, and from the verdicts that stand in the control database; each is shown once.
Where one of the two does not answer, that is said and the other is shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from features.errors import StoreUnavailable, TemporaryError, explain
from plumb.alert_view import next_command, show_alert, show_list
from plumb.errors import CommandError
from plumb.instants import now_us, parse_instant, show_instant
from plumb.models import operator
from plumb.settings import Settings

if TYPE_CHECKING:
    from monitoring.alertmanager import Alertmanager, Fired
    from monitoring.rollout.records import Standing as StandingRollout
    from monitoring.standing_alerts import Alert

app = typer.Typer(help="Alerts that stand: listed, shown with their evidence, acknowledged, silenced.", no_args_is_help=True)

UNITS_S = {"m": 60, "h": 3_600, "d": 86_400}
ALERTMANAGER_HELP = "URL of Alertmanager; that of the running plane where not given."
UNTIL_HELP = "How long: 30m, 2h or 7d from now, or an instant such as 2026-03-01T06:00:00Z."
AlertArgument = Annotated[str, typer.Argument(metavar="ALERT", help="An alert's id or its beginning, or the name of all such.")]
AlertmanagerOption = Annotated[str | None, typer.Option("--alertmanager", metavar="URL", help=ALERTMANAGER_HELP)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
WhyOption = Annotated[str, typer.Option("--why", help="Kept beside your name.")]
UntilOption = Annotated[str, typer.Option("--until", help=UNTIL_HELP)]
WhoOption = Annotated[str | None, typer.Option("--who", help="Who sees to it; the account you work as where not given.")]


@app.command("list")
def list_all(ctx: typer.Context, alertmanager: AlertmanagerOption = None, as_json: JsonOption = False) -> None:
    """List what calls for somebody: new pages first, then new tickets, then what is acknowledged, silenced or inhibited."""
    alerts = gather(ctx.obj, alertmanager)
    if as_json:
        typer.echo(json.dumps([alert.describe() for alert in alerts], indent=2))
        return
    show_list(alerts, now_us())


@app.command("show")
def show(
    ctx: typer.Context, alert: AlertArgument, alertmanager: AlertmanagerOption = None, as_json: JsonOption = False
) -> None:
    """Show an alert: since when, on what evidence, of which rollout or model, the runbook, and what to type next."""
    from monitoring.standing_alerts import find_alerts

    settings: Settings = ctx.obj
    found = find_alerts(gather(settings, alertmanager), alert)
    rollouts = {each.id: rollout_of(settings, each) for each in found}
    if as_json:
        shown = [{**each.describe(), "rollout": describe_rollout(rollouts[each.id]),
                  "next": next_command(each, rollouts[each.id])} for each in found]  # fmt: skip
        typer.echo(json.dumps(shown, indent=2))
        return
    for each in found:
        show_alert(each, rollouts[each.id], now_us())


@app.command("ack")
def ack(  # noqa: PLR0913 - one argument an option
    ctx: typer.Context,
    alert: AlertArgument,
    why: WhyOption,
    until: UntilOption,
    who: WhoOption = None,
    alertmanager: AlertmanagerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say that you see to an alert. It is shown so until it ends or the time is over; when it comes back it is new."""
    from monitoring.acks import Ack, record_ack
    from monitoring.standing_alerts import find_alerts

    settings: Settings = ctx.obj
    found = find_alerts(gather(settings, alertmanager), alert)
    word = give_word("ack", alert, who, why, until)
    acks = [Ack(each.id, each.since_us, word.who, word.why, word.until_us, word.at_us) for each in found]
    for made in acks:
        record_ack(settings.workspace, made)
        if not as_json:
            typer.echo(f"{made.alert} is acknowledged by {made.who} until {show_instant(made.until_us)}")
    if as_json:
        typer.echo(json.dumps([vars(made) for made in acks], indent=2))


@app.command("silence")
def silence(  # noqa: PLR0913 - one argument an option
    ctx: typer.Context,
    alert: AlertArgument,
    why: WhyOption,
    until: UntilOption,
    who: WhoOption = None,
    alertmanager: AlertmanagerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let Alertmanager tell nobody of an alert, whether it ends and comes back or not, until the time is over."""
    from monitoring.alertmanager import Silence
    from monitoring.standing_alerts import find_alerts

    settings: Settings = ctx.obj
    client, missing = find_alertmanager(settings, alertmanager)
    if client is None:
        raise refuse_silence(alert, "an Alertmanager", missing)
    found = find_alerts(gather(settings, alertmanager), alert)
    if not all(each.labels for each in found):
        raise refuse_silence(alert, "an alert that Alertmanager has", "a verdict that it has not seen")
    word = give_word("silence", alert, who, why, until)
    labels = [{"alertname": alert}] if found[0].name == alert else [dict(each.labels) for each in found]
    made = [client.silence(Silence(each, word.who, word.why, word.at_us, word.until_us)) for each in labels]
    if as_json:
        typer.echo(json.dumps(made, indent=2))
        return
    typer.echo(f"{alert} is silenced by {word.who} until {show_instant(word.until_us)} (silence {', '.join(made)})")


@dataclass(frozen=True)
class Word:
    """Somebody's word on an alert: who and why, given at ``at_us`` and good until ``until_us``, UTC microseconds."""

    who: str
    why: str
    at_us: int
    until_us: int


def give_word(action: str, alert: str, who: str | None, why: str, until: str) -> Word:
    """What ``--who``, ``--why`` and ``--until`` say, at this moment.

    Raises:
        CommandError: nobody is named, no reason is given, or the end is not to come.
    """
    at_us = now_us()
    word = Word(operator() if who is None else who, why, at_us, parse_until(until, at_us))
    if word.who.strip() and word.why.strip() and word.until_us > at_us:
        return word
    raise CommandError(
        explain(f"{action} refused", which=alert, expected="somebody, a reason, and an instant to come",
                got=f"--who {word.who!r} --why {why!r} --until {until}", next_step="name who, why and until when")
    )  # fmt: skip


def refuse_silence(alert: str, expected: str, got: str) -> CommandError:
    """Why Alertmanager is not asked."""
    next_step = "start it (plumb up), pass --alertmanager, or use plumb alerts ack"
    return CommandError(explain("alert cannot be silenced", which=alert, expected=expected, got=got, next_step=next_step))


def gather(settings: Settings, alertmanager: str | None) -> list[Alert]:
    """Both sides as one list; where one cannot be read, that is said on stderr.

    Raises:
        StoreUnavailable: neither can be read.
    """
    from monitoring.acks import read_acks
    from monitoring.standing_alerts import join_alerts
    from monitoring.verdict_log import read_standing

    at_us = now_us()
    fired = read_fired(settings, alertmanager)
    try:
        standing, acks = read_standing(settings.workspace, now_us=at_us), read_acks(settings.workspace, at_us)
    except StoreUnavailable as error:
        if fired is None:
            raise  # an empty list would say that all is well
        typer.echo(f"plumb: without verdicts and acks, only what Alertmanager says: {error}", err=True)
        standing, acks = (), {}
    return join_alerts(fired or (), standing, acks, at_us)


def read_fired(settings: Settings, url: str | None) -> Sequence[Fired] | None:
    """Alertmanager's alerts; None where it does not answer, which is said."""
    client, missing = find_alertmanager(settings, url)
    if client is not None:
        try:
            return client.list_alerts()
        except TemporaryError as error:
            missing = str(error)
    typer.echo(f"plumb: without Alertmanager, only what monitors say: {missing}", err=True)
    return None


def find_alertmanager(settings: Settings, url: str | None) -> tuple[Alertmanager | None, str]:
    """The Alertmanager that was named, or the running plane's; else why there is none."""
    from monitoring.alertmanager import Alertmanager
    from plumb.up import read_plane

    facts = read_plane(settings)
    named = url or facts.get("alertmanager")
    if named is not None:
        return Alertmanager(named), ""
    return None, "the plane has started none" if facts else "no plane runs on this workspace"


def rollout_of(settings: Settings, alert: Alert) -> StandingRollout | None:
    """The newest rollout of its service or model; None where there is none, or the database does not answer."""
    from monitoring.rollout.records import list_rollouts

    try:
        known = list_rollouts(settings.workspace)
    except StoreUnavailable:
        return None  # that was said before
    concerned = (entry for entry in known if alert.service == entry.facts.service or alert.model == entry.facts.model)
    return next(concerned, None)


def describe_rollout(rollout: StandingRollout | None) -> object:
    """As ``plumb rollouts list --json`` has it."""
    from monitoring.rollout.operations import describe_standing

    return None if rollout is None else describe_standing(rollout)


def parse_until(text: str, at_us: int) -> int:
    """UTC microseconds of an instant, or of a time from ``at_us`` on.

    Raises:
        CommandError: it is neither.

    Example:
        >>> parse_until("2h", 0)
        7200000000
    """
    found = re.fullmatch(r"(\d+)([mhd])", text)
    if found:
        return at_us + int(found[1]) * UNITS_S[found[2]] * 1_000_000
    try:
        return parse_instant(text)
    except CommandError as error:
        raise CommandError(
            explain("time cannot be read", which="--until", expected="30m, 2h, 7d or 2026-03-01T06:00:00Z", got=repr(text),
                    next_step="write it so")
        ) from error  # fmt: skip
