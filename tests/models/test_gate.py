"""Every way to be blessed or refused, with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from models.errors import EvaluationError
from models.gate import decide, judge
from models.specs import Gate, load_spec

GATE = Gate(
    metric="log_loss", must_beat=("prior", "recency"), must_match=("lightgbm",), margin=0.01, max_calibration_error=0.05
)


def figure(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def evaluation(
    *, recency: tuple[float, float, float] = (0.05, 0.03, 0.07), lightgbm: tuple[float, float, float] = (-0.002, -0.006, 0.002),
    calibration: float = 0.02,
) -> dict[str, Any]:  # fmt: skip
    return {
        "format": 1,
        "model": "churn",
        "candidates": {"network": {"calibration_error": figure(calibration, calibration, calibration)}},
        "gains": {
            "prior": {"log_loss": figure(0.2, 0.18, 0.22)},
            "recency": {"log_loss": figure(*recency)},
            "lightgbm": {"log_loss": figure(*lightgbm)},
        },
    }


def test_a_model_that_beats_its_baselines_is_blessed_and_the_reason_says_by_how_much() -> None:
    decision = decide(evaluation(), GATE)
    assert decision.blessed
    assert decision.reason == (
        "log_loss beats prior by +0.2000 [+0.1800, +0.2200], recency by +0.0500 [+0.0300, +0.0700], no worse than lightgbm; "
        "calibration error 0.020"
    )


def test_a_gain_whose_interval_touches_zero_is_no_gain() -> None:
    decision = decide(evaluation(recency=(0.05, 0.0, 0.1)), GATE)
    assert not decision.blessed
    assert decision.reason == "log_loss does not beat recency: gain +0.0500 [+0.0000, +0.1000] is not above 0"


def test_boosting_may_be_better_by_noise_or_by_the_margin_but_not_by_more() -> None:
    assert decide(evaluation(lightgbm=(-0.03, -0.07, 0.01)), GATE).blessed
    assert decide(evaluation(lightgbm=(-0.008, -0.009, -0.007)), GATE).blessed
    refused = decide(evaluation(lightgbm=(-0.03, -0.04, -0.02)), GATE)
    assert refused.reason == "log_loss is worse than lightgbm: gain -0.0300 [-0.0400, -0.0200] lies below -0.01"


def test_bad_calibration_is_refused_and_objections_are_joined() -> None:
    decision = decide(evaluation(recency=(-0.01, -0.02, 0.0), calibration=0.0512), GATE)
    assert not decision.blessed
    assert decision.reason == (
        "log_loss does not beat recency: gain -0.0100 [-0.0200, +0.0000] is not above 0; calibration error 0.051 exceeds 0.05"
    )


def test_a_figure_that_is_not_a_number_never_blesses() -> None:
    nan = float("nan")
    assert not decide(evaluation(recency=(nan, nan, nan)), GATE).blessed
    assert not decide(evaluation(lightgbm=(nan, nan, nan)), GATE).blessed
    assert not decide(evaluation(calibration=nan), GATE).blessed


def test_an_evaluation_without_a_named_baseline_is_refused_not_passed() -> None:
    partial = evaluation()
    del partial["gains"]["lightgbm"]
    with pytest.raises(
        EvaluationError, match="evaluation lacks baselines: churn; expected prior, recency, lightgbm; got no lightgbm"
    ):
        decide(partial, GATE)


def test_the_judge_reads_the_file_and_refuses_that_of_another_model(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(evaluation()))
    assert judge(load_spec("churn"), path).blessed
    with pytest.raises(EvaluationError, match="evaluation is of another model"):
        judge(load_spec("churn_retail"), path)


def test_a_broken_or_older_evaluation_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    for text, what in (("{", "cannot be read"), (json.dumps({"format": 0}), "another format")):
        path.write_text(text)
        with pytest.raises(EvaluationError, match=what) as caught:
            judge(load_spec("churn"), path)
        assert "\n" not in str(caught.value)
