"""A spec in words: what a report and a model card tell people who do not read code."""

from __future__ import annotations

from typing import Final

from features.layout import DAY_S, HOUR_S, MINUTE_S
from models.metrics import METRIC_TITLES
from models.specs import LabelSpec, ModelSpec, Population

UNITS: Final = ((DAY_S, "day"), (HOUR_S, "hour"), (MINUTE_S, "minute"), (1, "second"))

METHODS: Final = {
    "matured": "only rows whose horizon has passed are learned from",
    "hazard": "a discrete hazard over delay buckets learns from censored rows too",
    "fake_negative": "a row counts as a negative until its outcome arrives; the loss is weighted so that the bias cancels",
}


def describe_duration(seconds: int) -> str:
    """Seconds in the largest unit that divides them.

    Example:
        >>> describe_duration(30 * 86_400), describe_duration(5_400)
        ('30 days', '90 minutes')
    """
    size, unit = next(entry for entry in UNITS if seconds % entry[0] == 0)
    count = seconds // size
    return f"{count} {unit}{'' if count == 1 else 's'}"


def describe_label(label: LabelSpec) -> str:
    """What a label of 1 means, and when it is known.

    Example:
        >>> describe_label(LabelSpec(("order",), horizon_s=90 * 86_400, positive="absent", label_delay_s=86_400))
        '1 if no order happens within 90 days; known 1 day after the horizon'
    """
    outcome = " or ".join(name.replace("_", " ") for name in label.outcome)
    if label.where:
        conditions = " and ".join(f"{entry.attribute} is {' or '.join(map(str, entry.is_in))}" for entry in label.where)
        outcome += f" (where {conditions})"
    happens = "no {} happens" if label.positive == "absent" else "{} happens"
    parts = [f"1 if {happens.format(outcome)} within {describe_duration(label.horizon_s)}"]
    if label.attribution is not None:
        touches = " or ".join(name.replace("_", " ") for name in label.attribution.touches)
        same = f" of the same {label.attribution.match}" if label.attribution.match else ""
        window = describe_duration(label.attribution.window_s)
        parts.append(f"an outcome counts for its last {touches}{same} within {window} before it")
    if label.exclusion is not None:
        excluding = " or ".join(name.replace("_", " ") for name in label.exclusion.event_types)
        same = f" of the same {label.exclusion.match}" if label.exclusion.match else ""
        parts.append(f"void if {excluding}{same} follows within {describe_duration(label.exclusion.window_s)}")
    delay = describe_duration(label.label_delay_s)
    parts.append(f"known {delay} after the horizon" if label.label_delay_s else "known when the horizon has passed")
    return "; ".join(parts)


def describe_population(population: Population) -> str:
    """Who is scored.

    Example:
        >>> describe_population(Population(("signup",), left_by=("cancellation",)))
        'everyone with a known signup, until cancellation'
    """
    text = f"everyone with a known {' or '.join(name.replace('_', ' ') for name in population.entered_by)}"
    if population.active_within_s is not None:
        text += f" in the last {describe_duration(population.active_within_s)}"
    if population.left_by:
        text += f", until {' or '.join(name.replace('_', ' ') for name in population.left_by)}"
    return text


def describe_learning(spec: ModelSpec) -> str:
    """By what, and from which rows a model is learned."""
    learning, slots = spec.learning, spec.slots
    if slots is not None:
        corrected = f", weighted by the inverse propensity of {slots.sends.replace('_', ' ')}" if slots.sends else ""
        shrunken = f"the {slots.segment}'s and then " if slots.segment else ""
        return f"{slots.acts.replace('_', ' ')}{corrected}, shrunken towards {shrunken}everyone's hours by fitted strengths"
    learner = {"network": "a feed-forward network", "lightgbm": "boosted trees (LightGBM)"}[learning.learner]
    return f"{learner}; {METHODS[learning.method]}"


def describe_gate(spec: ModelSpec) -> str:
    """What blessing takes."""
    gate = spec.gate
    metric = METRIC_TITLES[gate.metric]
    parts = []
    if gate.must_beat:
        parts.append(f"{metric} better than {' and '.join(gate.must_beat)} by more than noise")
    if gate.must_match:
        parts.append(f"not worse than {' and '.join(gate.must_match)} by more than {gate.margin:g}")
    if spec.slots is None:
        parts.append(f"calibration error at most {gate.max_calibration_error:g}, also for cold users")
    parts.append(f"no slice worse than the champion, or than {gate.slice_reference}, by more than {gate.slice_margin:g}")
    return "; ".join(parts)
