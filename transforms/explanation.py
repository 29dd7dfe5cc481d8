"""Why this score: each signal's share of the way from a reference score to a row's own.

Shapley values of the groups of columns that belong to one signal or field, in probability points, against the mean
training row (Strumbelj and Kononenko, Explaining prediction models and individual predictions with feature contributions,
2014; Lundberg and Lee, A unified approach to interpreting model predictions, 2017). A coalition's value is the score of the
row with every other group's columns set to the reference. With few groups all coalitions are asked. With more, those
along random orders of the groups and along the same orders backwards (antithetic permutations: Mitchell et al., Sampling
permutations for Shapley value estimation, 2022), drawn once from a fixed seed, so that every process explains alike.

Along any order the steps add up to the whole way, so contributions sum to score less base whatever was drawn. They are
points of the score itself and not of its logit: that is what an operator sees and can add up; near 0 and 1 they shrink
with the score's own slope.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

EXACT_GROUPS: Final = 8
"""Up to so many groups all 2 ** G coalitions are asked."""
ORDER_PAIRS: Final = 16
SEED: Final = 20_211


@dataclass(frozen=True)
class Coalitions:
    """Which groups keep the row's own values, and what each coalition's score counts for each group.

    Attributes:
        names: the G groups.
        own: bool (M, T), whether a column is the row's own; the first coalition is empty, the last is whole.
        weight: float64 (M, G), contributions are scores times weights.
    """

    names: tuple[str, ...]
    own: NDArray[np.bool_]
    weight: NDArray[np.float64]


def plan_coalitions(column_groups: Sequence[str]) -> Coalitions:
    """The coalitions of the groups that columns belong to, given each column's group."""
    names = tuple(dict.fromkeys(column_groups))
    count = len(names)
    steps = _all_steps(count) if count <= EXACT_GROUPS else _drawn_steps(count)
    weights: dict[int, NDArray[np.float64]] = {}
    for before, group, share in steps:
        for coalition, sign in ((before | 1 << group, share), (before, -share)):
            weights.setdefault(coalition, np.zeros(count))[group] += sign
    ordered = sorted(weights)
    of_column = [1 << names.index(group) for group in column_groups]
    own = np.array([[bool(coalition & bit) for bit in of_column] for coalition in ordered])
    return Coalitions(names, own, np.array([weights[coalition] for coalition in ordered]))


def explain_rows(
    coalitions: Coalitions, reference: tf.Tensor, transformed: tf.Tensor, score: Callable[[tf.Tensor], tf.Tensor]
) -> dict[str, tf.Tensor]:
    """Contributions of each row's groups; rows go one after another, so memory is that of one row's coalitions.

    Args:
        coalitions: of the columns' groups.
        reference: float32 (T,), the row that stands for "not known".
        transformed: float32 (n, T).
        score: float32 (m, T) -> float32 (m,).
    Returns:
        ``contributions`` float32 (n, G), in units of the score, and ``base`` float32 (n,), the reference's score.
    """
    own, weight = tf.constant(coalitions.own), tf.constant(coalitions.weight)

    def explain_row(row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        scores = score(tf.where(own, row, reference))
        contributions = tf.linalg.matvec(weight, tf.cast(scores, tf.float64), transpose_a=True)
        return tf.cast(contributions, tf.float32), scores[0]

    signature = (tf.TensorSpec([len(coalitions.names)], tf.float32), tf.TensorSpec([], tf.float32))
    contributions, base = tf.map_fn(explain_row, transformed, fn_output_signature=signature, parallel_iterations=1)
    return {"contributions": contributions, "base": base}


Step = tuple[int, int, float]
"""A coalition as bits, the group that joins it, and the share of all orders in which it does."""


def _all_steps(count: int) -> Iterator[Step]:
    for before in range(1 << count):
        size = before.bit_count()
        for group in range(count):
            if not before >> group & 1:
                yield before, group, math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)


def _drawn_steps(count: int) -> Iterator[Step]:
    rng = np.random.default_rng(SEED)
    for _ in range(ORDER_PAIRS):
        order = rng.permutation(count).tolist()
        for each in (order, order[::-1]):
            before = 0
            for group in each:
                yield before, group, 1 / (2 * ORDER_PAIRS)
                before |= 1 << group
