"""How rollouts are shown on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from plumb.instants import show_instant

console = Console()
COLOURS = {"pass": "green", "fail": "bold red", "inconclusive": "yellow"}
PHASE_COLOURS = {"running": "bold", "paused": "yellow", "promoted": "green", "rolled_back": "bold red", "aborted": "red"}
US_PER_S = 1_000_000


def show_list(rollouts: Sequence[Mapping[str, Any]]) -> None:
    """One line a rollout."""
    table = Table("rollout", "service", "versions", "phase", "canary", "since", "by", "why")
    for entry in rollouts:
        table.add_row(
            str(entry["id"]), entry["service"], f"{entry['stable_version']} -> {entry['canary_version']}",
            _phase(entry["phase"]), f"{entry['percent']} %" + ("" if entry["applied"] else " (not yet)"),
            show_moment(entry["step_at_us"]), escape(entry["step_who"]), escape(entry["step_why"]),
        )  # fmt: skip
    console.print(table)


def show_rollout(facts: Mapping[str, Any], now_us: int) -> None:
    """What on-call reads first stands first."""
    versions = f"{facts['model']} {facts['stable_version']} -> {facts['canary_version']}"
    console.print(
        f"rollout {facts['id']} of [bold]{escape(facts['service'])}[/bold]: {_phase(facts['phase'])}, {versions},"
        f" canary at [bold]{facts['percent']} %[/bold], stage {facts['stage']} of {facts['stages']}",
        highlight=False,
    )
    _line("asked for", f"{show_moment(facts['at_us'])} by {facts['who']}: {facts['why']}")
    _line("plane", _plane(facts))
    controller = facts["controller"]
    nobody = "[bold red]none acts[/bold red]: start one with `plumb rollouts run`"
    _line("controller", nobody if controller["holder"] is None else f"{escape(controller['holder'])} acts", markup=True)
    _line("next", facts["next"])
    if facts["stage_ends_us"] is not None:
        _line("at the soonest", f"{show_moment(facts['stage_ends_us'])} ({_in(facts['stage_ends_us'] - now_us)})")
    if facts["verdicts"]:
        console.print(f"\ngates, as judged {_ago(now_us - facts['judged_at_us'])}")
        for verdict in facts["verdicts"]:
            colour = COLOURS[verdict["outcome"]]
            console.print(f"  [{colour}]{verdict['outcome']:<12}[/{colour}] {escape(verdict['text'])}", highlight=False)
    waiting = [entry for entry in facts["commands"] if entry["done_at_us"] is None]
    for entry in waiting:
        _line("waiting", f"{entry['action']} by {entry['who']}, {_ago(now_us - entry['at_us'])}: {entry['why']}")
    console.print("\ntimeline")
    for entry in facts["timeline"]:
        applied = entry["applied_at_us"]
        late = "not applied yet" if applied is None else f"{(applied - entry['at_us']) / US_PER_S:.1f} s"
        console.print(
            f"  {show_moment(entry['at_us'])}  {entry['action']:<9}{entry['percent']:>4} %  {escape(entry['who']):<12}"
            f" {escape(entry['why'])} [dim]({late})[/dim]",
            highlight=False,
        )
    for entry in facts["commands"]:
        if entry["result"].startswith("refused"):
            _line("refused", f"{entry['action']} by {entry['who']}: {entry['result']}")


def show_moment(us: int) -> str:
    """ISO 8601 to the second."""
    return show_instant(us - us % US_PER_S)


def _plane(facts: Mapping[str, Any]) -> str:
    plane = facts["plane"]
    if "error" in plane:
        return f"cannot be asked: {plane['error']}"
    canary = plane["canary"]
    stable = f"{plane['stable_name']} runs version {plane['stable']['version']}"
    if canary is None:
        return f"{stable}, no canary"
    state = "ready" if canary["ready"] else "not ready"
    return f"{stable}; {canary['name']} runs version {canary['target']['version']} at {canary['percent']} %, {state}"


def _phase(phase: str) -> str:
    colour = PHASE_COLOURS.get(phase)
    return f"[{colour}]{phase}[/{colour}]" if colour else phase


def _line(name: str, text: str, *, markup: bool = False) -> None:
    console.print(f"  {name:<14} {text if markup else escape(text)}", highlight=False)


def _ago(us: int) -> str:
    return f"{max(us, 0) / US_PER_S:.0f} s ago"


def _in(us: int) -> str:
    return f"in {us / US_PER_S:.0f} s" if us > 0 else "now, if every gate passes"
