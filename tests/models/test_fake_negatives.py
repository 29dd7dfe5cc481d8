"""Fake-negative weighting: its stream by hand, and its loss where the truth is known."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from models.fake_negatives import FakeNegative
from models.frame import Knowledge

ALWAYS = np.full(3, 100.0)
NEVER = np.full(3, np.inf)


def test_the_stream_brings_a_negative_for_each_row_and_a_positive_for_each_arrival() -> None:
    objective = FakeNegative(wait_s=10, positive="occurs")
    now = np.array([0.0, 12.0, 15.0])
    # Followed from second 10 on: the row of second 0 brings no negative, but its outcome, known at second 11, a positive;
    # that of second 12 brings both, that of second 15 a negative alone.
    known = Knowledge(ALWAYS, np.array([8.0, 3.0, np.inf]), np.array([11.0, 4.0, np.inf]), NEVER)
    inputs = np.arange(3, dtype=np.float32)[:, None]
    lessons = objective.teach(inputs, now, known, np.ones(3, bool))
    assert list(zip(lessons.inputs[:, 0].tolist(), lessons.targets[:, 0].tolist(), strict=True)) == [
        (1, 0), (2, 0), (0, 1), (1, 1),
    ]  # fmt: skip
    early = Knowledge(ALWAYS, known.outcome_s, np.array([9.0, 4.0, np.inf]), NEVER)
    assert objective.teach(inputs, now, early, np.ones(3, bool)).inputs[:, 0].tolist() == [1, 2, 1]


@pytest.mark.parametrize("losses", ["losses", "held_out_losses"])
def test_both_losses_are_least_at_the_true_probability(losses: str) -> None:
    objective = FakeNegative(wait_s=10, positive="occurs")
    # 1,000 rows, of which 300 convert: 1,000 negatives and 300 positives.
    targets = np.repeat([0.0, 1.0], [1_000, 300])[:, None].astype(np.float32)
    logit = keras.Variable(np.zeros((1, 1), np.float32))
    import tensorflow as tf

    optimizer = keras.optimizers.SGD(1.0)
    for _ in range(400):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(getattr(objective, losses)(targets, tf.repeat(logit.value, 1_300, axis=0)))
        optimizer.apply([tf.convert_to_tensor(tape.gradient(loss, logit.value))], [logit])
    assert 1 / (1 + np.exp(-float(np.asarray(logit)[0, 0]))) == pytest.approx(0.3, abs=0.002)


def test_calibration_recovers_the_scale_and_shift_of_a_logit_from_the_stream() -> None:
    rng = np.random.default_rng(4)
    logits = rng.standard_normal(40_000)
    converts = rng.random(40_000) < 1 / (1 + np.exp(-(0.5 * logits - 1)))
    stream = np.concatenate([logits, logits[converts]])[:, None]
    targets = np.repeat([0.0, 1.0], [40_000, int(converts.sum())])[:, None].astype(np.float32)
    # Standard errors at this size: about 0.012.
    assert FakeNegative(10, "occurs").calibrate(stream, targets) == pytest.approx((0.5, -1.0), abs=0.05)


def test_a_model_of_absence_gives_the_opposite_probability() -> None:
    transformed = keras.Input((1,))
    logits = keras.Model(transformed, keras.layers.Dense(1)(transformed))
    occurs, absent = (FakeNegative(10, positive).finish(logits, 1.3, 0.2) for positive in ("occurs", "absent"))  # type: ignore[arg-type]
    rows = np.array([[0.3], [-2.0]], np.float32)
    assert np.asarray(occurs(rows) + absent(rows))[:, 0].tolist() == pytest.approx([1.0, 1.0])
