"""Train a spec's network on finished rows, calibrate it, and save it.

Two networks by one recipe. ``evaluated.keras`` has seen only rows that were known at the test's base date; the gate judges it.
``network.keras`` is what is served: the same one, or with ``refit`` a network trained on all matured rows. In both, whole
entities are held out for early stopping and calibration.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from features.errors import explain
from models.cutoffs import EMBARGO, TEST, TRAIN, VALIDATION, hold_out
from models.errors import TrainingError
from models.frame import Flags, Frame, Matrix, read_frame
from models.specs import ModelSpec, NetworkSpec

NETWORK_FILE: Final = "network.keras"
EVALUATED_FILE: Final = "evaluated.keras"
SUMMARY_FILE: Final = "training.json"
LEAST_ROWS: Final = 200
PREDICTION_ROWS: Final = 8_192


@dataclass(frozen=True)
class Fit:
    """How one network was trained: rows, epochs kept, log loss on the held-out entities, calibration of the logit."""

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


def train(spec: ModelSpec, features_path: Path, out_dir: Path, *, seed: int) -> Training:
    """Train, calibrate and save the networks of a spec.

    Args:
        spec: of the model.
        features_path: what fitting the graph wrote (``features.parquet``).
        out_dir: gets ``network.keras`` and ``evaluated.keras``, each with one input (n, T) float32 and one output (n, 1)
            float32, a probability; and ``training.json``.
        seed: of initial weights, shuffling and dropout; the same seed and rows give the same networks.
    Raises:
        TrainingError: too few rows, or all labels of a split alike.
    """
    frame = read_frame(features_path)
    out_dir.mkdir(parents=True, exist_ok=True)
    evaluated, fit = fit_network(frame.of(TRAIN), frame.of(VALIDATION), spec.network, seed=seed)
    evaluated.save(out_dir / EVALUATED_FILE)
    served, served_fit = evaluated, fit
    if spec.refit:
        known = frame.of(TRAIN, VALIDATION, EMBARGO, TEST)
        held: Flags = hold_out(known.entity_ids, spec.cutoffs.validation_share)
        served, served_fit = fit_network(known.where(~held), known.where(held), spec.network, seed=seed)
    served.save(out_dir / NETWORK_FILE)
    summary = Training(spec.name, seed, frame.transformed.shape[1], fit, served_fit)
    (out_dir / SUMMARY_FILE).write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")
    return summary


def fit_network(rows: Frame, held_out: Frame, spec: NetworkSpec, *, seed: int) -> tuple[keras.Model, Fit]:
    """Fit one network: stop when the held-out log loss no longer falls, keep the best weights, calibrate on the same rows."""
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
    keras.utils.set_random_seed(seed)
    logits = build_network(rows.transformed.shape[1], spec)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    logits.compile(
        keras.optimizers.Adam(spec.learning_rate),
        loss,
        metrics=[keras.metrics.BinaryCrossentropy(from_logits=True, name="log_loss")],
        jit_compile=False,  # compiling by XLA takes longer than such a small network saves
    )
    stop = keras.callbacks.EarlyStopping("val_log_loss", mode="min", patience=spec.patience, restore_best_weights=True)
    history = logits.fit(
        rows.transformed,
        rows.label[:, None],
        batch_size=spec.batch_size,
        epochs=spec.epochs,
        verbose=0,
        callbacks=[stop],
        validation_data=(held_out.transformed, held_out.label[:, None]),
        validation_batch_size=PREDICTION_ROWS,
    )
    losses = history.history["val_log_loss"]
    scale, shift = fit_calibration(predict(logits, held_out.transformed), held_out.label)
    fit = Fit(len(rows), len(held_out), int(np.argmin(losses)) + 1, float(min(losses)), scale, shift)
    return add_calibration(logits, scale, shift), fit


def build_network(inputs: int, spec: NetworkSpec) -> keras.Model:
    """(n, inputs) float32 -> (n, 1) float32, the mean of the members' logits."""
    layers = keras.layers
    transformed = keras.Input((inputs,), dtype="float32", name="transformed")
    members = []
    for _ in range(spec.members):
        hidden = transformed
        for units in spec.hidden:
            hidden = layers.Dense(units, activation="relu", kernel_regularizer=keras.regularizers.L2(spec.weight_decay))(hidden)
            hidden = layers.Dropout(spec.dropout)(hidden)
        members.append(layers.Dense(1)(hidden))
    return keras.Model(transformed, layers.Average()(members) if len(members) > 1 else members[0])


def fit_calibration(logits: NDArray[np.float64], labels: NDArray[np.int8]) -> tuple[float, float]:
    """Scale and shift of the logit that fit the labels best.

    Source: Platt, Probabilistic outputs for support vector machines, 1999.
    """
    fitted = LogisticRegression(C=1e6, max_iter=1_000).fit(logits[:, None], labels)
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])


def add_calibration(logits: keras.Model, scale: float, shift: float) -> keras.Model:
    """The network as it is served: its last layer turns the logit into a calibrated probability."""
    calibration = keras.layers.Dense(1, activation="sigmoid", name="probability")
    network = keras.Model(logits.input, calibration(logits.output))
    calibration.set_weights([np.array([[scale]], dtype=np.float32), np.array([shift], dtype=np.float32)])
    return network


def predict(network: keras.Model, transformed: Matrix) -> NDArray[np.float64]:
    """(n,) outputs of a network with one output."""
    outputs: NDArray[np.float64] = network.predict(transformed, batch_size=PREDICTION_ROWS, verbose=0)[:, 0].astype(np.float64)
    return outputs
