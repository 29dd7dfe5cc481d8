"""What a window is held against: a version's training rows, earlier weeks' rows, or the stable revision's rows beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from features.reference import PREFIX, read_reference
from monitoring.drift.sample import WEEK_HOURS, Floats, Sample, covers, match_hours
from monitoring.drift.settings import DriftSettings

TRAINING, WEEKS = "training", "weeks"
DAY_HOURS = 24


@dataclass(frozen=True)
class Reference:
    """Rows to hold a window against.

    Attributes:
        kind: ``TRAINING``, ``WEEKS`` or ``settings.STABLE``.
        sample: the rows.
        scores: rows to hold scores against, where those are others: more rows have a score than were logged whole.
        importance: of features to the model, by name.
        labels: matured labels to hold labels against, where those are others than the sample's.
        period_h: rows are drawn by the window's hours of so long a period: 168, hours of the week; 24, hours of the day; 0
            takes all of them.
    """

    kind: str
    sample: Sample
    importance: Mapping[str, float] = field(default_factory=dict)
    period_h: int = 0
    scores: Sample | None = None
    labels: Floats | None = None

    def beside(self, window: Sample, settings: DriftSettings, *, scores: bool = False) -> Sample:
        """Rows that the window (or, with ``scores``, its scores) may fairly be held against; none where its hours have too
        few."""
        sample = self.scores if scores and self.scores is not None else self.sample
        if self.period_h and len(window):
            matched = match_hours(sample, window, period_h=self.period_h, least=settings.least_rows, seed=settings.seed)
            sample = sample.take(np.zeros(0, np.int64)) if matched is None else matched
        return sample.thin(2 * settings.most_rows, settings.seed)


def read_training_reference(path: Path, settings: DriftSettings) -> Reference:
    """A version's ``reference.parquet``; matched by hours of the week where it has rows of all of them, else of the day, else
    not.

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
    periods = (period for period in (WEEK_HOURS, DAY_HOURS) if covers(sample, period, settings.least_rows))
    labels = np.repeat(np.array([1, 0], np.float32), [facts.positives, facts.labels - facts.positives])
    return Reference(TRAINING, sample, facts.importance, next(periods, 0), labels=labels)


def stack(columns: list[Floats], rows: int) -> Floats:
    """(n, F) of (n,) columns; there may be none."""
    return np.column_stack(columns) if columns else np.zeros((rows, 0), np.float32)


def to_floats(values: pa.Array | pa.ChunkedArray) -> Floats:
    """float32, NaN where null."""
    floats: Floats = values.cast(pa.float32()).to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else values.cast(
        pa.float32()
    ).to_numpy()  # fmt: skip
    return floats
