"""Training, calibration, evaluation and the gate on rows whose law is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest

from models.baselines import BASELINES, fit_baseline
from models.cutoffs import TEST, TRAIN, VALIDATION
from models.errors import SpecError, TrainingError
from models.evaluate import evaluate
from models.evaluation import read_evaluation
from models.frame import read_frame
from models.gate import judge
from models.objectives import fit_calibration
from models.specs import NetworkSpec, Slice, load_spec
from models.train import EVALUATED_FILE, NETWORK_FILE, predict, train

WriteFeatures = Callable[..., Path]

SPEC = replace(
    load_spec("churn_retail"),
    network=NetworkSpec(hidden=(16,), epochs=8, batch_size=128, learning_rate=1e-2),
    slices=(Slice("few", "orders_count_lifetime", 1, 4), Slice("nobody", "orders_count_lifetime", 50, 60)),
)


def test_a_network_learns_a_known_law_and_beats_the_rule_of_thumb(write_features: WriteFeatures, tmp_path: Path) -> None:
    features, out = write_features(), tmp_path / "network"
    training = train(SPEC, features, out, seed=1)
    figures = evaluate(SPEC, features, out, out / "evaluation.json", seed=1)
    # The law itself reaches 0.799 and recency 0.664 (400,000 draws); on 1,500 rows the standard error is 0.012.
    assert figures["network_auc"] > 0.77
    assert figures["recency_auc"] < 0.72
    assert figures["prior_auc"] == 0.5
    decision = judge(SPEC, out / "evaluation.json")
    assert decision.blessed, decision.reason
    assert json.loads((out / "training.json").read_text())["served"]["rows"] == training.served.rows
    # Three dates of 1,500 customers, four in five of whom are not held out; the evaluated network saw two of them.
    assert training.served.rows == 2 * training.evaluated.rows


def test_the_saved_networks_take_rows_of_the_graph_and_give_one_probability(
    write_features: WriteFeatures, tmp_path: Path
) -> None:
    train(SPEC, write_features(), tmp_path, seed=1)
    rows = np.zeros((5, 6), np.float32)
    for name in (NETWORK_FILE, EVALUATED_FILE):
        network = keras.models.load_model(tmp_path / name)
        assert len(network.inputs) == len(network.outputs) == 1
        output = network(rows, training=False)
        assert tuple(output.shape) == (5, 1)
        assert str(output.dtype).endswith("float32'>")
        assert ((np.asarray(output) > 0) & (np.asarray(output) < 1)).all()


def test_the_same_seed_gives_the_same_network_and_another_seed_another(write_features: WriteFeatures, tmp_path: Path) -> None:
    features = write_features(600)
    spec = replace(SPEC, network=replace(SPEC.network, epochs=2), refit=False)
    scores = []
    for number, seed in enumerate((1, 1, 2)):
        train(spec, features, tmp_path / str(number), seed=seed)
        scores.append(predict(keras.models.load_model(tmp_path / str(number) / NETWORK_FILE), read_frame(features).transformed))
    assert scores[0].tolist() == scores[1].tolist()
    assert scores[0].tolist() != scores[2].tolist()


def test_shuffled_labels_give_chance_and_no_blessing(write_features: WriteFeatures, tmp_path: Path) -> None:
    features = write_features(shuffled=True)
    train(SPEC, features, tmp_path, seed=1)
    figures = evaluate(SPEC, features, tmp_path, tmp_path / "evaluation.json", seed=1)
    # 1,500 test rows, 40 % positive: the standard error of AUC at chance is about 0.015.
    assert abs(figures["network_auc"] - 0.5) < 0.05
    decision = judge(SPEC, tmp_path / "evaluation.json")
    assert not decision.blessed
    assert "does not beat" in decision.reason


def test_the_evaluation_holds_every_candidate_its_paired_gain_and_the_slices(
    write_features: WriteFeatures, tmp_path: Path
) -> None:
    features = write_features(600)
    train(SPEC, features, tmp_path, seed=1)
    evaluate(SPEC, features, tmp_path, tmp_path / "evaluation.json", seed=1)
    found = read_evaluation(tmp_path / "evaluation.json")
    assert set(found["candidates"]) == {"network", *SPEC.baselines}
    assert set(found["gains"]) == set(SPEC.baselines)
    assert (found["rows"], found["entities"], found["resamples"]) == (600, 600, 1_000)
    network, recency = found["candidates"]["network"], found["candidates"]["recency"]
    assert found["gains"]["recency"]["auc"]["value"] == pytest.approx(network["auc"]["value"] - recency["auc"]["value"])
    assert found["gains"]["recency"]["log_loss"]["value"] == pytest.approx(
        recency["log_loss"]["value"] - network["log_loss"]["value"]
    )
    paired, single = found["gains"]["lightgbm"]["auc"], network["auc"]
    assert paired["high"] - paired["low"] < single["high"] - single["low"]
    assert sum(entry["rows"] for entry in found["calibration"]["network"]) == 600
    assert found["slices"]["few"]["rows"] < 600
    assert found["slices"]["few"]["candidates"]["network"]["auc"]["value"] > 0.5
    assert found["slices"]["nobody"] == {"kind": "declared", "rows": 0, "positives": 0}


def test_calibration_recovers_the_scale_and_shift_of_a_logit() -> None:
    rng = np.random.default_rng(4)
    logits = rng.standard_normal(40_000)
    labels = (rng.random(40_000) < 1 / (1 + np.exp(-(0.5 * logits - 1)))).astype(np.int8)
    # Standard errors at this size: about 0.012.
    assert fit_calibration(logits, labels) == pytest.approx((0.5, -1.0), abs=0.05)


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_a_baseline_gives_probabilities_that_depend_on_training_rows_alone(name: str, write_features: WriteFeatures) -> None:
    frame = read_frame(write_features(600))
    rows, validation, test = frame.of(TRAIN), frame.of(VALIDATION), frame.of(TEST)
    scores = [fit_baseline(name, SPEC, rows, validation).score(test) for _ in range(2)]
    assert scores[0].tolist() == scores[1].tolist()
    assert scores[0].shape == (600,)
    assert ((scores[0] > 0) & (scores[0] < 1)).all()
    assert abs(scores[0].mean() - rows.label.mean()) < 0.05


def test_the_rule_of_thumb_is_monotone_and_keeps_missing_recency_apart(write_features: WriteFeatures) -> None:
    frame = read_frame(write_features(600))
    rows = frame.of(TRAIN)
    score = fit_baseline("recency", SPEC, rows, frame.of(VALIDATION)).score(rows)
    recency = rows.feature("since_last_order_s")
    known = score[recency != 0][np.argsort(recency[recency != 0])]
    assert (np.diff(known) >= 0).all()
    assert score[recency == 0].tolist() == pytest.approx([rows.label[recency == 0].mean()] * int((recency == 0).sum()))


def test_an_unknown_baseline_and_an_unfinished_feature_are_refused(write_features: WriteFeatures) -> None:
    frame = read_frame(write_features(600))
    with pytest.raises(SpecError, match="unknown baseline: 'oracle' of model 'churn_retail'"):
        fit_baseline("oracle", SPEC, frame, frame)
    with pytest.raises(TrainingError, match="feature is not finished by the view: 'since_birth_s'"):
        fit_baseline("recency", replace(SPEC, recency="since_birth_s"), frame, frame)


def test_too_few_rows_and_labels_of_one_kind_are_refused_and_nothing_is_written(
    write_features: WriteFeatures, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="too few rows to train a network"):
        train(SPEC, write_features(40), tmp_path / "few", seed=1)
    path = write_features(700)
    table = pq.read_table(path)
    pq.write_table(table.filter(table["label"].cast("bool")), path)
    with pytest.raises(
        TrainingError, match=r"^rows cannot teach a classifier: \d+ rows to learn from; .* got all with targets \[1\.0\]"
    ):
        train(SPEC, path, tmp_path / "one_kind", seed=1)
    assert not list(tmp_path.glob("*/*"))


def test_a_features_file_without_names_or_columns_is_refused(write_features: WriteFeatures) -> None:
    path = write_features(40)
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["label"]).replace_schema_metadata(None), path)
    with pytest.raises(TrainingError, match="features file lacks columns: .* got no label, finished_names"):
        read_frame(path)


def test_rows_that_have_not_matured_are_left_out(write_features: WriteFeatures) -> None:
    path = write_features(40)
    table = pq.read_table(path)
    matured = [True, False] * 100
    pq.write_table(table.set_column(2, "matured", [matured]), path)
    assert len(read_frame(path)) == 100
