"""The comparison of ways to learn, on rows whose delays are known: who is judged, who is learned from, what comes out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from components.delay_study import Judged, Plan, compare, judge_ways, pool, score_ways, split_rows
from features.layout import DAY_S, US_PER_S
from features.workspace import Workspace
from models.cutoffs import Sample, hold_out
from models.errors import EvaluationError
from models.frame import DelayedRows, Knowledge
from models.specs import Attribution, CutoffPlan, LabelSpec, Learning, ModelSpec, NetworkSpec, load_spec

DAY_US = DAY_S * US_PER_S
CUTOFF_DAY = 60
SPEC = replace(
    load_spec("churn"),
    label=LabelSpec(("cancellation",), 30 * DAY_S, "occurs", 0),
    learning=Learning("hazard", delay_buckets_s=tuple(days * DAY_S for days in (2, 5, 10, 15, 20, 30))),
    network=NetworkSpec(hidden=(8,), members=1, dropout=0.0, epochs=8, batch_size=512, learning_rate=1e-2),
)
ATTRIBUTED = replace(
    SPEC,
    label=replace(SPEC.label, attribution=Attribution(("signup",), 30 * DAY_S)),
    cutoffs=CutoffPlan(every_s=DAY_S, at_events=("signup",)),
)


def draw(rows: int = 12_000, entities: int = 3_000) -> tuple[Sample, pa.Table]:
    """Rows at whole days up to the cutoff, and what finally came of them: every third is positive."""
    rng = np.random.default_rng(6)
    ids = pa.array([f"e{number}" for number in rng.integers(0, entities, rows)])
    now_us = rng.integers(0, CUTOFF_DAY, rows) * DAY_US
    final = pa.table({"label": pa.array(np.arange(rows) % 3 == 0).cast(pa.int8()), "matured": pa.array(np.ones(rows, bool))})
    return Sample(ids, now_us, np.full(rows, "train"), 0), final


def test_judged_rows_are_recent_and_nothing_of_their_entities_is_learned() -> None:
    sample, final = draw()
    plan = split_rows(SPEC, sample, final, CUTOFF_DAY * DAY_US, days=20)
    ids = np.array(sample.entity_ids.to_pylist())
    assert sample.now_us[plan.judged].min() > (CUTOFF_DAY - 20) * DAY_US
    assert not set(ids[plan.judged]) & set(ids[plan.learned | plan.held_out])
    assert plan.label.tolist() == final["label"].filter(pa.array(plan.judged)).to_pylist()
    assert not (plan.learned & plan.held_out).any()
    assert hold_out(sample.entity_ids, 0.2)[plan.held_out].all()


def test_with_attribution_a_unit_is_what_an_entity_does_at_one_instant() -> None:
    sample, final = draw()
    plan = split_rows(ATTRIBUTED, sample, final, CUTOFF_DAY * DAY_US, days=20)
    units = np.array([f"{entity}@{now}" for entity, now in zip(sample.entity_ids.to_pylist(), sample.now_us, strict=True)])
    ids = np.array(sample.entity_ids.to_pylist())
    assert not set(units[plan.judged]) & set(units[plan.learned | plan.held_out])
    assert set(ids[plan.judged]) & set(ids[plan.learned])
    assert len(np.unique(plan.unit)) == len(set(units[plan.judged]))


def test_rows_whose_end_is_not_known_are_not_judged() -> None:
    sample, final = draw(500)
    still_open = final.set_column(1, "matured", pa.array(np.zeros(500, bool)))
    with pytest.raises(EvaluationError, match=r"^outcomes are not known: .* got labels that are still open; next: [^\n]+$"):
        split_rows(SPEC, sample, still_open, CUTOFF_DAY * DAY_US, days=20)
    with pytest.raises(EvaluationError, match="got no rows"):
        split_rows(SPEC, sample, final, 500 * DAY_US, days=20)


def test_a_spec_without_delay_buckets_is_refused(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    matured = replace(SPEC, learning=Learning())
    monkeypatch.setattr("components.delay_study.load_spec", lambda name: matured)
    with pytest.raises(EvaluationError, match="ways to learn cannot be compared: model 'churn'; .* got matured"):
        judge_ways(Workspace(tmp_path), "churn", 0, tmp_path, days=1, seed=0)  # type: ignore[arg-type]


def learn(spec: ModelSpec, rows: int = 24_000) -> tuple[DelayedRows, Plan, float]:
    """A third converts, after 9 days in the mean; the cutoff is at day 60. Returns also the true share within 30 days."""
    rng = np.random.default_rng(8)
    now_us = (rng.random(rows) * CUTOFF_DAY * DAY_US).astype(np.int64)
    delay_s = np.where(rng.random(rows) < 1 / 3, rng.exponential(9 * DAY_S, rows), np.inf)
    age_s = CUTOFF_DAY * DAY_S - now_us / US_PER_S
    outcome_s = np.where(delay_s <= 30 * DAY_S, delay_s, np.inf)
    seen_s = np.where(outcome_s <= age_s, outcome_s, np.inf)
    known = Knowledge(np.minimum(age_s, 30 * DAY_S), seen_s, seen_s, np.full(len(age_s), np.inf))
    inputs = rng.standard_normal((rows, 2)).astype(np.float32)
    delayed = DelayedRows(pa.array([str(row) for row in range(rows)]), np.full(rows, "train"), inputs, now_us, known, known)
    part = np.arange(rows) % 4
    judged = (part == 0) & (age_s < 20 * DAY_S)
    plan = Plan((part > 1), part == 1, judged, np.isfinite(outcome_s[judged]).astype(np.int8), np.arange(int(judged.sum())))
    return delayed, plan, float((1 - np.exp(-30 / 9)) / 3)


def test_the_naive_way_underestimates_and_the_others_do_not_where_the_rate_stands_still() -> None:
    rows, plan, share = learn(SPEC)
    scores = dict(score_ways(SPEC, rows, plan, seed=1))
    found = compare(Judged(plan.label, plan.unit, scores), seed=1)
    assert {way: len(score) for way, score in scores.items()} == dict.fromkeys(scores, found["rows"])
    bias = {way: figures["mean_score"] - share for way, figures in found["ways"].items()}
    # Of the last 30 days' outcomes about a third is out: half the rows lack it. The others are calibrated on 3,000 rows or
    # lessons held out, which alone is a standard error of 0.01.
    assert bias.pop("naive") < -0.03
    assert all(abs(value) < 0.04 for value in bias.values()), bias
    assert abs(bias["hazard"]) < 0.025
    naive, hazard = found["ways"]["naive"], found["ways"]["hazard"]
    assert naive["gain"]["value"] == pytest.approx(naive["log_loss"]["value"] - hazard["log_loss"]["value"])
    assert "gain" not in hazard


def test_cutoffs_are_pooled_by_row_and_a_unit_judged_twice_stays_one() -> None:
    first = Judged(
        np.array([1, 0], np.int8), np.array(["a", "b"]), {"hazard": np.array([0.8, 0.5]), "naive": np.array([0.5, 0.5])}
    )
    second = Judged(np.array([1], np.int8), np.array(["a"]), {"hazard": np.array([0.5]), "naive": np.array([0.25])})
    found = compare(pool([first, second]), seed=1)
    assert (found["rows"], found["units"]) == (3, 2)
    # Hazard: (ln 1.25 + ln 2 + ln 2) / 3; naive: (ln 2 + ln 2 + ln 4) / 3; the difference is ln(2 x 2 / 1.25) / 3.
    assert found["ways"]["naive"]["gain"]["value"] == pytest.approx(np.log(3.2) / 3)
