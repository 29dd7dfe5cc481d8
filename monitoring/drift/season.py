"""How much a reference differs from itself over the week: what training rows of other hours than the window's cannot tell from
drift."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from monitoring.drift.sample import WEEK_HOURS, Ints, Sample, hours_of_week
from monitoring.drift.settings import DriftSettings

LEAST_ROWS: Final = 20
"""Fewer rows of one stretch of the week say nothing of it."""
STRETCHES_H: Final = (6, 24)
"""Into which the week is divided, the longer one where rows are too few for the shorter."""


def raise_floor(reference: Sample, name: str | None, settings: DriftSettings) -> float:
    """The effect from which a difference from rows of other hours pages: by ``effect_floor`` more than what the rows' own
    stretches of the week differ by, and ``season_floor`` at least, since they may not know of all hours.

    Args:
        name: of a feature; None stands for the scores.
    """
    values, present, categories = _values_of(reference, name)
    swing = measure_swing(values[present], divide_week(reference)[present], categories)
    return max(settings.effect_floor + swing, settings.season_floor)


def _values_of(sample: Sample, name: str | None) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.bool_], int]:
    """(n,) numbers or codes, which of them are there, and how many codes there are, 0 for numbers."""
    if name is None or name in sample.names:
        numbers = sample.score if name is None else sample.numbers[:, sample.names.index(name)]
        values = np.full(len(sample), np.nan) if numbers is None else numbers
        return values, np.isfinite(values), 0
    coded = sample.categories[name].dictionary_encode()
    present: npt.NDArray[np.bool_] = coded.is_valid().to_numpy(zero_copy_only=False)
    return coded.indices.fill_null(0).to_numpy().astype(np.float64), present, max(len(coded.dictionary), 1)


def divide_week(sample: Sample) -> Ints:
    """(n,) stretch of the week of each row."""
    hours = hours_of_week(sample.at_us)
    length_h = next((each for each in STRETCHES_H if len(hours) * each >= LEAST_ROWS * WEEK_HOURS), STRETCHES_H[-1])
    return hours // length_h


def measure_swing(values: npt.NDArray[np.floating], stretch: Ints, categories: int = 0) -> float:
    """How far the values of one stretch of the week differ from all, at most: Kolmogorov-Smirnov distance of numbers, total
    variation of categories, from 0 to 1; 0 where the rows are of one stretch.

    Args:
        values: (n,) present numbers, or codes of so many ``categories``.
        stretch: (n,) of ``divide_week``.

    Example:
        >>> measure_swing(np.repeat([0.0, 1.0], 20), np.repeat([0, 1], 20))
        0.5
    """
    known = np.sort(values)
    share = np.searchsorted(known, known, side="right") / max(len(known), 1)
    largest = 0.0
    for each in np.unique(stretch):
        own = values[stretch == each]
        if len(own) < LEAST_ROWS:
            continue
        if categories:
            counts = (np.bincount(side.astype(np.int64), minlength=categories) / len(side) for side in (own, values))
            largest = max(largest, float(np.abs(np.subtract(*counts)).sum() / 2))
        else:
            within = np.searchsorted(np.sort(own), known, side="right") / len(own)
            largest = max(largest, float(np.abs(within - share).max()))
    return largest
