"""The report of a run of a model of hours of the week: one HTML page of tables, with the same facts in its lineage."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from models import figures, slot_figures
from models.documents import Document, Drawing, Facts, Section, Table, Text, render_html
from models.evaluation import NETWORK, Evaluation
from models.gate import Decision, judge_slices, slice_reference
from models.metrics import METRIC_TITLES, SLOT_METRICS
from models.slot_spec import STRENGTHS
from models.specs import ModelSpec

HOW: Final = (
    "Of where actions were then seen, under the sending policy as it was; NLL in nats, top 1 and top 3 as shares of actions. "
    "In brackets: 95 % bootstrap intervals over entities. Gains are paired; positive means that this model is better."
)


def render_slot_report(
    spec: ModelSpec, evaluation: Evaluation, decision: Decision, run_id: str, lineage: Mapping[str, Mapping[str, str]]
) -> str:  # fmt: skip
    """The report of a run that came to a decision, as ``models.report.render_report`` for other models."""
    status = "Blessed and promoted" if decision.promoted else "Blessed; the champion is kept"
    sections = [
        Section("How good it is", tuple(_describe_figures(spec, evaluation))),
        Section("For whom", (_tabulate_slices(spec, evaluation),)),
        Section("What it has learned", tuple(_describe_learned(evaluation))),
        Section("What matters", tuple(_describe_importance(evaluation["importance"]))),
        Section("Evidence", tuple(_describe_evidence(evaluation["evidence"]))),
        Section("Label maturity", (Facts(_count_maturity(evaluation["maturity"])),)),
        *(Section(title, (Facts(facts),)) for title, facts in lineage.items()),
    ]
    document = Document(
        title=f"Run of {spec.name}", subtitle=spec.title, status=status if decision.blessed else "Not blessed",
        reasons=decision.reasons, sections=tuple(sections), footer=f"Run {run_id}.", good=decision.blessed, kind="run",
    )  # fmt: skip
    return render_html(document)


def _describe_figures(spec: ModelSpec, evaluation: Evaluation) -> Iterator[Any]:
    counts = f"{evaluation['actions']:,} actions in {evaluation['rows']:,} rows of {evaluation['entities']:,} entities"
    yield Text(f"On {counts} in the test period.")
    rows = [
        (_title(name), *(_figure(found[metric]) for metric in SLOT_METRICS)) for name, found in evaluation["candidates"].items()
    ]
    yield Table(("candidate", *(METRIC_TITLES[metric] for metric in SLOT_METRICS)), tuple(rows), HOW)
    gains = {_title(name): figures for name, figures in evaluation["gains"].items()}
    yield Drawing(figures.draw_gains(gains, spec.gate.metric, METRIC_TITLES[spec.gate.metric]))
    if evaluation["champion"] is not None:
        yield Text(f"Champion version {evaluation['champion']['version']}: {evaluation['champion']['note']}.")


def _tabulate_slices(spec: ModelSpec, evaluation: Evaluation) -> Table:
    judged = {part.name: part.harmed for part in judge_slices(evaluation, spec.gate)}
    reference = slice_reference(evaluation, spec.gate)
    rows = []
    for name, part in evaluation["slices"].items():
        own, gain = part.get("candidates", {}).get(NETWORK), part.get("gains", {}).get(reference)
        word = ("✕ harmed" if judged[name] else "✓ unharmed") if name in judged else "not judged"
        told = _figure(own["nll"]) if own else "no actions"
        gained = _figure(gain["nll"], "+.4f") if gain else ""
        rows.append((name, f"{part['rows']:,}", f"{part['actions']:,}", told, gained, word))
    head = ("slice", "rows", "actions", METRIC_TITLES["nll"], f"gain over {_title(reference)}", "judgement")
    return Table(head, tuple(rows), "Slices of the test rows; a judgement is corrected for their number.")


def _describe_learned(evaluation: Evaluation) -> Iterator[Any]:
    low, high = (100 * end(evaluation["week"]) for end in (min, max))
    yield Text(
        "When people respond of whom nothing is known, were all hours sent to alike: the darker, the likelier, from "
        f"{low:.2f} to {high:.2f} % of responses an hour."
    )
    yield Drawing(slot_figures.draw_week(evaluation["week"]))
    same = evaluation["evidence"]["shifts"][0]
    yield Text(
        "Everybody's day has one shape, which lies at an hour of each person's own. "
        f"{100 * same:.0f} % of people are estimated to keep their hour at the weekend."
    )
    yield Drawing(slot_figures.draw_shape(evaluation["evidence"]["shape"]))


def _describe_importance(importance: Evaluation) -> Iterator[Any]:
    yield Text(
        f"What the NLL of an action rises by when a signal is shuffled among {importance['rows']:,} test rows, "
        f"{importance['repeats']} times. Signals that tell the same can each look dispensable."
    )
    yield Drawing(figures.draw_importance(importance["groups"], metric="nll", title="NLL an action"))


def _describe_evidence(evidence: Evaluation) -> Iterator[Any]:
    yield Text(f"{evidence['users_that_acted']:,} of the test's rows are of users that had acted before.")
    rows = [
        (f"{100 * quantile:.0f} %", f"{actions:,.0f}", f"{effective:,.1f}")
        for quantile, actions, effective in zip(
            evidence["quantiles"], evidence["actions"], evidence["effective_sample_size"], strict=False
        )
    ]
    yield Table(
        ("quantile", "actions", "effective sample size"), tuple(rows), "What is known of a user, before and after weighting."
    )
    strengths = tuple(_name_strengths(evidence["strengths"]))
    yield Table(("fitted", "value"), strengths, "What decides how much a user's own history counts.")


def _name_strengths(strengths: Sequence[float]) -> Iterator[tuple[str, str]]:
    """Fitted numbers in words: logarithms as what they are logarithms of, logits as shares."""
    fitted = dict(zip(STRENGTHS, strengths, strict=True))
    events = {"raw": "own histogram counts fully from", "user": "a user is drawn to what is expected with",
              "segment": "a segment is drawn to everyone with", "sends": "her sends are drawn to everyone's with"}  # fmt: skip
    yield from ((title, f"{math.exp(fitted[name]):,.1f} events") for name, title in events.items())
    yield "an event spreads over hours around it, deviation", f"{_deviation_h(fitted['hour_precision']):.1f} h"
    days = {"same_day": "its own day", "same_kind": "days of its kind", "all_days": "all days"}
    total = sum(math.exp(fitted[name]) for name in days)
    yield from ((f"of it, to {title}", f"{100 * math.exp(fitted[name]) / total:.0f} %") for name, title in days.items())
    shares = {"carry": "actions that follow in the hour after", "rhythm": "what is expected of a user, from the shape of a day"}
    yield from ((title, f"{100 / (1 + math.exp(-fitted[name])):.0f} %") for name, title in shares.items())


def _deviation_h(log_precision: float) -> float:
    """Hours of standard deviation of a von Mises distribution around the clock, by its normal approximation."""
    return 24 / (2 * math.pi * math.sqrt(math.exp(log_precision)))


def _count_maturity(maturity: Evaluation) -> dict[str, str]:
    return {name: f"{maturity[name]:,}" for name in ("rows", "matured", "censored")}


def _title(name: str) -> str:
    return "this model" if name == NETWORK else name.replace("_", " ")


def _figure(figure: Mapping[str, float], form: str = ".4f") -> str:
    return f"{figure['value']:{form}} [{figure['low']:{form}}, {figure['high']:{form}}]"
