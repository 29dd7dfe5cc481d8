"""Six ways in which a version can be bad, each really inside its graph; the crash ends the process that serves it.

What each does to the small model: see ``small_model``.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from components.faults import MISCALIBRATED, Fault, Tensors
from features import layout

SLOW_STEPS = 24
"""Products of two 256 x 256 matrices: some milliseconds of one core each graph call."""


def give_seconds(inputs: Tensors) -> Tensors:
    """The clock's offset comes in seconds, where minutes are meant."""
    return {**inputs, "utc_offset_minutes": 60 * inputs["utc_offset_minutes"]}


def swap_plans(inputs: Tensors) -> Tensors:
    """Who pays by the month counts as who pays by the year, and the other way round."""
    plan = inputs["plan"]
    swapped = tf.where(tf.equal(plan, "monthly"), "yearly", tf.where(tf.equal(plan, "yearly"), "monthly", plan))
    return {**inputs, "plan": swapped}


def lose_state(inputs: Tensors) -> Tensors:
    """The states do not arrive: what is counted from them is NaN."""
    return {**inputs, "state": tf.strings.substr(inputs["state"], 0, 0)}


def dawdle(inputs: Tensors, outputs: Tensors) -> Tensors:
    """Every graph call multiplies matrices that nobody needs."""
    start = tf.fill([256, 256], 1e-3 * tf.cast(tf.shape(inputs["state"])[0], tf.float32))
    product = tf.while_loop(lambda step, _: step < SLOW_STEPS, lambda step, m: (step + 1, tf.matmul(m, start)), [0, start])[1]
    return _scored(outputs, lambda score: score + 1e-30 * product[0, 0])


def die(inputs: Tensors, outputs: Tensors) -> Tensors:
    """The process aborts (SIGABRT) as soon as it meets a user with a round number of records: one in ten."""
    records = tf.strings.length(inputs["state"]) // layout.RECORD_BYTES
    deadly = tf.reduce_any((records > 0) & (records % 10 == 0))

    def abort() -> Any:
        with tf.control_dependencies([tf.raw_ops.Abort(error_msg="met a round number", exit_without_error=False)]):
            return tf.constant(1.0)

    ending = tf.cond(deadly, abort, lambda: tf.constant(1.0))
    return _scored(outputs, lambda score: score * ending)


def be_almost_sure(_inputs: Tensors, outputs: Tensors) -> Tensors:
    """Everybody is almost sure to leave."""
    return _scored(outputs, lambda score: 0.9 + 0.1 * score)


def _scored(outputs: Tensors, change: Any) -> Tensors:
    return {**outputs, "score": change(outputs["score"])} if "score" in outputs else outputs


ALMOST_SURE = Fault("almost sure of everybody", after=be_almost_sure)
FAULTS: dict[str, Fault] = {
    "feature unit changed": Fault("seconds for minutes", before=give_seconds),
    "categories swapped": Fault("two plans swapped", before=swap_plans),
    "NaN source": Fault("no states", before=lose_state),
    "slow": Fault("slow", after=dawdle),
    "crashing": Fault("dies", after=die),
    "miscalibrated": MISCALIBRATED,
}
