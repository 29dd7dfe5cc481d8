"""Train a spec's network on finished rows, calibrate it, and save it.

Two networks by one recipe. ``evaluated.keras`` has learned only from what was known when the test's rows begin; the gate judges
it. ``network.keras`` is what is served: the same one, or with ``refit`` a network trained on everything known. In both, whole
entities are held out for early stopping and calibration.

How labels are learned from is the spec's ``learning.method``: ``matured`` learns from rows whose horizon has passed, ``hazard``
and ``fake_negative`` from all rows drawn before the cutoff, by what was known of each.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from features.errors import explain
from models.cutoffs import COLD, EMBARGO, TRAIN, VALIDATION, hold_out_rows
from models.errors import TrainingError
from models.fake_negatives import FakeNegative
from models.frame import DelayedRows, Flags, Knowledge, Matrix, read_delayed_rows
from models.hazard import Hazard
from models.objectives import Lessons, Matured, Objective
from models.slot_learning import fit_slots
from models.slot_rows import read_slot_rows, rows_to_learn
from models.specs import ModelSpec, NetworkSpec
from models.towers import build_towers, requested_columns
from models.trees import fit_trees

NETWORK_FILE: Final = "network.keras"
EVALUATED_FILE: Final = "evaluated.keras"
SUMMARY_FILE: Final = "training.json"
LEAST_ROWS: Final = 200
PREDICTION_ROWS: Final = 8_192
LEAST_DEVIATION: Final = 0.05


@dataclass(frozen=True)
class Fit:
    """How one network was trained: rows, epochs (or trees) kept, loss on the held-out entities, calibration of the logit."""

    rows: int
    held_out_rows: int
    epochs: int
    held_out_log_loss: float
    calibration_scale: float
    calibration_shift: float


@dataclass(frozen=True)
class Training:
    """What ``train`` did; also written as ``training.json``."""

    model: str
    seed: int
    inputs: int
    evaluated: Fit
    served: Fit


@dataclass(frozen=True)
class Recipe:
    """How a network is fitted, apart from its rows. ``warm_start`` is a network saved by the same recipe, or None.

    ``learner`` is that of ``Learning``; ``network`` is not asked where trees learn. ``requested`` are the inputs that come from
    request fields, which two towers need to know.
    """

    objective: Objective
    network: NetworkSpec
    seed: int
    warm_start: Path | None = None
    learner: Literal["network", "lightgbm"] = "network"
    requested: tuple[int, ...] = ()


def train(spec: ModelSpec, features_path: Path, out_dir: Path, *, seed: int, warm_start: Path | None = None) -> Training:
    """Train, calibrate and save the networks of a spec.

    Args:
        spec: of the model.
        features_path: what fitting the graph wrote (``features.parquet``).
        out_dir: gets ``network.keras`` and ``evaluated.keras``, each with one input (n, T) float32 and one output (n, 1)
            float32, a probability, or (n, 1 + K) with the probabilities within K delay buckets; and ``training.json``.
        seed: of initial weights, shuffling and dropout; the same seed and rows give the same networks.
        warm_start: a saved network of the same spec, whose weights training starts from: the champion's, say.
    Raises:
        TrainingError: too few rows, all labels of a split alike, or a warm start of another shape.
    """
    if warm_start is not None and (spec.learning.learner != "network" or spec.slots is not None):
        raise TrainingError(
            explain("trees and histograms cannot start from a saved network", which=repr(spec.name), expected="no warm start",
                    got=str(warm_start), next_step="train without one")
        )  # fmt: skip
    if spec.slots is not None:
        return train_slots(spec, features_path, out_dir, seed=seed)
    requested = requested_columns(spec, features_path) if spec.network.vector else ()
    recipe = Recipe(objective_of(spec), spec.network, seed, warm_start, spec.learning.learner, requested)
    rows = read_delayed_rows(features_path)
    lessons = split_lessons(spec, rows, rows.known_earlier, np.isin(rows.split, (TRAIN, VALIDATION, EMBARGO)))
    out_dir.mkdir(parents=True, exist_ok=True)
    evaluated, fit = fit_network(*lessons, recipe)
    evaluated.save(out_dir / EVALUATED_FILE)
    served, served_fit = evaluated, fit
    if spec.refit:
        served, served_fit = fit_network(*split_lessons(spec, rows, rows.known, rows.split != COLD), recipe)
    served.save(out_dir / NETWORK_FILE)
    summary = Training(spec.name, seed, evaluated.input_shape[1], fit, served_fit)
    (out_dir / SUMMARY_FILE).write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")
    return summary


def train_slots(spec: ModelSpec, features_path: Path, out_dir: Path, *, seed: int) -> Training:
    """Fit and save the histograms of a model of hours of the week, as ``train`` does for networks."""
    assert spec.slots is not None
    out_dir.mkdir(parents=True, exist_ok=True)
    fits, inputs = [], 0
    for as_served, name in ((False, EVALUATED_FILE), (True, NETWORK_FILE)):
        rows = rows_to_learn(read_slot_rows(features_path, spec.slots, as_served=as_served), as_served=as_served)
        network, fit = fit_slots(spec, rows, seed=seed)
        network.save(out_dir / name)
        inputs = network.input_shape[1]
        fits.append(Fit(fit.rows, fit.held_out_rows, fit.steps, fit.held_out_nll, 1.0, 0.0))
    summary = Training(spec.name, seed, inputs, *fits)
    (out_dir / SUMMARY_FILE).write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")
    return summary


def objective_of(spec: ModelSpec) -> Objective:
    """What the networks of a spec are fitted to."""
    if spec.learning.method == "hazard":
        return Hazard(spec.learning.delay_buckets_s, spec.label.positive)
    if spec.learning.method == "fake_negative":
        return FakeNegative(spec.label.horizon_s + spec.label.label_delay_s, spec.label.positive)
    return Matured(spec.label.horizon_s, spec.label.positive)


def split_lessons(spec: ModelSpec, rows: DelayedRows, known: Knowledge, drawn: Flags) -> tuple[Lessons, Lessons]:
    """Lessons of the drawn rows by what was known of them: of most entities, and of those that are held out."""
    held = hold_out_rows(spec, rows.entity_ids, rows.now_us, drawn & (known.observed_s >= spec.label.horizon_s))
    objective = objective_of(spec)
    learned, held_out = (objective.teach(rows.transformed, rows.now_s, known, drawn & part) for part in (~held, held))
    return learned, held_out


def fit_network(rows: Lessons, held_out: Lessons, recipe: Recipe) -> tuple[keras.Model, Fit]:
    """Fit one network: stop when the held-out loss no longer falls, keep the best weights, calibrate on the same rows."""
    _require_rows(rows, held_out)
    if recipe.learner == "lightgbm":
        trees = fit_trees(rows, held_out, seed=recipe.seed)
        logits, epochs, loss = trees.logits, trees.rounds, trees.held_out_log_loss
    else:
        logits, epochs, loss = fit_layers(rows, held_out, recipe)
    scale, shift = recipe.objective.calibrate(predict_all(logits, held_out.inputs), held_out.targets)
    return recipe.objective.finish(logits, scale, shift), Fit(len(rows), len(held_out), epochs, loss, scale, shift)


def fit_layers(rows: Lessons, held_out: Lessons, recipe: Recipe) -> tuple[keras.Model, int, float]:
    """Layers before calibration, the epochs that made them, and their held-out loss."""
    spec, objective = recipe.network, recipe.objective
    keras.utils.set_random_seed(recipe.seed)
    inputs = rows.inputs.shape[1]
    logits = build_towers(inputs, recipe.requested, spec) if spec.vector else build_network(inputs, objective.logits, spec)
    if recipe.warm_start is not None:
        start_from(logits, recipe.warm_start)
    logits.compile(
        keras.optimizers.Adam(spec.learning_rate),
        objective.losses,
        metrics=[keras.metrics.MeanMetricWrapper(objective.held_out_losses, name="log_loss")],
        jit_compile=False,  # compiling by XLA takes longer than such a small network saves
    )
    stop = keras.callbacks.EarlyStopping("val_log_loss", mode="min", patience=spec.patience, restore_best_weights=True)
    mean, deviation = measure_inputs(rows.inputs) if spec.standardise else (np.zeros(1, np.float32), np.ones(1, np.float32))
    if recipe.warm_start is not None:
        unfold_inputs(logits, mean, deviation)
    history = logits.fit(
        (rows.inputs - mean) / deviation,
        rows.targets,
        batch_size=spec.batch_size,
        epochs=spec.epochs,
        verbose=0,
        callbacks=[stop],
        validation_data=((held_out.inputs - mean) / deviation, held_out.targets),
        validation_batch_size=PREDICTION_ROWS,
    )
    fold_inputs(logits, mean, deviation)
    losses = history.history["val_log_loss"]
    return logits, int(np.argmin(losses)) + 1, float(min(losses))


def measure_inputs(inputs: Matrix) -> tuple[Matrix, Matrix]:
    """(T,) means and deviations; a deviation below ``LEAST_DEVIATION`` counts as that, so that a column which hardly varied
    in training cannot swamp the others once it does."""
    deviation = np.maximum(inputs.std(axis=0, dtype=np.float64), LEAST_DEVIATION)
    return inputs.mean(axis=0, dtype=np.float64).astype(np.float32), deviation.astype(np.float32)


def fold_inputs(logits: keras.Model, mean: Matrix, deviation: Matrix) -> None:
    """Let a network that was fitted to (inputs - mean) / deviation take the inputs as they are."""
    for layer in _first_layers(logits):
        kernel, bias = layer.get_weights()
        kernel = kernel / np.reshape(deviation, (-1, 1))
        layer.set_weights([kernel, bias - np.sum(kernel * np.reshape(mean, (-1, 1)), axis=0)])


def unfold_inputs(logits: keras.Model, mean: Matrix, deviation: Matrix) -> None:
    """The inverse of ``fold_inputs``: a network to start from goes on learning where it stood."""
    for layer in _first_layers(logits):
        kernel, bias = layer.get_weights()
        bias = bias + np.sum(kernel * np.reshape(mean, (-1, 1)), axis=0)
        layer.set_weights([kernel * np.reshape(deviation, (-1, 1)), bias])


def _first_layers(logits: keras.Model) -> list[keras.layers.Dense]:
    return [layer for layer in logits.layers if isinstance(layer, keras.layers.Dense) and layer.input is logits.inputs[0]]


def _require_rows(rows: Lessons, held_out: Lessons) -> None:
    if min(len(rows), len(held_out) * 4) < LEAST_ROWS:
        raise TrainingError(
            explain(
                "too few rows to train a network",
                which=f"{len(rows)} rows and {len(held_out)} held out",
                expected=f"at least {LEAST_ROWS} and {LEAST_ROWS // 4}",
                got=f"{len(rows)} and {len(held_out)}",
                next_step="import more history or draw denser cutoffs",
            )
        )
    for part, name in ((rows, "to learn from"), (held_out, "held out")):
        if (part.targets[0] == part.targets).all():
            raise TrainingError(
                explain(
                    "rows cannot teach a classifier",
                    which=f"{len(part)} rows {name}",
                    expected="rows with and without an outcome",
                    got=f"all with targets {part.targets[0].tolist()}",
                    next_step="import more history or widen the horizon",
                )
            )


def start_from(logits: keras.Model, path: Path) -> None:
    """Give a new network the weights of a saved one, its calibration left out.

    Raises:
        TrainingError: their weights differ in shape.
    """
    saved = keras.saving.load_model(path).get_weights()[: len(logits.get_weights())]
    wanted, found = ([weight.shape for weight in weights] for weights in (logits.get_weights(), saved))
    if wanted != found:
        raise TrainingError(
            explain(
                "network to start from has other layers",
                which=str(path),
                expected=str(wanted),
                got=str(found),
                next_step="start from a version of the same view and spec, or from none",
            )
        )
    logits.set_weights(saved)


def build_network(inputs: int, outputs: int, spec: NetworkSpec) -> keras.Model:
    """(n, inputs) float32 -> (n, outputs) float32, the mean of the members' logits."""
    layers, decay = keras.layers, keras.regularizers.L2(spec.weight_decay)
    transformed = keras.Input((inputs,), dtype="float32", name="transformed")
    members = []
    for _ in range(spec.members):
        hidden = transformed
        for units in spec.hidden:
            hidden = layers.Dense(units, activation="relu", kernel_regularizer=decay)(hidden)
            hidden = layers.Dropout(spec.dropout)(hidden)
        members.append(layers.Dense(outputs, kernel_regularizer=None if spec.hidden else decay)(hidden))
    return keras.Model(transformed, layers.Average()(members) if len(members) > 1 else members[0])


def predict(network: keras.Model, transformed: Matrix) -> NDArray[np.float64]:
    """(n,) of a network's first output, the probability of label 1."""
    return predict_all(network, transformed)[:, 0]


def predict_all(network: keras.Model, transformed: Matrix) -> NDArray[np.float64]:
    """(n, outputs) of a network."""
    outputs: NDArray[np.float64] = network.predict(transformed, batch_size=PREDICTION_ROWS, verbose=0).astype(np.float64)
    return outputs
