"""Bless a model or refuse it, with the reason in one line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from features.errors import explain
from models.errors import EvaluationError
from models.evaluation import NETWORK, Evaluation, read_evaluation
from models.specs import Gate, ModelSpec


@dataclass(frozen=True)
class Decision:
    """Whether a model may be served, and why (not)."""

    blessed: bool
    reason: str


def judge(spec: ModelSpec, evaluation_path: Path) -> Decision:
    """Decide from the file that the evaluation wrote.

    Raises:
        EvaluationError: the file cannot be read, is of another model, or lacks a baseline that the gate names.
    """
    evaluation = read_evaluation(evaluation_path)
    if evaluation["model"] != spec.name:
        raise EvaluationError(
            explain(
                "evaluation is of another model",
                which=str(evaluation_path),
                expected=spec.name,
                got=evaluation["model"],
                next_step="pass the evaluation of this run",
            )
        )
    return decide(evaluation, spec.gate)


def decide(evaluation: Evaluation, gate: Gate) -> Decision:
    """Bless if no check of the gate objects; otherwise the reason joins all objections.

    Raises:
        EvaluationError: the evaluation lacks a baseline that the gate names.
    """
    lacking = [name for name in (*gate.must_beat, *gate.must_match) if name not in evaluation["gains"]]
    if lacking:
        raise EvaluationError(
            explain(
                "evaluation lacks baselines",
                which=evaluation["model"],
                expected=", ".join((*gate.must_beat, *gate.must_match)),
                got=f"no {', '.join(lacking)}",
                next_step="evaluate with the baselines that the gate names",
            )
        )
    objections = list(_objections(evaluation, gate))
    if objections:
        return Decision(blessed=False, reason="; ".join(objections))
    beaten = ", ".join(f"{name} by {_show(evaluation['gains'][name][gate.metric])}" for name in gate.must_beat)
    error = evaluation["candidates"][NETWORK]["calibration_error"]["value"]
    matched = f", no worse than {', '.join(gate.must_match)}" if gate.must_match else ""
    return Decision(blessed=True, reason=f"{gate.metric} beats {beaten}{matched}; calibration error {error:.3f}")


def _objections(evaluation: Evaluation, gate: Gate) -> Iterator[str]:
    for name in gate.must_beat:
        gain = evaluation["gains"][name][gate.metric]
        if not gain["low"] > 0:
            yield f"{gate.metric} does not beat {name}: gain {_show(gain)} is not above 0"
    for name in gate.must_match:
        gain = evaluation["gains"][name][gate.metric]
        if not gain["high"] >= -gate.margin:
            yield f"{gate.metric} is worse than {name}: gain {_show(gain)} lies below -{gate.margin:g}"
    error = evaluation["candidates"][NETWORK]["calibration_error"]["value"]
    if not error <= gate.max_calibration_error:
        yield f"calibration error {error:.3f} exceeds {gate.max_calibration_error:g}"


def _show(figure: dict[str, float]) -> str:
    return f"{figure['value']:+.4f} [{figure['low']:+.4f}, {figure['high']:+.4f}]"
