"""What a report says and how it is made; that it reads well is for eyes, not for tests."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from features.layout import DAY_S
from models.comparison import compare_part
from models.description import describe_gate, describe_label, describe_population
from models.evaluate import measure
from models.evaluation import CHAMPION, COLD_NAME, NETWORK
from models.frame import Frame
from models.gate import decide
from models.report import Step, draw_charts, render_failure, render_report
from models.specs import Attribution, Exclusion, LabelSpec, Population, load_spec

SPEC = load_spec("churn_retail")
ROWS = 600


@pytest.fixture(scope="module")
def evaluation() -> dict[str, Any]:
    """A network that knows much, a champion that knows less, baselines that know little; users with 0 to 9 orders."""
    rng = np.random.default_rng(2)
    truth = rng.uniform(0.05, 0.95, ROWS)
    label = (rng.random(ROWS) < truth).astype(np.int8)
    orders = rng.integers(0, 10, ROWS).astype(np.float32)
    none = np.zeros((ROWS, 1), np.float32)
    names = ("orders_count_lifetime",)
    test = Frame(pa.array([f"c{n}" for n in range(ROWS)]), label, np.full(ROWS, "test"), none, orders[:, None], names)
    scores = {NETWORK: truth, "prior": np.full(ROWS, 0.5)}
    scores |= {name: np.clip(truth + rng.normal(0, 0.4, ROWS), 0.05, 0.95) for name in ("recency", "logistic", "lightgbm")}
    scores[CHAMPION] = np.clip(truth + rng.normal(0, 0.2, ROWS), 0.05, 0.95)
    found = measure(SPEC, test, scores, resamples=200, seed=1)
    found["slices"][COLD_NAME] = {
        "kind": "cold",
        **compare_part(label, {NETWORK: np.full(ROWS, 0.5)}, np.ones((5, ROWS), np.uint8)),
    }
    found["champion"] = {"version": 4, "note": "its served network"}
    days = [round(day, 1) for day in np.linspace(0, 90, 10)]
    share = [round(part, 2) for part in np.linspace(0, 1, 10)]
    periods = [
        {"from": f"2025-0{month}-01", "rows": 100, "matured": 100 - month, "censored": month, "outcomes": 50}
        for month in (1, 2)
    ]
    delays = {"outcomes": 100, "days": days, "happened": share, "known": share}
    found["maturity"] = {"rows": 200, "matured": 197, "censored": 3, "periods": periods, "delays": delays}
    figure = {"value": 0.02, "low": 0.01, "high": 0.03, "error": 0.005}
    found["importance"] = {
        "rows": ROWS,
        "repeats": 3,
        "groups": [{"group": "order_value", "columns": 10, "auc": figure, "log_loss": figure}],
    }
    found["horizons"] = [{"horizon_s": 30 * DAY_S, "rows": ROWS, "outcomes": 0, "mean_score": 0.1}]
    return found


def test_a_report_says_everything_and_needs_nothing_else(evaluation: dict[str, Any]) -> None:
    decision = decide(evaluation, SPEC.gate)
    html = render_report(SPEC, evaluation, decision, "run-1", {"Data": {"events/customer": "Delta version 7"}})
    assert decision.promoted
    assert "✓ Blessed and promoted" in html
    assert "champion version 4 by +" in html
    assert "The champion is version 4." in html
    assert "gain over champion in AUC" in html
    assert "Delta version 7" in html
    assert "0 of 600" in html  # an earlier horizon without outcomes is shown, not hidden
    assert "<script" not in html
    assert "http" not in html
    assert "nan" not in html.lower().replace("governance", "")
    assert html.count("<section") == html.count("</section>")


def test_every_chart_is_well_formed_and_says_in_words_what_it_shows(evaluation: dict[str, Any]) -> None:
    charts = draw_charts(SPEC, evaluation)
    assert set(charts) == {"gains", "roc", "lift", "calibration", "periods", "delays", "importance"}
    for name, svg in charts.items():
        root = ET.fromstring(svg)
        title, description = (root.find(tag) for tag in ("title", "desc"))
        assert title is not None, name
        assert description is not None, name
        assert len(description.text or "") > 30
        assert "nan" not in svg


def test_no_two_candidates_share_a_colour_or_a_dash_pattern(evaluation: dict[str, Any]) -> None:
    drawn = list(ET.fromstring(draw_charts(SPEC, evaluation)["roc"]).iter("polyline"))
    lines = drawn[-len(evaluation["candidates"]) :]  # after the grid and the diagonal
    assert len({line.get("stroke") for line in lines}) == len(lines)
    assert len({line.get("stroke-dasharray") for line in lines}) == len(lines)


def test_a_champion_that_is_kept_and_a_slice_that_is_harmed_are_named(evaluation: dict[str, Any]) -> None:
    kept = evaluation | {
        "gains": evaluation["gains"] | {CHAMPION: {SPEC.gate.metric: {"value": 0, "low": -1, "high": 1, "error": 0.5}}}
    }
    html = render_report(SPEC, evaluation, decide(kept, SPEC.gate), "run-1", {})
    assert "✓ Blessed; the champion is kept" in html
    slices = {name: dict(part) for name, part in evaluation["slices"].items()}
    worse = {"value": -0.2, "low": -0.25, "high": -0.15, "error": 0.025}
    slices["activity 5+"]["gains"] = slices["activity 5+"]["gains"] | {CHAMPION: {"auc": worse, "log_loss": worse}}
    harmed = evaluation | {"slices": slices}
    html = render_report(SPEC, harmed, decide(harmed, SPEC.gate), "run-1", {})
    assert "✕ Not blessed" in html
    assert "✕ harmed" in html
    assert html.count("✕ harmed") == 1


def test_what_a_model_is_called_cannot_become_markup(evaluation: dict[str, Any]) -> None:
    spec = replace(SPEC, title="<b>bold</b> & more")
    html = render_report(spec, evaluation, decide(evaluation, SPEC.gate), "run-1", {"Run": {"name": "<script>"}})
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; more" in html
    assert "<script>" not in html


def test_a_failed_run_has_its_error_its_steps_and_what_was_asked_for() -> None:
    steps = [Step("training-rows", "succeeded", 1.25, ""), Step("train", "failed", 2.0, "TrainingError: too few rows")]
    html = render_failure(SPEC, "pipeline step failed: train", steps, "run-2", {"Run": {"seed": "7"}})
    assert "✕ Failed" in html
    assert "pipeline step failed: train" in html
    assert "TrainingError: too few rows" in html
    assert "1 if no order happens within 90 days" in html


def test_labels_populations_and_gates_are_told_in_words() -> None:
    label = LabelSpec(
        ("order", "renewal"), horizon_s=7 * DAY_S, positive="occurs", label_delay_s=0,
        attribution=Attribution(("message_sent",), 2 * DAY_S, "campaign"), exclusion=Exclusion(("refund",), DAY_S, "order_id"),
    )  # fmt: skip
    assert describe_label(label) == (
        "1 if order or renewal happens within 7 days; an outcome counts for its last message sent of the same campaign within "
        "2 days before it; void if refund of the same order_id follows within 1 day; known when the horizon has passed"
    )
    assert describe_population(Population(("order",), active_within_s=60 * DAY_S)) == (
        "everyone with a known order in the last 60 days"
    )
    assert describe_gate(SPEC).startswith("AUC better than prior and recency by more than noise; not worse than logistic and")
