"""The report of a run: one HTML file that needs nothing else, for the screen and for A4 paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from models import figures
from models.charts import sample
from models.description import describe_duration, describe_gate, describe_label, describe_learning, describe_population
from models.evaluation import CHAMPION, COLD, Evaluation
from models.gate import Decision, judge_slices
from models.metrics import METRIC_TITLES
from models.slot_report import render_slot_report
from models.specs import ModelSpec

TEMPLATES: Final = Path(__file__).parent / "templates"

Lineage = Mapping[str, Mapping[str, str]]
"""Headings, and under each the facts by name."""


@dataclass(frozen=True)
class Step:
    """One step of a run that failed: its status, the seconds it took, and the last error line where it failed."""

    name: str
    status: str
    seconds: float
    reason: str


def render_report(spec: ModelSpec, evaluation: Evaluation, decision: Decision, run_id: str, lineage: Lineage) -> str:
    """The report of a run that came to a decision.

    Args:
        evaluation: of this run, in the form of ``models.evaluation``.
        lineage: what the run was made from; the spec in words is added.
    """
    if spec.slots is not None:
        return render_slot_report(spec, evaluation, decision, run_id, {"Model": describe_model(spec), **lineage})
    reference = CHAMPION if CHAMPION in evaluation["gains"] else spec.gate.slice_reference
    return _environment().get_template("report.html.j2").render(
        model=spec.name,
        title=spec.title,
        verdict=_verdict(decision),
        good=decision.blessed,
        reasons=[entry[0].upper() + entry[1:] if entry.startswith("promoted") else entry for entry in decision.reasons],
        run_id=run_id,
        lineage={"Model": describe_model(spec), **lineage},
        css=_read_css(),
        e=_with_defaults(evaluation),
        own=evaluation["candidates"]["network"],
        gate=spec.gate,
        metric=METRIC_TITLES[spec.gate.metric],
        label=describe_label(spec.label),
        activity=spec.activity,
        reference=reference,
        judged=judge_slices(evaluation, spec.gate),
        slice_words=_judge_in_words(spec, evaluation),
        charts=draw_charts(spec, evaluation),
    )  # fmt: skip


def render_failure(spec: ModelSpec, error: str, steps: Sequence[Step], run_id: str, lineage: Lineage) -> str:
    """The short report of a run that failed.

    Args:
        error: the one line that the run ended with.
        steps: all of the pipeline, in order.
    """
    return _environment().get_template("failure.html.j2").render(
        model=spec.name,
        title=spec.title,
        verdict="Failed",
        good=False,
        reasons=[error],
        run_id=run_id,
        lineage={"Model": describe_model(spec), **lineage},
        css=_read_css(),
        steps=steps,
    )  # fmt: skip


def describe_model(spec: ModelSpec) -> dict[str, str]:
    """A spec's parts in words."""
    return {
        "label": describe_label(spec.label),
        "population": describe_population(spec.population),
        "learning": describe_learning(spec),
        "view": f"{spec.view} of catalog {spec.catalog}",
        "blessing": describe_gate(spec),
    }


def draw_charts(spec: ModelSpec, evaluation: Evaluation) -> dict[str, str]:
    """Every chart that the evaluation has data for, as inline SVG by name."""
    charts = {
        "gains": figures.draw_gains(evaluation["gains"], spec.gate.metric, METRIC_TITLES[spec.gate.metric]),
        "roc": figures.draw_roc(evaluation["curves"]["roc"], evaluation["candidates"]),
        "lift": figures.draw_lift(evaluation["curves"]["lift"]),
        "calibration": figures.draw_calibration(evaluation["calibration"]["network"]),
        "delays": "",
    }
    if "maturity" in evaluation:
        charts["periods"] = figures.draw_periods(evaluation["maturity"]["periods"])
        if evaluation["maturity"]["delays"]["outcomes"]:
            charts["delays"] = figures.draw_delays(evaluation["maturity"]["delays"])
    if "importance" in evaluation:
        charts["importance"] = figures.draw_importance(evaluation["importance"]["groups"])
    return charts


def _verdict(decision: Decision) -> str:
    if not decision.blessed:
        return "Not blessed"
    return "Blessed and promoted" if decision.promoted else "Blessed; the champion is kept"


def _judge_in_words(spec: ModelSpec, evaluation: Evaluation) -> dict[str, tuple[str, str]]:
    """For each slice its judgement and the class that marks it."""
    judged = {part.name: part.harmed for part in judge_slices(evaluation, spec.gate)}
    words = {}
    for name, part in evaluation["slices"].items():
        if part["kind"] == COLD:
            words[name] = ("calibration", "quiet")
        elif name in judged:
            words[name] = ("✕ harmed", "harm") if judged[name] else ("✓ unharmed", "ok")
        else:
            words[name] = ("too few rows", "quiet")
    return words


def _with_defaults(evaluation: Evaluation) -> Evaluation:
    """Parts that an evaluation of a served model lacks, as none; and figures of slices that hold one label."""
    empty: Evaluation = {"champion": None, "maturity": None, "importance": None, "horizons": []}
    absent: Evaluation = {"candidates": None, "gains": None, "gaps": None}
    slices = {name: absent | part for name, part in evaluation["slices"].items()}
    horizons = [{"metrics": None, "gap": None} | entry for entry in evaluation.get("horizons", [])]
    return empty | evaluation | {"slices": slices, "horizons": horizons}


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"show": _show, "sample": sample, "duration": describe_duration}
    return environment


def _show(value: Any, form: str) -> str:
    """A number in a format, with a true minus sign; what is not a number as a dash.

    Example:
        >>> _show(-0.25, "+.3f")
        '−0.250'
    """
    number = float(value)
    return "–" if math.isnan(number) else f"{number:{form}}".replace("-", "−")


def _read_css() -> str:
    return (TEMPLATES / "report.css").read_text(encoding="utf-8")
