"""Every way to be blessed or refused, with its reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.errors import EvaluationError
from models.gate import decide, judge, slice_reference
from models.specs import Gate, load_spec

GATE = Gate(
    metric="log_loss", must_beat=("prior", "recency"), must_match=("lightgbm",), margin=0.01, max_calibration_error=0.05,
    slice_reference="recency", slice_margin=0.01, least_slice_rows=100, least_slice_positives=20,
)  # fmt: skip


def figure(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high, "error": (high - low) / 3.92}


def part(
    gain: float, error: float, *, rows: int = 1_000, positives: int = 200, kind: str = "declared", reference: str = "recency"
) -> dict[str, Any]:
    """A slice with one gain of a given standard error."""
    gains = {reference: {"log_loss": {"value": gain, "low": gain - 2 * error, "high": gain + 2 * error, "error": error}}}
    return {"kind": kind, "rows": rows, "positives": positives, "gains": gains}


def cold(gap: tuple[float, float, float] = (0.01, -0.02, 0.04), *, rows: int = 1_000) -> dict[str, Any]:
    return {"kind": "cold", "rows": rows, "positives": rows // 5, "gaps": {"network": figure(*gap)}}


def evaluation(
    *, recency: tuple[float, float, float] = (0.05, 0.03, 0.07), lightgbm: tuple[float, float, float] = (-0.002, -0.006, 0.002),
    calibration: float = 0.02, slices: dict[str, Any] | None = None, champion: tuple[float, float, float] | None = None,
) -> dict[str, Any]:  # fmt: skip
    gains = {"prior": (0.2, 0.18, 0.22), "recency": recency, "lightgbm": lightgbm}
    gains |= {} if champion is None else {"champion": champion}
    return {
        "format": 2,
        "model": "churn",
        "candidates": {"network": {"calibration_error": figure(calibration, calibration, calibration)}},
        "gains": {name: {"log_loss": figure(*values)} for name, values in gains.items()},
        "slices": {"cold (state unknown)": cold()} | (slices or {}),
        "champion": None if champion is None else {"version": 3},
    }


def test_a_model_that_beats_its_baselines_is_blessed_and_the_reasons_say_what_was_found() -> None:
    decision = decide(evaluation(slices={"few": part(0.01, 0.01)}), GATE)
    assert decision.blessed
    assert decision.reasons == (
        "log loss beats prior by +0.2000 [+0.1800, +0.2200], recency by +0.0500 [+0.0300, +0.0700]",
        "no worse than lightgbm",
        "calibration error 0.020 within 0.05",
        "none of 1 slices does worse than recency",
        "cold users: mean score - share +0.0100 [-0.0200, +0.0400]",
        "promoted: there is no champion",
    )
    assert decision.reason == "; ".join(decision.reasons)


def test_a_gain_whose_interval_touches_zero_is_no_gain() -> None:
    decision = decide(evaluation(recency=(0.05, 0.0, 0.1)), GATE)
    assert not decision.blessed
    assert decision.reason == "log loss does not beat recency: gain +0.0500 [+0.0000, +0.1000] is not above 0"


def test_boosting_may_be_better_by_noise_or_by_the_margin_but_not_by_more() -> None:
    assert decide(evaluation(lightgbm=(-0.03, -0.07, 0.01)), GATE).blessed
    assert decide(evaluation(lightgbm=(-0.008, -0.009, -0.007)), GATE).blessed
    refused = decide(evaluation(lightgbm=(-0.03, -0.04, -0.02)), GATE)
    assert refused.reason == "log loss is worse than lightgbm: gain -0.0300 [-0.0400, -0.0200] lies below -0.01"


def test_bad_calibration_is_refused_and_objections_are_joined() -> None:
    decision = decide(evaluation(recency=(-0.01, -0.02, 0.0), calibration=0.0512), GATE)
    assert not decision.blessed
    assert decision.reason == (
        "log loss does not beat recency: gain -0.0100 [-0.0200, +0.0000] is not above 0; calibration error 0.051 exceeds 0.05"
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
        EvaluationError,
        match="evaluation lacks what the gate compares: churn; expected prior, recency, lightgbm, a slice of cold users; "
        "got no lightgbm",
    ):
        decide(partial, GATE)


def test_a_slice_is_harmed_where_all_of_its_interval_lies_below_the_margin() -> None:
    # One slice: reach 1.96. -0.05 + 1.96 * 0.02 = -0.0108 is below -0.01, -0.05 + 1.96 * 0.021 = -0.0088 is not.
    refused = decide(evaluation(slices={"few": part(-0.05, 0.02)}), GATE)
    assert not refused.blessed
    assert refused.reason == (
        "slice 'few' is harmed: log loss gain over recency -0.0500, at most -0.0108 among 1 slices, lies below -0.01"
    )
    assert decide(evaluation(slices={"few": part(-0.05, 0.021)}), GATE).blessed


def test_the_more_slices_are_judged_the_wider_their_intervals() -> None:
    # Two slices: level 1 - 0.05 / 2, reach 2.2414: -0.05 + 2.2414 * 0.02 = -0.0052.
    assert decide(evaluation(slices={"few": part(-0.05, 0.02), "many": part(0.1, 0.02)}), GATE).blessed
    # A slice too small to be judged does not count: 99 rows, or 19 positives, or 19 negatives.
    for small in (part(-0.9, 0.02, rows=99), part(-0.9, 0.02, positives=19), part(-0.9, 0.02, positives=981)):
        refused = decide(evaluation(slices={"few": part(-0.05, 0.02), "small": small}), GATE)
        assert "slice 'few' is harmed" in refused.reason
        assert "small" not in refused.reason


def test_slices_are_compared_with_the_champion_where_there_is_one() -> None:
    harmed = {"few": part(-0.05, 0.02, reference="champion"), "activity 0": part(0.01, 0.1, reference="champion")}
    harmed["few"]["gains"]["champion"]["log_loss"]["value"] = -0.06
    refused = decide(evaluation(slices=harmed, champion=(0.03, 0.01, 0.05)), GATE)
    # Two slices: -0.06 + 2.2414 * 0.02 = -0.0152.
    assert refused.reasons == (
        "slice 'few' is harmed: log loss gain over champion -0.0600, at most -0.0152 among 2 slices, lies below -0.01",
    )


def test_a_champion_that_may_know_the_answers_is_no_measure_of_slices() -> None:
    found = evaluation(slices={"few": part(0.01, 0.02)}, champion=(0.03, 0.01, 0.05))
    found["champion"] = {"overlaps": True}
    assert slice_reference(found, GATE) == "recency"
    assert slice_reference({**found, "champion": {"overlaps": False}}, GATE) == "champion"


def test_a_blessed_model_takes_the_champions_place_only_if_it_beats_it() -> None:
    better = decide(evaluation(champion=(0.03, 0.01, 0.05)), GATE)
    assert (better.blessed, better.promoted) == (True, True)
    assert better.reasons[-1] == "promoted: log loss beats champion version 3 by +0.0300 [+0.0100, +0.0500]"
    kept = decide(evaluation(champion=(0.03, 0.0, 0.06)), GATE)
    assert (kept.blessed, kept.promoted) == (True, False)
    assert kept.reasons[-1] == "champion version 3 kept: gain +0.0300 [+0.0000, +0.0600] is not above 0"
    refused = decide(evaluation(champion=(0.03, 0.01, 0.05), calibration=0.2), GATE)
    assert (refused.blessed, refused.promoted) == (False, False)


def test_a_champion_that_cannot_be_compared_is_kept_and_the_reason_says_why() -> None:
    found = evaluation() | {"champion": {"version": 3, "note": "cannot be compared: it predicts another label"}}
    kept = decide(found, GATE)
    assert (kept.blessed, kept.promoted) == (True, False)
    assert kept.reasons[-1] == "champion version 3 kept: cannot be compared: it predicts another label"


def test_cold_users_must_be_calibrated_as_far_as_their_number_can_tell() -> None:
    assert decide(evaluation(slices={"cold (state unknown)": cold((0.08, 0.05, 0.11))}), GATE).blessed
    for gap in ((0.08, 0.051, 0.11), (-0.08, -0.11, -0.051)):
        refused = decide(evaluation(slices={"cold (state unknown)": cold(gap)}), GATE)
        assert refused.reason.startswith("cold users are not calibrated: mean score - share ")
        few = decide(evaluation(slices={"cold (state unknown)": cold(gap, rows=90)}), GATE)
        assert few.blessed
        assert "cold users: 90 rows are too few to judge" in few.reasons


def test_an_evaluation_that_left_cold_users_out_is_refused_not_passed() -> None:
    partial = evaluation()
    del partial["slices"]["cold (state unknown)"]
    with pytest.raises(EvaluationError, match="got no slice of cold users"):
        decide(partial, GATE)


def test_the_judge_reads_the_file_and_refuses_that_of_another_model(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(evaluation()))
    assert judge(replace(load_spec("churn"), gate=GATE), path).blessed
    with pytest.raises(EvaluationError, match="evaluation is of another model"):
        judge(load_spec("churn_retail"), path)


def test_a_broken_or_older_evaluation_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    for text, what in (("{", "cannot be read"), (json.dumps({"format": 1}), "another format")):
        path.write_text(text)
        with pytest.raises(EvaluationError, match=what) as caught:
            judge(load_spec("churn"), path)
        assert "\n" not in str(caught.value)
