"""When drift of what is served opens a training run: once an episode of drift, and what came of it.

An episode begins when a drift monitor of a model's stable revision fails and ends when each of them has passed again. Nothing
here starts a run or names a champion: ``plumb`` starts it, the pipeline's gate decides on what it trained, and only a rollout
brings that to users.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from features.control_database import is_absent, open_session
from features.layout import DAY_S, US_PER_S
from features.workspace import Workspace
from monitoring.retraining_tables import SCHEMA, RetrainingRow
from monitoring.revisions import Revisions
from monitoring.verdict_log import Standing
from monitoring.verdicts import Finding, Outcome, Severity, Verdict

REFERENCES: Final = ("training", "weeks")
"""Drift beside these concerns everybody; beside stable it is a canary's own."""
FAMILIES: Final = ("features", "joint", "score", "labels")
QUALITY: Final = "quality"
MODEL: Final = "model"
"""Evidence of a drift verdict: which model's rows these were."""
COOL_DOWN_S: Final = float(DAY_S)
OPENED, UNDER_WAY, SUBMITTED, FAILED = "opened", "under way", "submitted", "failed"
LOCAL, CLUSTER = "local", "cluster"
MONITOR: Final = "retraining"
TIMEOUT_S: Final = 5.0


@dataclass(frozen=True)
class ServingDrift:
    """Drift of what a model is served, all its services together.

    Attributes:
        failing: verdicts on stable revisions that fail, the oldest first; ``since_us`` of the first.
        faulty: verdicts that say that the data are bad: a run would learn the fault.
        is_over: everything that was judged has passed.
    """

    model: str
    service: str
    failing: tuple[Verdict, ...]
    faulty: tuple[Verdict, ...]
    since_us: int
    is_over: bool


@dataclass(frozen=True)
class Wanted:
    """The run that is to be opened: a pipeline's, with parameters like those of an earlier run (empty where there is none), on
    this machine or on a cluster."""

    pipeline: str
    parameters: Mapping[str, Any]
    like_run: str
    place: str = LOCAL
    who: str = "controller"


@dataclass(frozen=True)
class Retraining:
    """A run that drift has opened, as the table has it. Times are UTC microseconds; None while something has not happened."""

    id: int
    model: str
    service: str
    pipeline: str
    parameters: dict[str, Any]
    like_run: str
    place: str
    who: str
    why: str
    verdicts: list[dict[str, Any]]
    drifts_since_us: int
    opened_at_us: int
    status: str
    run_id: str
    result: str
    finished_at_us: int | None
    episode_ended_at_us: int | None


def find_drift(
    standing: Iterable[Standing], revisions_of: Callable[[str], Revisions], now_us: int
) -> tuple[ServingDrift, ...]:  # fmt: skip
    """Serving drift by model, from what stands: only of revisions that are stable, so that a bad canary opens nothing."""
    by_model: dict[str, list[tuple[Standing, Verdict]]] = {}
    for each in standing:
        verdict = each.judged(now_us)
        service, _, revision = verdict.subject.partition("/")
        if _parts(verdict) is not None and revision and revisions_of(service).stable == revision:
            by_model.setdefault(str(each.verdict.evidence.get(MODEL, service)), []).append((each, verdict))
    return tuple(_sum_up(model, found) for model, found in sorted(by_model.items()))


def _sum_up(model: str, found: list[tuple[Standing, Verdict]]) -> ServingDrift:
    found.sort(key=lambda pair: (pair[0].since_us, _rank(pair[1])))
    fails = [(each, verdict) for each, verdict in found if verdict.outcome is Outcome.FAIL]
    failing = [(each, verdict) for each, verdict in fails if _parts(verdict) in FAMILIES]
    return ServingDrift(
        model,
        found[0][1].subject.partition("/")[0],
        tuple(verdict for _, verdict in failing),
        tuple(verdict for _, verdict in fails if _parts(verdict) == QUALITY),
        failing[0][0].since_us if failing else 0,
        # The weeks' reference of a young log says nothing, and says so with severity INFO.
        all(verdict.outcome is Outcome.PASS for _, verdict in found if verdict.severity is not Severity.INFO),
    )


def _parts(verdict: Verdict) -> str | None:
    """The family of a drift monitor beside training or weeks; None for all others."""
    names = verdict.monitor.split(".")
    known = len(names) >= 3 and names[0] == "drift" and names[1] in REFERENCES and names[2] in (*FAMILIES, QUALITY)
    return names[2] if known else None


def _rank(verdict: Verdict) -> int:
    """Features first: they say what moved."""
    return (*FAMILIES, QUALITY).index(_parts(verdict) or QUALITY)


def open_retraining(
    workspace: Workspace, drift: ServingDrift, wanted: Wanted, cool_down_s: float, now_us: int
) -> Retraining | None:  # fmt: skip
    """Record that a run is to be started for an episode of drift.

    Returns:
        What was recorded; None where the episode has had its run, another is under way, or the last one was opened less than
        ``cool_down_s`` ago.
    Raises:
        StoreUnavailable: the control database does not answer.
    """
    with open_session(workspace, SCHEMA, write=True, timeout_s=TIMEOUT_S) as session:
        newest = _newest(session, drift.model)
        if newest is not None and (
            newest.episode_ended_at_us is None
            or newest.finished_at_us is None
            or now_us - newest.opened_at_us < cool_down_s * US_PER_S
        ):
            return None
        row = RetrainingRow(
            model=drift.model, service=drift.service, pipeline=wanted.pipeline, parameters=dict(wanted.parameters),
            like_run=wanted.like_run, place=wanted.place, who=wanted.who,
            why="; ".join(f"{verdict.monitor} of {verdict.subject}: {verdict.text}" for verdict in drift.failing),
            verdicts=[verdict.describe() for verdict in drift.failing], drifts_since_us=drift.since_us, opened_at_us=now_us,
            status=OPENED, run_id="", result="",
        )  # fmt: skip
        session.add(row)
        session.flush()
        made = _as_value(row)
        session.commit()
        return made


def end_episode(workspace: Workspace, model: str, now_us: int) -> None:
    """The drift is over: the next one may open a run again."""
    if is_absent(workspace):
        return
    with open_session(workspace, SCHEMA, write=True, timeout_s=TIMEOUT_S) as session:
        newest = _newest(session, model)
        if newest is not None and newest.episode_ended_at_us is None:
            newest.episode_ended_at_us = now_us
            session.commit()


def record_progress(
    workspace: Workspace, number: int, status: str, *, run_id: str = "", result: str = "", finished_at_us: int | None = None
) -> None:  # fmt: skip
    """What has become of a run so far; a finished one stays as it is."""
    with open_session(workspace, SCHEMA, write=True, timeout_s=TIMEOUT_S) as session:
        row = session.get_one(RetrainingRow, number)
        if row.finished_at_us is None:
            row.status, row.result, row.finished_at_us = status, result, finished_at_us
            row.run_id = run_id or row.run_id
            session.commit()


def list_retrainings(workspace: Workspace, model: str | None = None) -> list[Retraining]:
    """Every run that drift has opened, or those of one model, the newest first.

    Raises:
        StoreUnavailable: the control database does not answer.
    """
    if is_absent(workspace):
        return []
    query = select(RetrainingRow).order_by(RetrainingRow.id.desc())
    if model is not None:
        query = query.where(RetrainingRow.model == model)
    with open_session(workspace, SCHEMA, timeout_s=TIMEOUT_S) as session:
        return [_as_value(row) for row in session.scalars(query)]


def judge_retrainings(known: Sequence[Retraining], mended: Callable[[Retraining], bool], now_us: int) -> tuple[Verdict, ...]:
    """A verdict on each model's newest retraining: one that failed calls somebody until a later run of the model ended well.

    Args:
        known: the newest first.
        mended: whether such a run is known.
    """
    newest = {each.model: each for each in reversed(known)}
    return tuple(_judge(each, each.status == FAILED and not mended(each), now_us) for _, each in sorted(newest.items()))


def _judge(one: Retraining, fails: bool, now_us: int) -> Verdict:
    evidence: dict[str, Finding] = {
        "retraining": one.id, "model": one.model, "run": one.run_id, "status": one.status, "opened_at_us": one.opened_at_us,
    }  # fmt: skip
    text = f"retraining {one.id} of {one.model}: {one.status}" + (f", {one.result}" if one.result else "")
    outcome = Outcome.FAIL if fails else Outcome.PASS
    return Verdict(f"{MONITOR}.{one.model}", f"run:{one.pipeline}", outcome, Severity.PAGE, evidence, text, now_us)


def _newest(session: Session, model: str) -> RetrainingRow | None:
    query = select(RetrainingRow).where(RetrainingRow.model == model).order_by(RetrainingRow.id.desc()).limit(1)
    return session.scalars(query).first()


def _as_value(row: RetrainingRow) -> Retraining:
    return Retraining(**{entry.name: getattr(row, entry.name) for entry in fields(Retraining)})
