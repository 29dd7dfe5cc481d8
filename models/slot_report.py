"""The report of a run of a model of hours of the week: one HTML page of tables, with the same facts in its lineage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from models import figures
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
    rows = []
    for name, found in evaluation["candidates"].items():
        gain = evaluation["gains"].get(name)
        figured = [_figure(found[metric]) for metric in SLOT_METRICS]
        rows.append(("this model" if name == NETWORK else name, *figured, _figure(gain["nll"], "+.4f") if gain else ""))
    titles = [METRIC_TITLES[metric] for metric in SLOT_METRICS]
    yield Table(("candidate", *titles, f"gain in {titles[0]}"), tuple(rows), HOW)
    yield Drawing(figures.draw_gains(evaluation["gains"], spec.gate.metric, METRIC_TITLES[spec.gate.metric]))
    if evaluation["champion"] is not None:
        yield Text(f"Champion version {evaluation['champion']['version']}: {evaluation['champion']['note']}.")


def _tabulate_slices(spec: ModelSpec, evaluation: Evaluation) -> Table:
    judged = {part.name: part.harmed for part in judge_slices(evaluation, spec.gate)}
    reference = slice_reference(evaluation, spec.gate)
    rows = []
    for name, part in evaluation["slices"].items():
        own, gain = part.get("candidates", {}).get(NETWORK), part.get("gains", {}).get(reference)
        word = ("harmed" if judged[name] else "unharmed") if name in judged else ""
        figured = [_figure(own[metric]) if own else "" for metric in ("nll", "top3")]
        gained = _figure(gain["nll"], "+.4f") if gain else ""
        rows.append((name, f"{part['rows']:,}", f"{part['actions']:,}", *figured, gained, word))
    titles = (METRIC_TITLES["nll"], METRIC_TITLES["top3"])
    head = ("slice", "rows", "actions", *titles, f"gain in NLL over {reference}", "judgement")
    return Table(head, tuple(rows), "Slices of the test rows; a judgement is corrected for their number.")


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
    fitted = {name: f"{value:.3f}" for name, value in zip(STRENGTHS, evidence["strengths"], strict=True)}
    yield Facts(fitted)


def _count_maturity(maturity: Evaluation) -> dict[str, str]:
    return {name: f"{maturity[name]:,}" for name in ("rows", "matured", "censored")}


def _figure(figure: Mapping[str, float], form: str = ".4f") -> str:
    return f"{figure['value']:{form}} [{figure['low']:{form}}, {figure['high']:{form}}]"
