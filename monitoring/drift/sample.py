"""A sample of what a model saw: rows of different entities, their numbers and categories by name, and their scores."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.layout import HOUR_S, US_PER_S

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

WEEK_HOURS: Final = 168
WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONDAY_H: Final = 72
"""Hour of the week at which the epoch begins: 1970-01-01 was a Thursday."""


@dataclass(frozen=True)
class Sample:
    """Rows to compare, n of them.

    ``numbers`` float32 (n, F), NaN where missing, and its ``names`` (F,); ``categories`` string arrays (n,) by name, null
    where missing; ``score`` and ``label`` float32 (n,), NaN where unknown; ``at_us`` (n,) when each was asked, UTC
    microseconds; ``flags`` bool arrays (n,) by name: what was the matter with a row's inputs (cold, degraded).
    """

    numbers: Floats
    names: tuple[str, ...]
    at_us: Ints
    categories: Mapping[str, pa.Array] = field(default_factory=dict)
    score: Floats | None = None
    label: Floats | None = None
    flags: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.at_us)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Numbers, then categories."""
        return (*self.names, *self.categories)

    def take(self, rows: npt.NDArray[np.integer]) -> Sample:
        """These rows, by number."""
        chosen = pa.array(rows)
        return Sample(
            numbers=self.numbers[rows],
            names=self.names,
            at_us=self.at_us[rows],
            categories={name: values.take(chosen) for name, values in self.categories.items()},
            score=None if self.score is None else self.score[rows],
            label=None if self.label is None else self.label[rows],
            flags={name: values[rows] for name, values in self.flags.items()},
        )

    def select(self, names: Collection[str]) -> Sample:
        """These features alone, as far as it has them."""
        kept = [number for number, name in enumerate(self.names) if name in names]
        categories = {name: values for name, values in self.categories.items() if name in names}
        return replace(
            self, numbers=self.numbers[:, kept], names=tuple(self.names[number] for number in kept), categories=categories
        )  # fmt: skip

    def thin(self, most: int, seed: int) -> Sample:
        """At most so many rows, drawn by the seed, in their order."""
        if len(self) <= most:
            return self
        return self.take(np.sort(np.random.default_rng(seed).choice(len(self), most, replace=False)))

    def unflagged(self) -> Sample:
        """Rows whose inputs were as they should be: features of the others tell of the store, not of the world."""
        flagged = np.zeros(len(self), np.bool_)
        for values in self.flags.values():
            flagged |= values
        return self.take(np.flatnonzero(~flagged)) if flagged.any() else self


def concatenate(samples: Sequence[Sample]) -> Sample:
    """All rows of samples with the same columns."""
    first = samples[0]
    return Sample(
        numbers=np.concatenate([each.numbers for each in samples]),
        names=first.names,
        at_us=np.concatenate([each.at_us for each in samples]),
        categories={
            name: pa.concat_arrays([each.categories[name] for each in samples]) for name in first.categories
        },
        score=_joined([each.score for each in samples]),
        label=_joined([each.label for each in samples]),
        flags={name: np.concatenate([each.flags[name] for each in samples]) for name in first.flags},
    )  # fmt: skip


def hours_of_week(at_us: Ints) -> Ints:
    """(n,) from 0, Monday 00:00 UTC, to 167."""
    hours: Ints = (at_us // (HOUR_S * US_PER_S) + _MONDAY_H) % WEEK_HOURS
    return hours


def match_hours(reference: Sample, window: Sample, *, period_h: int, least: int, seed: int) -> Sample | None:
    """Rows of the reference whose hours are distributed as the window's, as many as there are.

    Rows of exactly those hours; where they are fewer than ``least``, also rows at most an hour away, round the clock of
    ``period_h`` hours: 168 for hours of the week, 24 for hours of the day. None where those are too few, too.
    """
    hours, counts = np.unique(hours_of_week(window.at_us) % period_h, return_counts=True)
    own = hours_of_week(reference.at_us) % period_h
    for near in ((0,), (-1, 0, 1)):
        pools = [np.flatnonzero(np.isin(own, (np.array(near) + hour) % period_h)) for hour in hours]
        rows = _draw(pools, counts / counts.sum(), np.random.default_rng(seed))
        if len(rows) >= least:
            return reference.take(rows)
    return None


def _draw(pools: Sequence[Ints], share: npt.NDArray[np.float64], rng: np.random.Generator) -> Ints:
    """As many rows as the pools allow in these shares. Pools may overlap: a row that is drawn for two hours counts once."""
    most = min((len(pool) / part for pool, part in zip(pools, share, strict=True)), default=0)
    drawn = [
        rng.choice(pool, min(len(pool), round(most * part)), replace=False) for pool, part in zip(pools, share, strict=True)
    ]
    rows: Ints = np.unique(np.concatenate([np.zeros(0, np.int64), *drawn]))
    return rows


def name_hour(at_us: int) -> str:
    """The hour of the week of an instant, for a person.

    Example:
        >>> name_hour(0)
        'Thu 00:00 UTC'
    """
    hour = int(hours_of_week(np.array([at_us]))[0])
    return f"{WEEKDAYS[hour // 24]} {hour % 24:02d}:00 UTC"


def _joined(parts: Sequence[Floats | None]) -> Floats | None:
    present = [part for part in parts if part is not None]
    return np.concatenate(present) if len(present) == len(parts) else None
