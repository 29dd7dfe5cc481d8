"""Is the canary worse than the stable revision beside it? One verdict a gate, and one on the data itself.

A gate fails when two things hold: a bet on harm has won more than chance may win (``sequential``), and the harm is at least
the gate's tolerance. ``false_rollback_rate`` is divided between the gates that can roll back, then between stages, then
between what a gate looks at (slices, features): P(any of them ever fails an equal canary) is at most their sum.
"""

from __future__ import annotations

import math

import numpy as np

from features.layout import US_PER_S
from monitoring.rollout.evidence import Evidence
from monitoring.rollout.measures import MEASURERS, SPLITS, Measurement, Reading
from monitoring.rollout.plan import GateSpec, Plan
from monitoring.rollout.sequential import log_threshold, log_wealth, mix
from monitoring.verdicts import Finding, Outcome, Severity, Verdict


def judge(evidence: Evidence, plan: Plan, now_us: int, subject: str = "canary") -> tuple[Verdict, ...]:
    """The check on data, then one verdict a gate of the plan, in its order."""
    data, price = _judge_data(evidence, plan, now_us, subject)
    rolling = sum(gate.severity is Severity.ROLL_BACK for gate in plan.gates)
    level = plan.false_rollback_rate / max(rolling, 1)
    verdicts = [data]
    for gate in plan.gates:
        share = level if gate.kind == "labels" else level / len(plan.stages)
        measured = MEASURERS[gate.kind](evidence, price, log_threshold(share))
        verdicts.append(_decide(gate, measured, plan.stages[evidence.stage].least_users, (subject, now_us)))
    return tuple(verdicts)


def _decide(gate: GateSpec, measured: Measurement, stage_users: int, about: tuple[str, int]) -> Verdict:
    least = stage_users if gate.least_users is None else gate.least_users
    candidates = [reading for reading in measured.readings if _fails(reading, gate)] or measured.readings
    worst = min(candidates, key=lambda reading: (reading.order, reading.log_needed - reading.log_wealth))
    label = f"{gate.kind} ({worst.what})" if worst.what else gate.kind
    if _fails(worst, gate):
        outcome, text = Outcome.FAIL, f"{label}: worse by {worst.effect:.3g}, tolerated {gate.tolerance:g}"
    elif measured.lacks and least > 0:
        outcome, text = Outcome.INCONCLUSIVE, f"{label}: {measured.lacks}"
    elif measured.users < least:
        outcome, text = Outcome.INCONCLUSIVE, f"{label}: {measured.users} canary users of {least}"
    elif gate.proof == "bound" and not measured.upper <= gate.tolerance:
        outcome, text = Outcome.INCONCLUSIVE, f"{label}: may be worse by {measured.upper:.3g}, tolerated {gate.tolerance:g}"
    elif gate.proof == "bound":
        outcome, text = Outcome.PASS, f"{label}: at most {measured.upper:.3g} worse, tolerated {gate.tolerance:g}"
    elif gate.kind == "labels" and not measured.users:
        outcome, text = Outcome.PASS, f"{gate.kind}: none of the canary's has matured, and the plan waits for none"
    else:
        outcome, text = Outcome.PASS, f"{label}: no harm found in {measured.users} canary users"
    numbers: dict[str, Finding] = {
        "what": worst.what,
        "users": measured.users,
        "log_wealth": _finite(worst.log_wealth),
        "log_wealth_needed": _finite(worst.log_needed),
        "effect": _finite(worst.effect),
        "upper_bound": _finite(measured.upper),
        "tolerance": gate.tolerance,
    }
    if gate.kind == "estimate":
        numbers["estimated"] = 1
        text = f"{text} (estimated, no labels)"
    return Verdict(gate.kind, about[0], outcome, gate.severity, numbers, text, about[1])


def _fails(reading: Reading, gate: GateSpec) -> bool:
    return reading.log_wealth >= reading.log_needed and reading.effect >= gate.tolerance and reading.lasts


def _judge_data(evidence: Evidence, plan: Plan, now_us: int, subject: str) -> tuple[Verdict, float]:
    """The check on data, and the price that bets are to be settled at.

    If more users come from the canary than the plan says (stable's events are lost, for one), bets at the plan's price
    would win without any harm: they are settled at the share seen, and the split itself fails.
    """
    silent_s = [(now_us - seen_us) / US_PER_S for seen_us in evidence.seen_us]
    counts = evidence.moment("users").astype(np.int64)
    wealth = float(mix(log_wealth(counts[:, None], SPLITS, evidence.price)))
    share = counts[1] / max(counts.sum(), 1)
    split = wealth >= log_threshold(plan.false_rollback_rate / len(plan.stages))
    price = max(evidence.price, float(share)) if split else evidence.price
    numbers: dict[str, Finding] = {
        "stable_silent_s": silent_s[0],
        "canary_silent_s": silent_s[1],
        "canary_share": float(share),
        "log_wealth": wealth,
    }
    blind = [name for name, silent in zip(("stable", "canary"), silent_s, strict=True) if silent > plan.blind_s]
    if blind:
        outcome, text = Outcome.FAIL, f"data: nothing seen of {' and '.join(blind)} for {plan.blind_s} s"
    elif split:
        outcome, text = Outcome.FAIL, f"data: {share:.1%} of users on the canary, {evidence.percent} % planned"
    else:
        outcome, text = Outcome.PASS, f"data: {share:.1%} of users on the canary"
    return Verdict("data", subject, outcome, Severity.PAGE, numbers, text, now_us), min(price, 0.99)


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
