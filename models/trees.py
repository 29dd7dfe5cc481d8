"""Boosted trees as TensorFlow operations: what LightGBM has learned, behind the same signature as a network.

A tree is evaluated as matrix products, the form of Nakandala et al., A Tensor Compiler for Unified Machine Learning
Prediction Serving, OSDI 2020, section 4.1 (GEMM): all conditions of a block of trees at once, then for every leaf the count of
conditions on its path that hold, then the values of the leaves whose count is full. That was 5 times faster than walking down
the trees by gathers at batch 1,024, and no slower at batch 1.

The answers are the booster's own. An input is a float32 and a threshold a double, and x <= t holds exactly if x <= the
greatest float32 not above t, so thresholds are rounded down. Leaf values are kept as two float32 whose sum has the double's
bits to 1e-15, and are added up as doubles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import keras
import lightgbm
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from features.errors import explain
from models.boosting import fit_booster
from models.errors import TrainingError
from models.objectives import Lessons

BLOCK_TREES: Final = 100
"""Trees that are evaluated together: bounds the memory of a large batch."""

LEAF_COLUMNS: Final = 2
"""A leaf's value: the nearest float32, and what is left of the double."""

Condition = tuple[int, float]
Path = list[tuple[int, int]]


@dataclass(frozen=True)
class Forest:
    """Arrays of M trees, padded to I conditions and L = I + 1 leaves each.

    Attributes:
        feature: int32 (M, I), which input a condition looks at.
        threshold: float32 (M, I), the condition is input <= threshold.
        path: float32 (M, L, I), 1 where a leaf needs the condition, -1 where it needs its opposite, else 0.
        needed: float32 (M, L, 1), how many conditions a leaf needs to hold; -1 for padding, which is never reached.
        value: float32 (M, 2, L), leaf values in logits.
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    path: NDArray[np.float32]
    needed: NDArray[np.float32]
    value: NDArray[np.float32]


@keras.saving.register_keras_serializable("plumbline")
class BoostedTrees(keras.layers.Layer):
    """(n, T) float32 -> (n, 1) float32, the sum of the leaves that each row falls into: a logit.

    NaN counts as 0, as it does for a booster that has seen none.
    """

    def __init__(self, trees: int, conditions: int, **options: Any) -> None:
        """A layer of this many trees with at most this many conditions each; ``set_forest`` fills it."""
        super().__init__(**{"trainable": False, **options})
        self.trees = trees
        self.conditions = conditions

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the arrays of ``Forest``, zero."""
        trees, conditions, leaves = self.trees, self.conditions, self.conditions + 1
        self.feature = self._zeros("feature", (trees, conditions), "int32")
        self.threshold = self._zeros("threshold", (trees, conditions))
        self.leaf_path = self._zeros("leaf_path", (trees, leaves, conditions))
        self.needed = self._zeros("needed", (trees, leaves, 1))
        self.value = self._zeros("value", (trees, LEAF_COLUMNS, leaves))

    def set_forest(self, forest: Forest) -> None:
        """Take the trees of a booster."""
        self.set_weights([forest.feature, forest.threshold, forest.path, forest.needed, forest.value])

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The logits of rows."""
        # With one input a row of the transposed matrix, a gather copies whole rows.
        columns = tf.transpose(tf.where(tf.math.is_nan(inputs), tf.zeros_like(inputs), inputs))
        feature, threshold, path = (tf.convert_to_tensor(part) for part in (self.feature, self.threshold, self.leaf_path))
        needed, value = tf.convert_to_tensor(self.needed), tf.convert_to_tensor(self.value)
        total = tf.zeros([tf.shape(inputs)[0]], tf.float64)
        for low in range(0, self.trees, BLOCK_TREES):
            block = slice(low, low + BLOCK_TREES)
            holds = tf.cast(tf.gather(columns, feature[block]) <= threshold[block, :, None], tf.float32)
            reached = tf.cast(tf.equal(tf.matmul(path[block], holds), needed[block]), tf.float32)
            total += tf.reduce_sum(tf.cast(tf.matmul(value[block], reached), tf.float64), axis=[0, 1])
        return tf.cast(total, tf.float32)[:, None]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        """(n, 1)."""
        return (input_shape[0], 1)

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes; the trees themselves are weights."""
        return {**super().get_config(), "trees": self.trees, "conditions": self.conditions}

    def _zeros(self, name: str, shape: tuple[int, ...], dtype: str = "float32") -> keras.Variable:
        return self.add_weight(name=name, shape=shape, dtype=dtype, initializer="zeros", trainable=False)


@dataclass(frozen=True)
class FittedTrees:
    """Trees before calibration.

    Attributes:
        logits: (n, T) float32 -> (n, 1) float32.
        rounds: how many trees were kept.
        held_out_log_loss: of the held-out rows.
    """

    logits: keras.Model
    rounds: int
    held_out_log_loss: float


def fit_trees(rows: Lessons, held_out: Lessons, *, seed: int) -> FittedTrees:
    """Gradient boosting on (n, T) inputs and (n, 1) labels, stopped when the held-out log loss no longer falls."""
    taught, validation = ((part.inputs, part.targets[:, 0]) for part in (rows, held_out))
    booster = fit_booster(taught, validation, seed=seed)
    return FittedTrees(build_trees(booster), booster.best_iteration, booster.best_score["valid_0"]["binary_logloss"])


def build_trees(booster: lightgbm.Booster) -> keras.Model:
    """A booster as a Keras model (n, T) -> (n, 1), the logit; at its best iteration where it was stopped early.

    Raises:
        TrainingError: the booster has categories, missing values of its own, or no single logit.
    """
    forest = read_forest(booster)
    transformed = keras.Input((booster.num_feature(),), dtype="float32", name="transformed")
    layer = BoostedTrees(*forest.feature.shape, name="trees")
    model = keras.Model(transformed, layer(transformed))
    layer.set_forest(forest)
    return model


def read_forest(booster: lightgbm.Booster) -> Forest:
    """The arrays of a booster's trees.

    Raises:
        TrainingError: as ``build_trees``.
    """
    content = booster.dump_model()
    if content["num_tree_per_iteration"] != 1 or content["average_output"] or content["objective"] != "binary sigmoid:1":
        raise _refuse("one logit, the sum of its trees", f"objective {content['objective']}")
    trees = [_read_tree(tree["tree_structure"]) for tree in content["tree_info"]]
    width = max([1, *(len(conditions) for conditions, _ in trees)])
    forest = Forest(
        feature=np.zeros((len(trees), width), np.int32),
        threshold=np.zeros((len(trees), width), np.float32),
        path=np.zeros((len(trees), width + 1, width), np.float32),
        needed=np.full((len(trees), width + 1, 1), -1, np.float32),
        value=np.zeros((len(trees), LEAF_COLUMNS, width + 1), np.float32),
    )
    for number, (conditions, leaves) in enumerate(trees):
        for place, (feature, threshold) in enumerate(conditions):
            forest.feature[number, place] = feature
            forest.threshold[number, place] = round_down(threshold)
        for leaf, (value, path) in enumerate(leaves):
            nearest = np.float32(value)
            forest.value[number, :, leaf] = nearest, value - float(nearest)
            forest.needed[number, leaf, 0] = sum(sign > 0 for _, sign in path)
            for place, sign in path:
                forest.path[number, leaf, place] = sign
    return forest


def round_down(threshold: float) -> np.float32:
    """The greatest float32 that is not above a double: both split the float32 numbers alike.

    Example:
        >>> float(round_down(0.1)) <= 0.1 < float(np.nextafter(round_down(0.1), np.float32(1)))
        True
    """
    with np.errstate(over="ignore"):
        nearest = np.float32(threshold)
    return nearest if float(nearest) <= threshold else np.nextafter(nearest, np.float32(-np.inf))


def _read_tree(root: dict[str, Any]) -> tuple[list[Condition], list[tuple[float, Path]]]:
    """Conditions, and leaves (value, path) with a path of (condition, 1 or -1)."""
    conditions: list[Condition] = []

    def walk(node: dict[str, Any], path: Path) -> Iterator[tuple[float, Path]]:
        if "leaf_value" in node:
            yield float(node["leaf_value"]), path
            return
        if node["decision_type"] != "<=" or node["missing_type"] != "None":
            raise _refuse("conditions input <= threshold on inputs without missing values",
                          f"{node['decision_type']!r}, missing {node['missing_type']}")  # fmt: skip
        place = len(conditions)
        conditions.append((int(node["split_feature"]), float(node["threshold"])))
        yield from walk(node["left_child"], [*path, (place, 1)])
        yield from walk(node["right_child"], [*path, (place, -1)])

    leaves = list(walk(root, []))
    return conditions, leaves


def _refuse(expected: str, got: str) -> TrainingError:
    return TrainingError(
        explain("booster cannot become a layer", which="LightGBM booster", expected=expected, got=got,
                next_step="train it with objective binary on finite numbers")
    )  # fmt: skip
