"""What a window is held against: a version's training rows, earlier weeks' rows, or the stable revision's rows beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from features.reference import PREFIX, read_reference
from monitoring.drift.sample import WEEK_HOURS, Floats, Sample, match_hours
from monitoring.drift.settings import DriftSettings

TRAINING, WEEKS = "training", "weeks"
DAY_HOURS = 24


@dataclass(frozen=True)
class Beside:
    """Rows that a window may be held against.

    Attributes:
        sample: the rows.
        period_h: by which hours they were drawn as the window's are distributed: 168, of the week; 24, of the day; 0, any.
        least: fewer of them say nothing.
        other_hours: whether they are of other hours of the week than the window's, for want of rows of its own.
    """

    sample: Sample
    period_h: int
    least: int
    other_hours: bool = False


@dataclass(frozen=True)
class Reference:
    """Rows to hold a window against.

    Attributes:
        kind: ``TRAINING``, ``WEEKS`` or ``settings.STABLE``.
        sample: the rows.
        scores: rows to hold scores against, where those are others: more rows have a score than were logged whole.
        importance: of features to the model, by name.
        labels: matured labels to hold labels against, where those are others than the sample's.
        by_hours: whether rows are drawn by the window's hours of the week; those of the same time need not be.
    """

    kind: str
    sample: Sample
    importance: Mapping[str, float] = field(default_factory=dict)
    by_hours: bool = False
    scores: Sample | None = None
    labels: Floats | None = None

    def beside(self, window: Sample, settings: DriftSettings, *, scores: bool = False) -> Beside:
        """Rows for the window (or, with ``scores``, its scores): of its hours of the week; where those are too few, of its
        hours of the day, else of any."""
        sample = self.scores if scores and self.scores is not None else self.sample
        most = 2 * settings.most_rows
        if not self.by_hours or not len(window):
            return Beside(sample.thin(most, settings.seed), 0, settings.least_rows)
        least = {WEEK_HOURS: min(settings.least_matched_rows, settings.least_rows), DAY_HOURS: settings.least_rows}
        for period_h in (WEEK_HOURS, DAY_HOURS):
            matched = match_hours(sample, window, period_h=period_h, least=least[period_h], seed=settings.seed)
            if matched is not None:
                return Beside(matched.thin(most, settings.seed), period_h, least[period_h], period_h < WEEK_HOURS)
        return Beside(sample.thin(most, settings.seed), 0, settings.least_rows, other_hours=True)


def read_training_reference(path: Path) -> Reference:
    """A version's ``reference.parquet``.

    Raises:
        StoreError: there is no such file.
    """
    table, facts = read_reference(path)
    features = {name.removeprefix(PREFIX): table[name] for name in table.column_names if name.startswith(PREFIX)}
    numbers = {name: values for name, values in features.items() if pa.types.is_floating(values.type)}
    sample = Sample(
        numbers=stack([to_floats(values) for values in numbers.values()], table.num_rows),
        names=tuple(numbers),
        at_us=table["now"].cast(pa.int64()).to_numpy(),
        categories={name: values.combine_chunks() for name, values in features.items() if name not in numbers},
        score=to_floats(table["score"]),
        label=to_floats(table["label"]),
    )
    labels = np.repeat(np.array([1, 0], np.float32), [facts.positives, facts.labels - facts.positives])
    return Reference(TRAINING, sample, facts.importance, by_hours=True, labels=labels)


def stack(columns: list[Floats], rows: int) -> Floats:
    """(n, F) of (n,) columns; there may be none."""
    return np.column_stack(columns) if columns else np.zeros((rows, 0), np.float32)


def to_floats(values: pa.Array | pa.ChunkedArray) -> Floats:
    """float32, NaN where null."""
    floats: Floats = values.cast(pa.float32()).to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else values.cast(
        pa.float32()
    ).to_numpy()  # fmt: skip
    return floats
