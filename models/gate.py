"""Bless a model or refuse it, and say whether it takes the champion's place, with every reason in a line of its own.

A model is blessed if all of these hold on the test rows:

    baselines    the paired interval of its gain over each of ``must_beat`` lies above zero; that over each of ``must_match``
                 does not lie wholly below ``-margin``
    calibration  its expected calibration error is within ``max_calibration_error``; hours of the week have none
    slices       no slice is harmed. A slice is harmed where the whole interval of the model's gain over the champion, or over
                 ``slice_reference`` where there is no champion, lies below ``-slice_margin``. Among m slices that are large
                 enough to be judged, the interval's level is 1 - 0.05 / m (Bonferroni), from the standard error of the
                 bootstrap: twenty harmless slices must not refuse a model by chance.
    cold users   for users whose state is unknown, mean score and share of positives differ by no more than
                 ``max_calibration_error``, noise allowed for; of hours of the week, they are judged as a slice is

A blessed model is promoted if there is no champion, or if the paired interval of its gain over the champion lies above zero.
Otherwise, also where the two cannot be compared, it stays a candidate and the champion is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final

from features.errors import explain
from models.errors import EvaluationError
from models.evaluation import CHAMPION, COLD, NETWORK, Evaluation, read_evaluation
from models.metrics import METRIC_TITLES
from models.specs import Gate, ModelSpec

LEVEL: Final = 0.95


@dataclass(frozen=True)
class Decision:
    """Whether a model may be served, whether it takes the champion's place, and why (not).

    Attributes:
        blessed: no check objects.
        promoted: blessed, and better than the champion or the first of its kind.
        reasons: one line each: the objections where it is refused, else what was found.
    """

    blessed: bool
    promoted: bool
    reasons: tuple[str, ...]

    @property
    def reason(self) -> str:
        """All reasons in one line."""
        return "; ".join(self.reasons)


@dataclass(frozen=True)
class JudgedSlice:
    """A slice that is large enough: the model's gain over the reference, and the upper end of its corrected interval."""

    name: str
    reference: str
    gain: Mapping[str, float]
    high: float
    harmed: bool


def judge(spec: ModelSpec, evaluation_path: Path) -> Decision:
    """Decide from the file that the evaluation wrote.

    Raises:
        EvaluationError: the file cannot be read, is of another model, or lacks what the gate compares with.
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
    """Bless if no check of the gate objects; then promote if the champion is beaten.

    Raises:
        EvaluationError: the evaluation lacks a baseline that the gate names, or the slice of cold users.
    """
    _require_complete(evaluation, gate)
    slices = judge_slices(evaluation, gate)
    objections = [*_object_to_figures(evaluation, gate), *_object_to_slices(slices, gate), *_object_to_cold(evaluation, gate)]
    if objections:
        return Decision(blessed=False, promoted=False, reasons=tuple(objections))
    promoted, why = _promote(evaluation, gate)
    return Decision(blessed=True, promoted=promoted, reasons=(*_approvals(evaluation, gate, slices), why))


def slice_reference(evaluation: Evaluation, gate: Gate) -> str:
    """What slices are compared with: the champion, unless there is none or it may know the answers."""
    overlaps = (evaluation.get("champion") or {}).get("overlaps", False)
    return CHAMPION if CHAMPION in evaluation["gains"] and not overlaps else gate.slice_reference


def judge_slices(evaluation: Evaluation, gate: Gate) -> list[JudgedSlice]:
    """Every slice with enough rows of both labels, cold users apart, judged as the module's text says."""
    large = {name: part for name, part in evaluation["slices"].items() if part["kind"] != COLD and _is_large(part, gate)}
    reference = slice_reference(evaluation, gate)
    reach = NormalDist().inv_cdf(1 - (1 - LEVEL) / 2 / max(len(large), 1))
    judged = []
    for name, part in large.items():
        gain = part["gains"][reference][gate.metric]
        high = gain["value"] + reach * gain["error"]
        judged.append(JudgedSlice(name, reference, gain, high, harmed=not high >= -gate.slice_margin))
    return judged


def _object_to_figures(evaluation: Evaluation, gate: Gate) -> Iterator[str]:
    for name in gate.must_beat:
        gain = evaluation["gains"][name][gate.metric]
        if not gain["low"] > 0:
            yield f"{METRIC_TITLES[gate.metric]} does not beat {name}: gain {_show(gain)} is not above 0"
    for name in gate.must_match:
        gain = evaluation["gains"][name][gate.metric]
        if not gain["high"] >= -gate.margin:
            yield f"{METRIC_TITLES[gate.metric]} is worse than {name}: gain {_show(gain)} lies below -{gate.margin:g}"
    own = evaluation["candidates"][NETWORK]
    error = own["calibration_error"]["value"] if "calibration_error" in own else 0.0
    if not error <= gate.max_calibration_error:
        yield f"calibration error {error:.3f} exceeds {gate.max_calibration_error:g}"


def _object_to_slices(slices: list[JudgedSlice], gate: Gate) -> Iterator[str]:
    for part in slices:
        if part.harmed:
            gain = f"{METRIC_TITLES[gate.metric]} gain over {part.reference} {part.gain['value']:+.4f}"
            most = f"at most {part.high:+.4f} among {len(slices)} slices"
            yield f"slice {part.name!r} is harmed: {gain}, {most}, lies below -{gate.slice_margin:g}"


def _object_to_cold(evaluation: Evaluation, gate: Gate) -> Iterator[str]:
    cold = _cold(evaluation)
    if not _is_large(cold, gate):
        return
    if "gaps" not in cold:
        gain = cold["gains"][gate.slice_reference][gate.metric]
        if not gain["high"] >= -gate.slice_margin:
            yield f"cold users are harmed: gain over {gate.slice_reference} {_show(gain)} lies below -{gate.slice_margin:g}"
        return
    gap = cold["gaps"][NETWORK]
    if not (gap["low"] <= gate.max_calibration_error and gap["high"] >= -gate.max_calibration_error):
        yield f"cold users are not calibrated: mean score - share {_show(gap)} lies beyond {gate.max_calibration_error:g}"


def _approvals(evaluation: Evaluation, gate: Gate, slices: list[JudgedSlice]) -> Iterator[str]:
    if gate.must_beat:
        beaten = ", ".join(f"{name} by {_show(evaluation['gains'][name][gate.metric])}" for name in gate.must_beat)
        yield f"{METRIC_TITLES[gate.metric]} beats {beaten}"
    if gate.must_match:
        yield f"no worse than {', '.join(gate.must_match)}"
    if "calibration_error" in evaluation["candidates"][NETWORK]:
        error = evaluation["candidates"][NETWORK]["calibration_error"]["value"]
        yield f"calibration error {error:.3f} within {gate.max_calibration_error:g}"
    if slices:
        yield f"none of {len(slices)} slices does worse than {slices[0].reference}"
    cold = _cold(evaluation)
    if _is_large(cold, gate) and "gaps" not in cold:
        yield f"cold users: gain over {gate.slice_reference} {_show(cold['gains'][gate.slice_reference][gate.metric])}"
    elif _is_large(cold, gate):
        yield f"cold users: mean score - share {_show(cold['gaps'][NETWORK])}"
    else:
        yield f"cold users: {cold['rows']} rows are too few to judge"


def _promote(evaluation: Evaluation, gate: Gate) -> tuple[bool, str]:
    champion = evaluation.get("champion")
    if champion is None:
        return True, "promoted: there is no champion"
    title = f"champion version {champion['version']}"
    if CHAMPION not in evaluation["gains"]:
        return False, f"{title} kept: {champion['note']}"
    gain = evaluation["gains"][CHAMPION][gate.metric]
    if gain["low"] > 0:
        return True, f"promoted: {METRIC_TITLES[gate.metric]} beats {title} by {_show(gain)}"
    return False, f"{title} kept: gain {_show(gain)} is not above 0"


def _is_large(part: Mapping[str, Any], gate: Gate) -> bool:
    if "actions" in part:  # of hours of the week, where a row without an action is no opposite
        return bool(part["positives"] >= gate.least_slice_rows)
    fewest = min(part["positives"], part["rows"] - part["positives"])
    return bool(part["rows"] >= gate.least_slice_rows and fewest >= max(gate.least_slice_positives, 1))


def _cold(evaluation: Evaluation) -> Mapping[str, Any]:
    part: Mapping[str, Any] = next(part for part in evaluation["slices"].values() if part["kind"] == COLD)
    return part


def _require_complete(evaluation: Evaluation, gate: Gate) -> None:
    named = (*gate.must_beat, *gate.must_match, gate.slice_reference)
    lacking = [name for name in dict.fromkeys(named) if name not in evaluation["gains"]]
    if all(part["kind"] != COLD for part in evaluation["slices"].values()):
        lacking.append("slice of cold users")
    if lacking:
        raise EvaluationError(
            explain(
                "evaluation lacks what the gate compares",
                which=evaluation["model"],
                expected=", ".join((*dict.fromkeys(named), "a slice of cold users")),
                got=f"no {', '.join(lacking)}",
                next_step="evaluate with the baselines that the gate names",
            )
        )


def _show(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:+.4f} [{figure['low']:+.4f}, {figure['high']:+.4f}]"
