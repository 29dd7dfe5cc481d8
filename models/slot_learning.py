"""Fit the strengths of a model of slots: those under which what came next was likeliest.

Strengths of shrinkage are not guessed: over past cutoffs, every row predicts where its user's next actions would be seen, and
the strengths and widths that make the mean log likelihood of an action greatest are kept (empirical Bayes by predictive
likelihood; MacKay and Peto 1995 do the same by evidence). Ten numbers are fitted beside the shape of a day, so nothing is held
out to stop by; the held-out loss is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from scipy.optimize import minimize

from features.slots import SLOTS
from models.cutoffs import hold_out
from models.frame import Floats, Matrix
from models.slot_layer import SlotPosterior
from models.slot_rhythm import Placed, Rhythm, fit_rhythm
from models.slot_rows import SlotRows
from models.slot_spec import STRENGTHS
from models.specs import ModelSpec

MOST_ROWS: Final = 12_000
PREDICTION_ROWS: Final = 4_096
STEPS: Final = 60
ROUNDS: Final = 2
"""The shape of a day is fitted with the last round's share of late actions, and the strengths with that shape."""
START: Final = (3.0, 2.0, 4.0, 3.0, 1.5, 0.0, 0.0, 0.0, -2.0, 0.0)
LOGARITHM_BOUNDS: Final = (-3.0, 9.0)
LOGIT_BOUNDS: Final = (-6.0, 6.0)
LAYER: Final = "slots"


@dataclass(frozen=True)
class SlotFit:
    """How one model was fitted: rows, steps, NLL of an action on held-out users' rows, and the strengths by name."""

    rows: int
    held_out_rows: int
    steps: int
    held_out_nll: float
    strengths: dict[str, float]


def fit_slots(spec: ModelSpec, rows: SlotRows, *, seed: int) -> tuple[keras.Model, SlotFit]:
    """Fit the strengths of a spec on rows; (n, T) -> (n, 1 + 168 + F).

    Raises:
        TrainingError: no row has an outcome.
    """
    held = hold_out(rows.entity_ids, spec.cutoffs.validation_share)
    network = build_slots(rows.transformed.shape[1], rows, spec)
    layer = network.get_layer(LAYER)
    layer.set_prior(*measure_prior(rows.where(~held)))
    asked = np.flatnonzero(~held & (rows.outcomes.sum(axis=1) > 0))
    if len(asked) > MOST_ROWS:
        asked = np.sort(np.random.default_rng(seed).choice(asked, MOST_ROWS, replace=False))
    layer.strengths.assign(START)
    steps = 0
    for _ in range(ROUNDS):
        layer.set_rhythm(measure_rhythm(layer, rows.where(~held), seed=seed))
        steps += _maximise(layer, rows.transformed[asked], rows.outcomes[asked])
    judged = rows.where(held)
    loss = mean_nll(predict_observed(network, judged.transformed), judged.outcomes)
    # What is known of the users held out belongs to the prior that is served.
    layer.set_prior(*measure_prior(rows))
    layer.set_rhythm(measure_rhythm(layer, rows, seed=seed))
    strengths = dict(zip(STRENGTHS, layer.strengths.numpy().tolist(), strict=True))
    return network, SlotFit(len(asked), int(held.sum()), steps, loss, strengths)


def build_slots(inputs: int, rows: SlotRows, spec: ModelSpec) -> keras.Model:
    """A model of these columns with neutral strengths."""
    assert spec.slots is not None
    columns = {name: list(places) for name, places in vars(rows.columns).items()}
    transformed = keras.Input((inputs,), dtype="float32", name="transformed")
    layer = SlotPosterior(columns, spec.slots.weight_cap, name=LAYER)
    return keras.Model(transformed, layer(transformed))


def measure_prior(rows: SlotRows) -> tuple[Matrix, Matrix]:
    """What users did by segment (G, 168), each user as known at her newest row; and everyone's shares of sends (168,), even
    where nothing is sent."""
    newest = _newest_rows(rows)
    last = rows.where(newest)
    sent = last.sends.sum(axis=0, dtype=np.float64)
    # One message more in every hour: an hour that nobody was ever sent to has a share, too.
    policy = (sent + 1) / (sent.sum() + SLOTS)
    columns = list(rows.columns.segments)
    member = last.transformed[:, columns] if columns else np.ones((len(last), 1), np.float32)
    return (member.T @ last.acts).astype(np.float32), policy.astype(np.float32)


def measure_rhythm(layer: SlotPosterior, rows: SlotRows, *, seed: int) -> Rhythm:
    """The shape of a day, from what users did and what gave them occasion, each as known at her newest row."""
    last = rows.where(_newest_rows(rows))
    acts, occasions = (part.numpy() for part in layer.count(tf.constant(last.transformed)))
    return fit_rhythm(acts, occasions, seed=seed)


def predict_observed(network: keras.Model, transformed: Matrix) -> Floats:
    """(n, 168) where actions will be seen."""
    observed = network.get_layer(LAYER).observed
    parts = [
        observed(tf.constant(transformed[start : start + PREDICTION_ROWS])).numpy()
        for start in range(0, len(transformed), PREDICTION_ROWS)
    ]
    return np.concatenate(parts).astype(np.float64) if parts else np.zeros((0, SLOTS))


def mean_nll(distribution: Floats, outcomes: Matrix) -> float:
    """Nats an action; NaN without actions."""
    actions = float(outcomes.sum())
    return float(-(outcomes * np.log(distribution)).sum() / actions) if actions else float("nan")


def nll_by_row(distribution: Floats, outcomes: Matrix) -> Floats:
    """(n,) nats of each row's actions together."""
    nats: Floats = -(outcomes * np.log(distribution)).sum(axis=1, dtype=np.float64)
    return nats


def _newest_rows(rows: SlotRows) -> NDArray[np.bool_]:
    """Whether each row is the last of its entity; rows are by ascending ``now``, copies of unknown users apart."""
    ids = np.array(rows.entity_ids.to_pylist())
    _, first_from_end = np.unique(ids[::-1], return_index=True)
    newest = np.zeros(len(ids), dtype=np.bool_)
    newest[len(ids) - 1 - first_from_end] = True
    return newest


def _maximise(layer: SlotPosterior, transformed: Matrix, outcomes: Matrix) -> int:
    """Put the likeliest strengths into the layer; how many steps that took (L-BFGS on gradients by TensorFlow)."""
    inputs, wanted = tf.constant(transformed), tf.constant(outcomes)
    parts = [layer.place(inputs[start : start + PREDICTION_ROWS]) for start in range(0, len(transformed), PREDICTION_ROWS)]
    placed = Placed(*(tf.concat(part, axis=0) for part in zip(*parts, strict=True)))

    @tf.function
    def lose(strengths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        layer.strengths.assign(strengths)
        with tf.GradientTape() as tape:
            seen = layer.observed(inputs, placed)
            loss = -tf.reduce_sum(wanted * tf.math.log(seen)) / tf.reduce_sum(wanted)
        return loss, tape.gradient(loss, layer.strengths.value)

    def value_and_gradient(strengths: Floats) -> tuple[float, Floats]:
        loss, gradient = lose(tf.constant(strengths, tf.float32))
        return float(loss), gradient.numpy().astype(np.float64)

    bounds = [LOGARITHM_BOUNDS] * 5 + [LOGIT_BOUNDS] * 5
    options = {"maxiter": STEPS}
    found = minimize(
        value_and_gradient,
        layer.strengths.numpy().astype(np.float64),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options=options,
    )
    layer.strengths.assign(found.x.astype(np.float32))
    return int(found.nit)
