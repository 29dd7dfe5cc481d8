"""Pipeline health: how each pipeline's last run ended, and whether one hangs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from features.layout import US_PER_S
from monitoring.verdicts import Finding, Outcome, Severity, Verdict

MONITOR: Final = "runs"
SUCCEEDED, NOT_BLESSED, FAILED, RUNNING = "succeeded", "not blessed", "failed", "running"
STATUSES: Final = (SUCCEEDED, NOT_BLESSED, FAILED, RUNNING)
"""As run records have them; the metric ``plumb_run_last_status`` shows a status by its place here."""


@dataclass(frozen=True)
class Run:
    """One run: when it began and ended (UTC microseconds; 0 while it runs), how, and how long its steps took."""

    pipeline: str
    name: str
    status: str
    started_us: int
    finished_us: int
    seconds: float
    error: str


def run_subject(pipeline: str) -> str:
    """What verdicts on a pipeline are about."""
    return f"run:{pipeline}"


def judge_runs(runs: Sequence[Run], *, longest_s: float, now_us: int) -> tuple[Verdict, ...]:
    """A verdict a pipeline on the newest of its runs that has ended, unless a younger one hangs.

    A version that was not blessed is a pass: refusing is what gates are for. So is a pipeline that has never ended a run yet.

    Args:
        longest_s: a run that is under way for longer hangs.
    """
    return tuple(
        _judge([run for run in runs if run.pipeline == pipeline], pipeline, longest_s, now_us)
        for pipeline in sorted({run.pipeline for run in runs})
    )


def _judge(runs: Sequence[Run], pipeline: str, longest_s: float, now_us: int) -> Verdict:
    ordered = sorted(runs, key=lambda run: run.started_us)
    ended = [run for run in ordered if run.status != RUNNING]
    hanging = [run for run in ordered if run.status == RUNNING and now_us - run.started_us > longest_s * US_PER_S]
    evidence: dict[str, Finding] = {"runs": len(ordered), "under_way": sum(run.status == RUNNING for run in ordered)}
    if ended:
        last = ended[-1]
        evidence |= {"run": last.name, "status": last.status, "finished_us": last.finished_us, "seconds": last.seconds}
    newer = [run for run in hanging if not ended or run.started_us > ended[-1].started_us]
    if newer:
        hours = (now_us - newer[0].started_us) / US_PER_S / 3_600
        text = f"{newer[0].name} has been under way for {hours:.1f} h, longer than {longest_s / 3_600:.0f} h"
        return _give(pipeline, Outcome.FAIL, evidence, text, now_us)
    if not ended:
        return _give(pipeline, Outcome.PASS, evidence, "the first run is under way", now_us)
    if ended[-1].status == FAILED:
        return _give(pipeline, Outcome.FAIL, evidence, f"{ended[-1].name} failed: {ended[-1].error}", now_us)
    return _give(pipeline, Outcome.PASS, evidence, f"{ended[-1].name}: {ended[-1].status}", now_us)


def _give(pipeline: str, outcome: Outcome, evidence: dict[str, Finding], text: str, now_us: int) -> Verdict:
    return Verdict(MONITOR, run_subject(pipeline), outcome, Severity.PAGE, evidence, text, now_us)
