"""Boosted trees as TensorFlow operations answer what the booster answers, also on its thresholds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import lightgbm
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from models.baselines import fit_baseline
from models.cutoffs import TEST, TRAIN, VALIDATION
from models.errors import TrainingError
from models.frame import read_frame
from models.objectives import Lessons
from models.specs import Learning, load_spec
from models.train import EVALUATED_FILE, predict, train
from models.trees import BLOCK_TREES, BoostedTrees, build_trees, fit_trees, read_forest, round_down

INPUTS = 6
Matrix = NDArray[np.float32]


def boost(features: Matrix, label: Any, rounds: int, **parameters: Any) -> lightgbm.Booster:
    chosen = {"objective": "binary", "num_leaves": 7, "min_data_in_leaf": 5, "num_threads": 1, "verbose": -1, **parameters}
    return lightgbm.train(chosen, lightgbm.Dataset(features, label), rounds)


def draw(rows: int) -> tuple[Matrix, Any]:
    """Columns as graphs give them: scaled numbers, a mask, one-hot values, ranks; an interaction to be learned."""
    rng = np.random.default_rng(3)
    numbers = rng.standard_normal((rows, 3))
    columns = [numbers, rng.integers(0, 2, (rows, 2)), rng.integers(0, 10, (rows, 1)) / 9]
    features = np.concatenate(columns, axis=1).astype(np.float32)
    logit = 2 * features[:, 0] * features[:, 3] + features[:, 1] - features[:, 5]
    return features, rng.random(rows) < 1 / (1 + np.exp(-logit))


# More trees than one block.
BOOSTER = boost(*draw(3_000), rounds=BLOCK_TREES + 30)
MODEL = build_trees(BOOSTER)
THRESHOLDS = sorted(set(read_forest(BOOSTER).threshold.reshape(-1).tolist()))


def probability(model: keras.Model, features: Matrix) -> NDArray[np.float64]:
    logits = np.asarray(model(features, training=False), dtype=np.float64)[:, 0]
    return 1 / (1 + np.exp(-logits))


def beside(threshold: float) -> list[np.float32]:
    """A threshold as float32 and its two neighbours."""
    at = np.float32(threshold)
    return [np.nextafter(at, np.float32(-np.inf)), at, np.nextafter(at, np.float32(np.inf))]


# TensorFlow flushes subnormal numbers to zero, LightGBM does not: no scaled feature is one.
ANY_NUMBER = st.floats(width=32, allow_subnormal=False, allow_infinity=True, allow_nan=True)
ON_A_THRESHOLD = st.sampled_from(THRESHOLDS).flatmap(lambda threshold: st.sampled_from(beside(threshold)))


@given(rows=st.lists(st.lists(ANY_NUMBER | ON_A_THRESHOLD, min_size=INPUTS, max_size=INPUTS), min_size=1, max_size=40))
def test_any_row_gets_the_boosters_own_answer(rows: list[list[float]]) -> None:
    features = np.array(rows, dtype=np.float32)
    assert probability(MODEL, features) == pytest.approx(BOOSTER.predict(features), abs=1e-6)


def test_every_threshold_splits_as_the_booster_splits() -> None:
    """Every threshold and both neighbours in every column of a middling row; one wrong leaf would show by more than 1e-6."""
    values = np.array([value for threshold in THRESHOLDS for value in beside(threshold)], dtype=np.float32)
    rows = np.repeat(draw(1)[0], len(values) * INPUTS, axis=0)
    rows[np.arange(len(rows)), np.repeat(np.arange(INPUTS), len(values))] = np.tile(values, INPUTS)
    assert probability(MODEL, rows) == pytest.approx(BOOSTER.predict(rows), abs=1e-6)


@given(threshold=st.floats(allow_nan=False, allow_infinity=False), value=st.floats(width=32, allow_nan=False))
def test_a_threshold_rounded_down_compares_with_every_float32_as_the_double_does(threshold: float, value: float) -> None:
    assert (np.float32(value) <= round_down(threshold)) == (value <= threshold)


def test_a_hand_made_tree_answers_by_its_leaves() -> None:
    """Label 1 exactly where x0 = 1 and x1 = 0: one tree of depth 2, leaves by the share of ones in them."""
    features = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 25, dtype=np.float32)
    label = (features[:, 0] == 1) & (features[:, 1] == 0)
    booster = boost(features, label, 1, min_data_in_leaf=1)
    scores = probability(build_trees(booster), features[:4])
    assert scores == pytest.approx(booster.predict(features[:4]), abs=1e-7)
    assert np.argmax(scores) == 2
    assert scores[0] == scores[1] == scores[3]


def test_a_booster_that_learned_nothing_answers_the_prior_for_everyone() -> None:
    features = np.zeros((40, 2), dtype=np.float32)
    label = np.arange(40) % 4 == 0
    assert probability(build_trees(boost(features, label, 3)), features[:2]) == pytest.approx([0.25, 0.25], abs=1e-6)


def test_trees_are_saved_and_loaded_as_keras_and_as_a_saved_model(tmp_path: Path) -> None:
    features, _ = draw(500)
    expected = np.asarray(MODEL(features))
    MODEL.save(tmp_path / "trees.keras")
    loaded = keras.saving.load_model(tmp_path / "trees.keras")
    assert isinstance(loaded.layers[-1], BoostedTrees)
    assert np.array_equal(np.asarray(loaded(features)), expected)

    module = tf.Module()
    module.tracked = [variable.value for variable in loaded.variables]
    serve = tf.function(lambda x: {"logit": loaded(x)}, input_signature=[tf.TensorSpec([None, INPUTS], name="x")])
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=serve)
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path / "saved")).signature_def["serving_default"]
        logits = session.run(signature.outputs["logit"].name, {signature.inputs["x"].name: features})
    assert np.array_equal(logits, expected)


def test_fitting_stops_early_and_is_repeated_bit_for_bit_by_the_same_seed() -> None:
    features, label = draw(2_000)
    lessons = Lessons(features, label[:, None].astype(np.float32))
    parts = [Lessons(lessons.inputs[chosen], lessons.targets[chosen]) for chosen in (slice(0, 1_500), slice(1_500, 2_000))]
    fits = [fit_trees(*parts, seed=5) for _ in range(2)]
    assert 1 < fits[0].rounds < 400
    assert fits[0].held_out_log_loss < 0.6
    assert np.array_equal(np.asarray(fits[0].logits(features)), np.asarray(fits[1].logits(features)))


def test_a_spec_may_choose_trees_and_gets_them_calibrated_in_the_same_files(write_features: Any, tmp_path: Path) -> None:
    """The spec's own two files, a probability each; as good as the baseline of the same kind, which sees the same rows."""
    spec = replace(load_spec("churn_retail"), learning=Learning(learner="lightgbm"))
    features = write_features(900)
    summary = train(spec, features, tmp_path / "out", seed=3)
    assert 1 < summary.evaluated.epochs <= 400
    frame = read_frame(features)
    test = frame.of(TEST)
    network = keras.saving.load_model(tmp_path / "out" / EVALUATED_FILE)
    assert any(isinstance(layer, BoostedTrees) for layer in network.layers)
    scores = predict(network, test.transformed)
    baseline = fit_baseline("lightgbm", spec, frame.of(TRAIN), frame.of(VALIDATION)).score(test)
    assert roc_auc_score(test.label, scores) == pytest.approx(roc_auc_score(test.label, baseline), abs=0.02)
    assert abs(scores.mean() - test.label.mean()) < 0.05


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"objective": "regression"}, "got objective regression"),
        ({"objective": "binary", "sigmoid": 2.0}, "got objective binary sigmoid:2"),
        ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, "one logit, the sum of its trees"),
    ],
)
def test_a_booster_of_another_kind_is_refused(parameters: dict[str, Any], expected: str) -> None:
    features, label = draw(600)
    features[:, 5] *= 9
    with pytest.raises(TrainingError, match=expected):
        build_trees(boost(features, label, 5, **parameters))


def test_a_booster_with_categories_is_refused() -> None:
    features, _ = draw(3_000)
    features[:, 5] *= 9
    label = features[:, 5] % 2 == 1
    parameters = {"objective": "binary", "num_threads": 1, "verbose": -1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(features, label, categorical_feature=[5]), 5)
    with pytest.raises(TrainingError, match="got '=='"):
        build_trees(booster)


def test_a_booster_that_has_seen_missing_values_is_refused() -> None:
    features, label = draw(600)
    features[::3, 0] = np.nan
    with pytest.raises(TrainingError, match="missing NaN"):
        build_trees(boost(features, label, 5))
