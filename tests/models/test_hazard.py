"""The discrete hazard: buckets by hand, a curve that cannot fall, networks that answer for any horizon."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import TrainingError
from models.frame import Knowledge
from models.hazard import Hazard, fill_buckets, probability_within
from models.objectives import Lessons
from models.specs import NetworkSpec
from models.train import Recipe, build_network, fit_network, predict_all, start_from

EDGES = (10, 20, 30)
SMALL = NetworkSpec(hidden=(8,), members=1, dropout=0.0, epochs=20, patience=5, batch_size=256, learning_rate=1e-2)


def test_a_bucket_counts_only_if_it_was_entered_without_an_outcome_and_seen_to_its_end() -> None:
    inf = np.inf
    cases = {  # outcome after, observed for: happened in, at risk in
        (inf, 30): ([0, 0, 0], [1, 1, 1]),
        (inf, 29): ([0, 0, 0], [1, 1, 0]),
        (inf, 9): ([0, 0, 0], [0, 0, 0]),
        (5, 30): ([1, 0, 0], [1, 0, 0]),
        (10, 10): ([1, 0, 0], [1, 0, 0]),
        (15, 30): ([0, 1, 0], [1, 1, 0]),
        # Known already, but others of the same age that stay silent are not: the bucket has to wait for its end.
        (15, 19): ([0, 0, 0], [1, 0, 0]),
        (30, 30): ([0, 0, 1], [1, 1, 1]),
    }
    outcome, observed = (np.array(column, dtype=float) for column in zip(*cases, strict=True))
    happened, at_risk = fill_buckets(outcome, observed, EDGES)
    assert happened.astype(int).tolist() == [happens for happens, _ in cases.values()]
    assert at_risk.astype(int).tolist() == [risks for _, risks in cases.values()]


def test_the_loss_of_a_row_is_the_sum_of_the_entropies_of_its_buckets() -> None:
    hazard = Hazard(EDGES, "occurs")
    targets = np.array([[0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]], np.float32)
    logits = np.array([[0.0, np.log(3), 5.0], [1.0, 1.0, 1.0]], np.float32)
    # Hazards 1/2 and 3/4: it did not happen in the first (-ln 1/2), it did in the second (-ln 3/4); the third is not seen.
    assert np.asarray(hazard.losses(targets, logits)).tolist() == pytest.approx([-np.log(1 / 2) - np.log(3 / 4), 0.0])


@pytest.mark.parametrize(("positive", "score"), [("occurs", 0.75), ("absent", 0.25)])
def test_the_saved_network_gives_score_and_curve_from_stock_layers(positive: str, score: float, tmp_path: Path) -> None:
    logits = build_network(2, 3, SMALL)
    # Zero weights: each logit is its bias, 0 after calibration by scale 2 and shift 0; hazards 1/2, 1/2, 0.
    logits.set_weights([np.zeros_like(weight) for weight in logits.get_weights()])
    logits.layers[-1].set_weights([np.zeros((8, 3)), np.array([0.0, 0.0, -50.0])])
    Hazard(EDGES, positive).finish(logits, 2.0, 0.0).save(tmp_path / "network.keras")  # type: ignore[arg-type]
    saved = keras.saving.load_model(tmp_path / "network.keras")
    outputs = predict_all(saved, np.ones((1, 2), np.float32))
    assert saved.output_shape == (None, 4)
    assert outputs[0].tolist() == pytest.approx([score, 0.5, 0.75, 0.75], abs=1e-6)


@given(st.lists(st.floats(-12, 12), min_size=3, max_size=3), st.floats(0.1, 3), st.floats(-3, 3))
def test_the_curve_never_falls_and_stays_within_0_and_1(biases: list[float], scale: float, shift: float) -> None:
    transformed = keras.Input((1,))
    layer = keras.layers.Dense(3)
    model = keras.Model(transformed, layer(transformed))
    layer.set_weights([np.zeros((1, 3)), np.array(biases)])
    outputs = np.asarray(Hazard(EDGES, "occurs").finish(model, scale, shift)(np.zeros((1, 1), np.float32)))[0]
    assert (np.diff(outputs[1:]) >= 0).all()
    assert 0 <= outputs.min() <= outputs.max() <= 1
    assert outputs[0] == outputs[3]


def test_between_edges_the_hazard_rate_is_constant() -> None:
    within = np.array([[0.75, 0.9]])
    # Survival 1, 1/4, 1/10 at 0, 10, 20: halfway through a bucket it is the geometric mean of its ends.
    assert [float(probability_within(within, (10, 20), at)[0]) for at in (5, 10, 15, 20)] == pytest.approx(
        [0.5, 0.75, 1 - np.sqrt(0.025), 0.9]
    )


def test_hazards_come_out_as_the_shares_of_those_at_risk_whatever_was_censored() -> None:
    rng = np.random.default_rng(2)
    rows = 24_000
    hazards = np.array([0.2, 0.1, 0.3])
    in_bucket = rng.random((rows, 3)) < hazards
    outcome = np.where(in_bucket.any(axis=1), 10 * in_bucket.argmax(axis=1) + 5.0, np.inf)
    observed = rng.uniform(5, 60, rows)
    never = np.full(rows, np.inf)
    known = Knowledge(np.minimum(observed, 30), np.where(outcome <= observed, outcome, np.inf), outcome, never)
    objective = Hazard(EDGES, "occurs")
    inputs = rng.standard_normal((rows, 2)).astype(np.float32)
    held = np.arange(rows) % 4 == 0
    taught, held_out = (objective.teach(inputs, np.zeros(rows), known, part) for part in (~held, held))
    assert len(taught) == int((~held & (observed >= 10)).sum())
    network, fit = fit_network(taught, held_out, Recipe(objective, SMALL, seed=1))
    mean = predict_all(network, inputs).mean(axis=0)
    # Within 10: 0.2; within 20: 1 - 0.8 x 0.9 = 0.28; within 30: 1 - 0.72 x 0.7 = 0.496. Standard errors are about 0.004.
    assert mean.tolist() == pytest.approx([0.496, 0.2, 0.28, 0.496], abs=0.02)
    assert fit.rows == len(taught)


def test_a_closed_row_is_known_to_its_horizon_and_an_open_one_as_far_as_it_was_observed() -> None:
    never = np.inf
    known = Knowledge(
        np.array([12.0, 12.0, 12.0]),
        np.array([never, never, 4.0]),
        np.array([never, never, 5.0]),
        np.array([9.0, never, never]),
    )
    lessons = Hazard(EDGES, "occurs").teach(np.zeros((3, 1), np.float32), np.zeros(3), known, np.ones(3, bool))
    happened, at_risk = lessons.targets[:, :3], lessons.targets[:, 3:]
    assert happened.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    # The first row closed without an outcome; the second was observed for 12 of 30; the third had its outcome in bucket one.
    assert at_risk.tolist() == [[1, 1, 1], [1, 0, 0], [1, 0, 0]]


def test_training_may_start_from_a_saved_network_of_the_same_shape_and_no_other(tmp_path: Path) -> None:
    objective = Hazard(EDGES, "occurs")
    first, second = build_network(2, 3, SMALL), build_network(2, 3, SMALL)
    objective.finish(first, 1.5, 0.5).save(tmp_path / "network.keras")
    start_from(second, tmp_path / "network.keras")
    pairs = zip(first.get_weights(), second.get_weights(), strict=True)
    assert all((one == two).all() for one, two in pairs)
    with pytest.raises(TrainingError, match=r"^network to start from has other layers: .*; next: [^\n]+$"):
        start_from(build_network(5, 3, SMALL), tmp_path / "network.keras")


def test_rows_that_all_ended_alike_are_refused() -> None:
    targets = np.repeat([[0, 0, 0, 1, 1, 1]], 400, axis=0).astype(np.float32)
    silent = Lessons(np.zeros((400, 2), np.float32), targets)
    with pytest.raises(TrainingError, match="rows cannot teach a classifier"):
        fit_network(silent, silent, Recipe(Hazard(EDGES, "occurs"), SMALL, seed=1))
