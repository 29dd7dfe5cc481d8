"""alibi-detect's tests on two samples, as arrays in and arrays out. With ``online`` the only place that imports it.

Each function hands both samples to alibi-detect 0.11.4 as they are and gives back what it answers, unchanged. Its maximum mean
discrepancy wants TensorFlow or PyTorch, which this environment has not; features are tested together by its classifier test.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from monitoring.drift.quality import Column

Values = npt.NDArray[np.float64]

_log = logging.getLogger(__name__)

BLOCK_FEATURES: Final = 256
"""Features handed over at once: bounds the copies that a detector makes."""


@dataclass(frozen=True)
class Comparison:
    """What univariate tests found, for each feature: the p-value and the test's own statistic, float64 (F,)."""

    p_value: Values
    statistic: Values


def load_detectors() -> None:
    """Import what the tests need, which takes seconds: a server does it before the first event that fills a window."""
    import alibi_detect.cd
    import sklearn.ensemble

    _log.debug("loaded %s and %s", alibi_detect.cd.__name__, sklearn.ensemble.__name__)


def compare_columns(columns: Sequence[Column]) -> Comparison:
    """Kolmogorov-Smirnov for numbers and chi-square for categories, by ``TabularDrift``.

    Columns of equal length on both sides go to one detector, ``BLOCK_FEATURES`` at a time; the others, which had missing
    values, to one each. Statistics are the KS distance and the chi-square statistic.
    """
    p_value, statistic = np.ones(len(columns)), np.zeros(len(columns))
    shapes: dict[tuple[int, int], list[int]] = {}
    for number, column in enumerate(columns):
        shapes.setdefault((len(column.reference), len(column.window)), []).append(number)
    for numbers in shapes.values():
        for start in range(0, len(numbers), BLOCK_FEATURES):
            block = numbers[start : start + BLOCK_FEATURES]
            p_value[block], statistic[block] = _test_block([columns[number] for number in block])
    return Comparison(p_value, statistic)


def _test_block(columns: Sequence[Column]) -> tuple[Values, Values]:
    from alibi_detect.cd import TabularDrift

    # Each feature's values lie together: the tests read them one feature after another.
    reference = np.stack([column.reference for column in columns]).T
    window = np.stack([column.window for column in columns]).T
    categories = {number: list(range(column.categories)) for number, column in enumerate(columns) if column.categories}
    with warnings.catch_warnings():
        # It warns that all features are numbers, which is what no category means.
        warnings.filterwarnings("ignore", message="No `categories_per_feature` dict provided")
        detector = TabularDrift(reference, p_val=0.05, categories_per_feature=categories or None)
    found = detector.predict(window, drift_type="feature")["data"]
    return found["p_val"].astype(np.float64), found["distance"].astype(np.float64)


def compare_distributions(reference: npt.NDArray[np.floating], window: npt.NDArray[np.floating]) -> tuple[float, float]:
    """(p-value, statistic) of the Cramér-von Mises test of one number: stronger than KS where tails differ."""
    from alibi_detect.cd import CVMDrift

    found = CVMDrift(reference.reshape(-1, 1), p_val=0.05).predict(window.reshape(-1, 1), drift_type="feature")["data"]
    return float(found["p_val"][0]), float(found["distance"][0])


def compare_shares(reference: npt.NDArray[np.bool_], window: npt.NDArray[np.bool_]) -> float:
    """p-value of Fisher's exact test, two-sided: is the share of true values another?"""
    from alibi_detect.cd import FETDrift

    detector = FETDrift(reference.astype(np.int64).reshape(-1, 1), p_val=0.05, alternative="two-sided")
    found = detector.predict(window.astype(np.int64).reshape(-1, 1), drift_type="feature")["data"]
    return float(found["p_val"][0])


def compare_jointly(reference: npt.NDArray[np.floating], window: npt.NDArray[np.floating], seed: int) -> tuple[float, float]:
    """(p-value, distance) of the classifier two-sample test of all columns together, each (n, F); NaN is a value of its own.

    Gradient boosting learns on half of the rows to tell the sides apart. The distance is how much better than chance it does
    on the other half, by Kolmogorov-Smirnov on its probabilities, from 0 to 1.

    Source: Lopez-Paz, Oquab, Revisiting classifier two-sample tests, ICLR 2017.
    """
    from alibi_detect.cd import ClassifierDrift
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    logging.getLogger("alibi_detect.cd.sklearn.classifier").setLevel(logging.ERROR)
    model = HistGradientBoostingClassifier(max_iter=60, max_depth=4, learning_rate=0.1, random_state=seed)
    detector = ClassifierDrift(reference, model, backend="sklearn", p_val=0.05, preds_type="probs", train_size=0.5, seed=seed)
    # Its threads wait for each other in a loop: on a busy machine that costs more than they save on so few rows.
    with warnings.catch_warnings(), seeded(seed), threadpool_limits(1, user_api="openmp"):
        # Of many rows it first tries an exact p-value, and says so when it takes the asymptotic one.
        warnings.filterwarnings("ignore", message="ks_2samp: Exact calculation unsuccessful")
        found = detector.predict(window)["data"]
    return float(found["p_val"]), float(found["distance"])


def measure_effects(columns: Sequence[Column], compared: Comparison) -> Values:
    """(F,) how far apart the two sides are, from 0 to 1 whatever the number of rows: the KS distance of a number, the total
    variation of a category; either is the largest difference in the share of values of some kind."""
    effects = compared.statistic.copy()
    for number, column in enumerate(columns):
        if column.categories:
            old, new = (
                np.bincount(side.astype(np.int64), minlength=column.categories) / len(side)
                for side in (column.reference, column.window)
            )
            effects[number] = np.abs(old - new).sum() / 2
    return effects


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """alibi-detect draws from NumPy's global generator; inside it begins at the seed, and afterwards it is as it was."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
