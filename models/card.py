"""The model card of a version: what it predicts, how well, for whom not, and how to go back, from lineage and evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from features.errors import explain
from models import figures
from models.cutoffs import CENSORED, EMBARGO, TEST, TRAIN, VALIDATION
from models.description import describe_duration, describe_label, describe_learning, describe_population
from models.documents import Document, Drawing, Facts, Items, Section, Table, Text, render_html, render_markdown
from models.errors import VersionError
from models.evaluation import CHAMPION, COLD, NETWORK, Evaluation
from models.gate import Decision, judge_slices, slice_reference
from models.lineage import Lineage
from models.metrics import BINARY_METRICS, HIGHER_IS_BETTER, METRIC_TITLES
from models.specs import ModelSpec
from models.versions import ModelVersion

CARD_FILES: Final = {"markdown": "card.md", "html": "card.html"}
SPLITS: Final = (TRAIN, VALIDATION, EMBARGO, TEST, CENSORED, COLD)
SLOT_PURPOSE: Final = (
    "It answers with a distribution over the 168 hours of the week, as if all were sent to alike, and with the best of them. "
    "The score is the share of responses that sending now, rather than in the best hour, would lose."
)
INTERVALS: Final = (
    "In brackets: 95 % bootstrap intervals over entities. Gains are paired; positive means that this model is better."
)


def render_documents(
    spec: ModelSpec, version: ModelVersion, evaluation: Evaluation, decision: Decision
) -> Mapping[str, str]:  # fmt: skip
    """The card as Markdown and as HTML, by file name."""
    card = describe_version(spec, version, evaluation, decision)
    return {CARD_FILES["markdown"]: render_markdown(card), CARD_FILES["html"]: render_html(card)}


def read_card(version: ModelVersion, form: str) -> str:
    """The card as it was written when the version was registered; ``form`` is markdown or html.

    Raises:
        VersionError: the version was registered before there were cards.
    """
    path = version.path / CARD_FILES[form]
    if not path.is_file():
        raise VersionError(
            explain("model version has no card", which=f"{version.model} version {version.version}", expected=f"file {path}",
                    got="none", next_step="train the model again; a card is written at registration")
        )  # fmt: skip
    return path.read_text(encoding="utf-8")


def describe_version(spec: ModelSpec, version: ModelVersion, evaluation: Evaluation, decision: Decision) -> Document:
    """All sections of the card."""
    lineage = version.lineage
    assert lineage is not None  # cards came later than lineage
    status = "blessed and promoted over the champion" if decision.promoted else "blessed; the champion was kept"
    if decision.promoted and lineage.parent_champion is None:
        status = "blessed and promoted; it is the first champion of this model"
    return Document(
        title=f"{spec.name} version {version.version}",
        subtitle=spec.title,
        status=status,
        reasons=decision.reasons,
        sections=(
            Section("What it predicts", tuple(_describe_purpose(spec))),
            Section("How it was trained", tuple(_describe_training(spec, lineage))),
            Section("How good it is", tuple(_describe_figures(evaluation))),
            Section("For whom", (_tabulate_slices(spec, evaluation),)),
            *([Section("Calibration", tuple(_describe_calibration(evaluation)))] if "calibration" in evaluation else []),
            Section("Known limits", (Items(tuple(_find_limits(spec, evaluation))),)),
            Section("How to go back", tuple(_describe_rollback(version, lineage, promoted=decision.promoted))),
            Section("Lineage", (_list_lineage(version, lineage),)),
        ),
        footer=f"Written when version {version.version} was registered by run {version.run_id}.",
    )


def _describe_purpose(spec: ModelSpec) -> Iterator[Any]:
    if spec.slots is None:
        yield Text("The score is the calibrated probability that the label is 1.")
    else:
        yield Text(SLOT_PURPOSE)
    yield Facts(
        {
            "label": describe_label(spec.label),
            "population": describe_population(spec.population),
            "horizon": describe_duration(spec.label.horizon_s),
            "label delay": describe_duration(spec.label.label_delay_s) if spec.label.label_delay_s else "none",
            "features": f"view {spec.view} of catalog {spec.catalog}",
        }
    )


def _describe_training(spec: ModelSpec, lineage: Lineage) -> Iterator[Any]:
    served = "learned from everything known at that time" if spec.refit else "is the one that was evaluated"
    yield Facts(
        {
            "method": describe_learning(spec),
            "known at": f"{_instant(lineage.known_at_us)}; the served network {served}",
            "test begins": f"{_instant(lineage.test_begins_us)}; the figures below are of a network that knew nothing later",
            "seed": str(lineage.seed),
        }
    )
    splits = [name for name in SPLITS if f"rows_{name}" in lineage.rows]
    rows = [(name, _count(lineage.rows[f"rows_{name}"]), _count(lineage.rows[f"positives_{name}"])) for name in splits]
    yield Table(("split", "rows", "positive"), tuple(rows), "Rows of the run that made this version.")


def _describe_figures(evaluation: Evaluation) -> Iterator[Any]:
    counts = f"{_count(evaluation['rows'])} rows of {_count(evaluation['entities'])} entities"
    yield Text(f"On {counts} in the test period, {_count(evaluation['positives'])} of them positive.")
    rows, metrics = [], tuple(evaluation["candidates"][NETWORK])
    for name, row in evaluation["candidates"].items():
        gains = evaluation["gains"].get(name)
        gain = _figure(gains[metrics[0]], "+.3f") if gains else ""
        rows.append(("this model" if name == NETWORK else name, *(_figure(row[metric]) for metric in metrics), gain))
    titles = [METRIC_TITLES[metric] for metric in metrics]
    yield Table(("candidate", *titles, f"gain in {titles[0]}"), tuple(rows), INTERVALS)
    champion = evaluation.get("champion")
    if champion is not None:
        yield Text(f"{_say_champion(evaluation)}.")


def _tabulate_slices(spec: ModelSpec, evaluation: Evaluation) -> Table:
    judged = {part.name: part for part in judge_slices(evaluation, spec.gate)}
    reference, first = slice_reference(evaluation, spec.gate), next(iter(evaluation["candidates"][NETWORK]))
    rows = []
    for name, part in evaluation["slices"].items():
        own = part.get("candidates", {}).get(NETWORK)
        gain = part.get("gains", {}).get(reference)
        word = ("harmed" if judged[name].harmed else "unharmed") if name in judged else "too few rows to judge"
        word = "judged by calibration" if part["kind"] == COLD and "gaps" in part else word
        rows.append(
            (name, _count(part["rows"]), _count(part["positives"]), _figure(own[first]) if own else "",
             _figure(gain[spec.gate.metric], "+.4f") if gain else "", word)
        )  # fmt: skip
    gained = f"gain in {METRIC_TITLES[spec.gate.metric]} over {reference}"
    head = ("slice", "rows", "positive", METRIC_TITLES[first], gained, "judgement")
    return Table(head, tuple(rows), "Slices of the test rows, each judged with a correction for their number.")


def _describe_calibration(evaluation: Evaluation) -> Iterator[Any]:
    table = evaluation["calibration"][NETWORK]
    rows = tuple((_count(entry["rows"]), f"{entry['mean_score']:.3f}", f"{entry['share_positive']:.3f}") for entry in table)
    error = _figure(evaluation["candidates"][NETWORK]["calibration_error"])
    yield Drawing(figures.draw_calibration(table))
    yield Table(("rows", "mean score", "share positive"), rows, f"Bins of the score. Calibration error {error}.")


def _find_limits(spec: ModelSpec, evaluation: Evaluation) -> Iterator[str]:
    """What the evaluation says against relying on the model."""
    for name, gains in evaluation["gains"].items():
        gain = gains[spec.gate.metric]
        if not gain["low"] > 0:
            title = METRIC_TITLES[spec.gate.metric]
            yield f"It is not better than {name} by more than noise: gain in {title} {_figure(gain, '+.4f')}."
    judged = {part.name: part for part in judge_slices(evaluation, spec.gate)}
    for name, part in evaluation["slices"].items():
        if name in judged and judged[name].harmed:
            yield f"Slice '{name}' is harmed: gain over {judged[name].reference} {judged[name].gain['value']:+.4f}."
        elif name not in judged and part["kind"] != COLD:
            counts = f"{_count(part['rows'])} test rows, {_count(part['positives'])} positive"
            yield f"Slice '{name}' has {counts}: too few to judge."
        elif part["kind"] == COLD and part.get("gaps"):
            gap = _figure(part["gaps"][NETWORK], "+.3f")
            yield f"For users whose state is unknown, mean score less share of positives is {gap}."
        elif part["kind"] == COLD and spec.slots is None:
            yield f"Users whose state is unknown: {_count(part['rows'])} test rows, so their calibration is not known."
    champion = evaluation.get("champion")
    if champion is not None and (champion.get("overlaps") or CHAMPION not in evaluation["gains"]):
        yield f"{_say_champion(evaluation)}."
    wait = describe_duration(spec.label.horizon_s + spec.label.label_delay_s)
    yield f"Whether a score was right is known only {wait} after it was given; until then watch its inputs and distribution."
    if spec.gate.metric in BINARY_METRICS and HIGHER_IS_BETTER[spec.gate.metric]:
        yield "Against the baselines it was judged by rank; look at the calibration before you read its score as a probability."


def _say_champion(evaluation: Evaluation) -> str:
    champion = evaluation["champion"]
    said = f"was scored by {champion['note']}" if CHAMPION in evaluation["gains"] else champion["note"]
    return f"Champion version {champion['version']} {said}"


def _describe_rollback(version: ModelVersion, lineage: Lineage, *, promoted: bool) -> Iterator[Any]:
    name, parent = version.model, lineage.parent_champion
    if parent is None:
        yield Text("No version was champion before this one: there is nothing to go back to. Stop serving it, or train again.")
    elif promoted:
        yield Text(f"Version {parent} was champion until this one was registered. To go back to it:")
        yield Items((f"plumb models promote {name} {parent} --why 'what went wrong'",), code=True)
    else:
        yield Text(f"Version {parent} stayed champion when this one was registered. To promote this one, and to go back:")
        promotions = (f"{version.version} --why 'what speaks for it'", f"{parent} --why 'what went wrong'")
        yield Items(tuple(f"plumb models promote {name} {words}" for words in promotions), code=True)
    yield Text("Who is champion, and how that came about; a server takes the champion when it starts:")
    yield Items((f"plumb models history {name}", f"plumb serve {name}"), code=True)
    yield Text(f"It needs the online store of view {version.view_key}: keep that filled while this version may be served.")


def _list_lineage(version: ModelVersion, lineage: Lineage) -> Facts:
    facts = {"run": version.run_id, "registered by a run of": _instant(version.created_at_us)}
    facts |= {"catalog": lineage.catalog, "log ends": _instant(lineage.log_end_us)}
    facts |= {
        f"table {name}": f"version {number}" if number >= 0 else "never written" for name, number in lineage.tables.items()
    }
    facts |= {"view": f"{version.view_key} {version.view_hash}", "graph": version.graph_hash}
    facts |= {f"code {name}": str(value) for name, value in lineage.code.items() if value is not None}
    return Facts(facts)


def _figure(figure: Mapping[str, float], form: str = ".3f") -> str:
    return f"{figure['value']:{form}} [{figure['low']:{form}}, {figure['high']:{form}}]"


def _instant(time_us: int) -> str:
    return f"{np.datetime64(time_us, 'us').astype('datetime64[s]')}Z"


def _count(number: float) -> str:
    return f"{int(number):,}"
