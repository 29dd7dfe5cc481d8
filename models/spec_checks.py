"""Checks of a model's spec: no part of it contradicts another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.errors import explain
from features.layout import DAY_S
from models.errors import SpecError
from models.metrics import BINARY_METRICS, SLOT_METRICS

if TYPE_CHECKING:
    from models.specs import ModelSpec


def check_spec(spec: ModelSpec) -> None:
    """Raise ``SpecError`` with one line at the first contradiction."""
    require(
        spec.label.horizon_s > 0 <= spec.label.label_delay_s, spec, "a positive horizon and no negative delay", str(spec.label)
    )
    require(
        spec.cutoffs.every_s > 0 == spec.cutoffs.every_s % DAY_S,
        spec,
        "base dates whole days apart",
        f"{spec.cutoffs.every_s} s",
    )
    require(0 < spec.cutoffs.validation_share < 1, spec, "a validation share within (0, 1)", str(spec.cutoffs.validation_share))
    _check_learning(spec)
    named = {*spec.gate.must_beat, *spec.gate.must_match, spec.gate.slice_reference}
    require(named <= set(spec.baselines), spec, f"gate baselines among {', '.join(spec.baselines)}", ", ".join(sorted(named)))
    metrics = BINARY_METRICS if spec.slots is None else SLOT_METRICS
    require(spec.gate.metric in metrics, spec, f"one of {', '.join(metrics)}", spec.gate.metric)
    plain = (spec.learning.method, spec.label.positive) == ("matured", "occurs")
    require(spec.slots is None or plain, spec, "matured labels that occur, for hours of the week", str(spec.learning))


def _check_learning(spec: ModelSpec) -> None:
    """Delayed labels: what is learned, from which rows, and how, fit together."""
    label, learning, edges_s = spec.label, spec.learning, spec.learning.delay_buckets_s
    if learning.method == "hazard":
        rising = edges_s == tuple(sorted(set(edges_s))) and edges_s and edges_s[0] > 0 and edges_s[-1] == label.horizon_s
        require(bool(rising), spec, "ascending delay buckets that end at the horizon", str(edges_s))
        require(set(label.earlier_horizons_s) <= set(edges_s), spec, "earlier horizons at edges of delay buckets", str(edges_s))
    else:
        require(not edges_s, spec, "delay buckets for a hazard alone", str(edges_s))
    towers = spec.network.vector > 0
    require(not towers or not spec.network.standardise, spec, "two towers without standardising", str(spec.network))
    matured = not towers and spec.cutoffs.hold_out == "entities"
    require(matured or (learning.method, learning.learner) == ("matured", "network"), spec, "matured labels", str(learning))
    require(
        learning.method == "matured" or learning.learner == "network", spec, "a network where rows have not matured",
        f"{learning.learner} by {learning.method}",
    )  # fmt: skip
    if label.attribution is not None:
        touches = ", ".join(label.attribution.touches)
        drawn = bool(spec.cutoffs.at_events) and set(spec.cutoffs.at_events) <= set(label.attribution.touches)
        require(drawn, spec, f"rows drawn at touches, {touches}", ", ".join(spec.cutoffs.at_events) or "base dates")
    if label.exclusion is not None:
        # Before that, a row would be matured and its label could still turn.
        waits = label.label_delay_s >= label.exclusion.window_s
        require(waits, spec, "a label delay no shorter than the exclusion's window", f"{label.label_delay_s} s")


def require_probability(spec: ModelSpec, doing: str) -> None:
    """Raise ``SpecError`` where the model's score is no probability of its label, and cannot be judged by what became of it.

    Args:
        doing: what cannot be done, as the beginning of a sentence.
    """
    if spec.slots is not None:
        raise SpecError(
            explain(f"{doing} by labels does not fit a model of hours of the week", which=repr(spec.name),
                    expected="a model whose score is the probability of its label", got="one whose score compares two hours",
                    next_step="compare its versions by their evaluations, with `plumb runs report`")
        )  # fmt: skip


def require(holds: bool, spec: ModelSpec, expected: str, got: str) -> None:
    """Raise ``SpecError`` unless it holds."""
    if not holds:
        raise SpecError(
            explain(
                "model spec contradicts itself", which=repr(spec.name), expected=expected, got=got, next_step="correct the spec"
            )
        )
