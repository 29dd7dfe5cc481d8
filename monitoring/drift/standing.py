"""Judged windows in the log of verdicts: what a revision's newest window says stands, and only while somebody looks.

Windows are as long as an hour, or as a day where few ask, so a verdict stands from one to the next; but a monitor that died is
to be missed within minutes. Whoever judges therefore keeps what stands alive with every look (``keep_standing``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from features.layout import US_PER_S
from features.workspace import Workspace
from monitoring.drift.records import JudgedWindow
from monitoring.drift.settings import STABLE, DriftSettings
from monitoring.revisions import Revisions
from monitoring.verdict_log import Standing, read_standing, record_verdicts, renew_verdicts, retire

PREDICTIONS: Final = "predictions"
"""Source of windows over the prediction log; their verdicts bear the monitors' plain names, others the source's, too."""
DRIFT: Final = "drift."


def let_stand(workspace: Workspace, judged: JudgedWindow, settings: DriftSettings, now_us: int) -> None:
    """Record a window's verdicts; what the window before said and this one does not, stands no more.

    Raises:
        StoreUnavailable: the control database does not answer; the window is to be judged again.
    """
    suffix = suffix_of(judged.source)
    of_model = {"model": judged.model}
    verdicts = [
        replace(verdict, monitor=verdict.monitor + suffix, evidence={**verdict.evidence, **of_model})
        for verdict in judged.verdicts
    ]
    record_verdicts(workspace, verdicts, valid_for_s=settings.heard_within_s, now_us=now_us)
    said = {verdict.monitor for verdict in verdicts}
    unsaid = [
        each.verdict.monitor
        for each in read_standing(workspace, subjects=[judged.subject], now_us=now_us)
        if _is_of(each, f"{DRIFT}{judged.reference}.", suffix)
        and each.verdict.monitor not in said
        and each.verdict.at_us < judged.end_us
    ]
    if unsaid:
        retire(workspace, judged.subject, now_us, monitors=unsaid)


def keep_standing(
    workspace: Workspace, service: str, source: str, revisions: Revisions, settings: DriftSettings, now_us: int
) -> None:  # fmt: skip
    """Somebody looks: what stands of the service's revisions goes on, of one that is gone nothing does, and of one that was
    promoted nothing that held it beside stable. Only what has little time left is written, since writers wait for each other.

    Raises:
        StoreUnavailable: the control database does not answer.
    """
    suffix, alive = suffix_of(source), dict[str, list[str]]()
    gone: dict[str, list[str]] = {}
    for each in read_standing(workspace, now_us=now_us):
        monitor, (name, _, revision) = each.verdict.monitor, each.verdict.subject.partition("/")
        if name != service or not revision:
            continue
        if revisions.is_gone(revision) or (monitor.startswith(f"{DRIFT}{STABLE}.") and revision == revisions.stable):
            gone.setdefault(each.verdict.subject, []).append(monitor)
        elif _is_of(each, DRIFT, suffix) and each.valid_until_us - now_us < settings.heard_within_s * US_PER_S // 2:
            alive.setdefault(each.verdict.subject, []).append(monitor)
    for subject, monitors in gone.items():
        retire(workspace, subject, now_us, monitors=monitors)
    for subject, monitors in alive.items():
        renew_verdicts(workspace, subject, monitors, valid_for_s=settings.heard_within_s, now_us=now_us)


def suffix_of(source: str) -> str:
    """What monitors over a source of windows are called beyond their plain names."""
    return "" if source == PREDICTIONS else f".{source}"


def _is_of(standing: Standing, prefix: str, suffix: str) -> bool:
    """Whether a monitor is one of those over a source: drift.REFERENCE.FAMILY, and the source's name."""
    monitor = standing.verdict.monitor
    if not monitor.startswith(prefix) or monitor.count(".") != 2 + suffix.count("."):
        return False
    return monitor.endswith(suffix)
