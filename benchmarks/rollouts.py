"""``make bench-rollouts``: how often good canaries are rolled back and how soon bad ones are, by the real gates and steps.

Each rollout runs ``monitoring.rollout`` as a controller does, on simulated traffic (``rollout_streams``); the judges that are
common elsewhere (``rollout_judges``) look at the same requests, as often.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.rollout_judges import JUDGES, CommonJudges
from benchmarks.rollout_streams import KINDS, Stream
from monitoring.rollout.evidence import begin, enter_stage, fold
from monitoring.rollout.gates import judge
from monitoring.rollout.plan import DEFAULT_PLAN, Plan, Stage
from monitoring.rollout.step import FINAL, Phase, RollBack, Rollout, Shift, advance, step
from monitoring.verdicts import Outcome, Severity

OURS: Final = "ours"
PLAN: Final = Plan(stages=(Stage(10, 60, 200), Stage(25, 50, 300), Stage(50, 50, 500)), gates=DEFAULT_PLAN.gates)
BAD: Final = tuple(KINDS)[1:-1]
MOST_TICKS: Final = 240
SEED: Final = 20_26


@dataclass(frozen=True)
class Course:
    """How one rollout went: for each judge that rolled back, the canary requests until then; and how ours ended."""

    rolled_back_after: dict[str, int]
    phase: Phase
    gates: tuple[str, ...]
    ticks: int


def run_rollout(kind: str, number: int, strength: float = 1.0) -> Course:
    """One rollout of one kind. Ours decides its percents; once it is over, the others see no more."""
    plan, judges = PLAN, CommonJudges()
    stream = Stream(kind, (SEED, list(KINDS).index(kind), number), strength)
    state = advance(Rollout(number, "churn", "churn", 1, 2), step(Rollout(number, "churn", "churn", 1, 2), (), plan, 0), 0)
    evidence = begin(plan)
    rolled: dict[str, int] = {}
    gates: tuple[str, ...] = ()
    requests = ticks = 0
    while ticks < MOST_TICKS and (state.phase not in FINAL or (kind in BAD and len(rolled) <= len(JUDGES))):
        seen = stream.next_tick(plan.stages[state.stage].percent)
        ticks, requests, now_us = ticks + 1, requests + int(seen.arm.sum()), seen.at_us
        for name, is_over in judges.look(seen).items():
            if is_over:
                rolled.setdefault(name, requests)
        if state.phase in FINAL:
            continue
        evidence = fold(evidence, seen)
        verdicts = judge(evidence, plan, now_us)
        action = step(state, verdicts, plan, now_us)
        state = advance(state, action, now_us)
        if isinstance(action, RollBack):
            rolled[OURS] = requests
            gates = tuple(v.monitor for v in verdicts if v.outcome is Outcome.FAIL and v.severity is Severity.ROLL_BACK)
        elif isinstance(action, Shift):
            evidence = enter_stage(evidence, plan, state.stage, now_us)
            judges.forget()
    return Course(rolled, state.phase, gates, ticks)


def run_kind(kind: str, rollouts: int, strength: float = 1.0) -> list[Course]:
    """Many rollouts of one kind, with different users and traffic."""
    return [run_rollout(kind, number, strength) for number in range(rollouts)]


def median_requests(courses: Sequence[Course], judge_name: str) -> float:
    """Median canary requests until this judge rolled back, of the rollouts that it rolled back; NaN if none."""
    counts = [course.rolled_back_after[judge_name] for course in courses if judge_name in course.rolled_back_after]
    return float(np.median(counts)) if counts else float("nan")


def share_rolled_back(courses: Sequence[Course], judge_name: str) -> float:
    """Share of rollouts that this judge rolled back."""
    return sum(judge_name in course.rolled_back_after for course in courses) / len(courses)


def describe_kind(kind: str, courses: Sequence[Course]) -> list[str]:
    """One row of the table."""
    counts = [course.rolled_back_after[OURS] for course in courses if OURS in course.rolled_back_after]
    gates = [gate for course in courses for gate in course.gates]
    return [
        kind,
        KINDS[kind],
        str(len(courses)),
        f"{share_rolled_back(courses, OURS):.1%}",
        f"{sum(course.phase is Phase.PROMOTED for course in courses) / len(courses):.1%}",
        f"{np.median(counts):.0f}" if counts else "-",
        f"{np.quantile(counts, 0.95):.0f}" if counts else "-",
        ", ".join(sorted(set(gates), key=gates.count, reverse=True)[:3]),
        *(f"{share_rolled_back(courses, name):.1%} / {median_requests(courses, name):.0f}" for name in JUDGES),
    ]


def main() -> None:
    """Run all kinds and print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--equal", type=int, default=1_000)
    parser.add_argument("--bad", type=int, default=200)
    parser.add_argument("--strength", type=float, default=1.0, help="how bad the bad ones are; 0.5: half of what is stated")
    options = parser.parse_args()
    started = time.process_time()
    table = Table("canary", "what differs", "rollouts", "rolled back", "promoted", "median", "p95", "by", *JUDGES)
    for kind in KINDS:
        number = options.equal if kind == "equal" else options.bad
        if number:
            table.add_row(*describe_kind(kind, run_kind(kind, number, options.strength)))
        print(f"{kind}: {time.process_time() - started:.0f} s of CPU", file=sys.stderr, flush=True)
    console = Console(width=170)
    console.print(table)
    console.print(
        f"Configured false-rollback rate {PLAN.false_rollback_rate:.1%}. Median, p95: canary requests until rollback. Others: "
        "share rolled back / median canary requests. Neither rolled back nor promoted: held until the end of the simulation."
    )


if __name__ == "__main__":
    main()
