"""From a view's declarations to the constants of its graph.

Every tile lies in exactly one *ring* of its series: the tiles that the second-shortest window adds to the shortest, and
so on. A tile is looked up once, in a table by series and age in buckets, which gives its cell; windows are then running
totals over rings. The cost of a tile does not grow with the number of windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from features import layout
from features.declarations import Catalog, Field, Ratio, Shrinkage, Signal, View, WindowFeature, window_features
from features.zones import CLOCK, CLOCK_FEATURES

DROPPED: Final = -(1 << 40)
"""The cell of a tile outside every window: far enough below zero to stay negative for any row."""

REDUCTIONS: Final = {"sum": ("count", "sum"), "max": ("max", "last"), "min": ("first",)}
"""Which operations reduce alike."""


@dataclass(frozen=True)
class ReductionPlan:
    """Cells of all series that reduce alike, as ``rings`` blocks of ``width`` slots for each row.

    ``cell`` is indexed by dense series number times ``WindowPlan.stride`` plus age + 1 in buckets (0: in the future)
    and gives ring * width + slot, ``by`` still to be added, or ``DROPPED``.
    """

    name: str
    rings: int
    width: int
    cell: NDArray[np.int64]


@dataclass(frozen=True)
class WindowPlan:
    """Constants that turn tiles into finished integers.

    Attributes:
        features: the finished integers in order.
        dense_series: ``key >> SERIES_SHIFT`` (clipped to the last entry) to dense series number; the last is "unknown".
        stride: entries of a cell table for each dense series.
        reductions: one plan for each kind of reduction that the view needs.
        column: for each feature, its column among all reductions' cells side by side.
        has_by: whether any signal is split by a key.
    """

    features: tuple[WindowFeature, ...]
    dense_series: NDArray[np.int64]
    stride: int
    reductions: tuple[ReductionPlan, ...]
    column: NDArray[np.int64]
    has_by: bool


@dataclass(frozen=True)
class GraphPlan:
    """Everything the graph of one view is built from; the names are the columns of its outputs, in order."""

    view: View
    windows: WindowPlan
    fields: tuple[Field, ...]

    @property
    def integer_names(self) -> list[str]:
        return [feature.name for feature in self.windows.features]

    @property
    def number_names(self) -> list[str]:
        """Finished integers that are amounts, not times: the integers that are cast to floats."""
        return [feature.name for feature in self.windows.features if not feature.is_time]

    @property
    def optional_names(self) -> list[str]:
        """Finished floats that can be missing; each has a mask."""
        return [*(entry.name for entry in self.view.elapsed), *(entry.name for entry in self.view.ratios)]

    @property
    def shrunken_ratios(self) -> list[tuple[Ratio, Shrinkage]]:
        """Ratios that the model sees shrunken, each with how."""
        return [(ratio, ratio.shrink) for ratio in self.view.ratios if ratio.shrink is not None]

    @property
    def field_number_names(self) -> list[str]:
        return [entry.name for entry in self.fields if entry.dtype == "int64"]

    @property
    def finished_names(self) -> list[str]:
        """Columns of ``finished``: unscaled float32 features, missing ones 0."""
        local_hour = ["local_hour"] if self.view.utc_offset else []
        return [*self.logged_names, *local_hour, *self.clock_names]

    @property
    def logged_names(self) -> list[str]:
        """Columns of ``logs``: what is no reading of a clock."""
        return [*self.number_names, *self.optional_names, *self.field_number_names]

    @property
    def counted_names(self) -> list[str]:
        """Columns of ``finished`` that the model sees as they are."""
        return [feature.name for feature in self.windows.features if feature.signal.name in self.view.counted]

    @property
    def clock_names(self) -> list[str]:
        """Columns of ``finished`` that tell the local time of ``now``; the model sees them as they are, too."""
        return list(CLOCK_FEATURES) if self.view.time_zone else []

    @property
    def scaled_names(self) -> list[str]:
        """Columns of ``logs`` that are scaled."""
        counted = set(self.counted_names)
        return [name for name in self.logged_names if name not in counted]

    @property
    def vocabulary_fields(self) -> list[Field]:
        return [entry for entry in self.fields if entry.dtype == "string"]

    @property
    def transformed_names(self) -> list[str]:
        """Columns of ``transformed``: what the model sees."""
        names = list(self.scaled_names)
        names += [f"{name}_missing" for name in self.optional_names]
        names += [f"{name}_quantile" for name in self.view.bucketed]
        names += [f"local_hour_{hour:02d}" for hour in range(24 if self.view.utc_offset else 0)]
        for entry in self.vocabulary_fields:
            names += [f"{entry.name}_{rank}" for rank in range(entry.vocabulary_size)] + [f"{entry.name}_other"]
        return [*names, *self.counted_names, *self.clock_names]

    @property
    def transformed_groups(self) -> list[str]:
        """For each transformed column what it comes from: a signal, a field, or ``local_hour``.

        A derived feature belongs to the signal that it starts from: an elapsed to its ``since``, a ratio to its numerator.
        """
        of = self._groups
        names = [of[name] for name in self.scaled_names]
        names += [of[name] for name in (*self.optional_names, *self.view.bucketed)]
        names += ["local_hour"] * (24 if self.view.utc_offset else 0)
        for entry in self.vocabulary_fields:
            names += [entry.name] * (entry.vocabulary_size + 1)
        return [*names, *(of[name] for name in (*self.counted_names, *self.clock_names))]

    @property
    def finished_groups(self) -> list[str]:
        """For each finished column what it comes from, as ``transformed_groups`` names it."""
        return [self._groups[name] for name in self.finished_names]

    @property
    def _groups(self) -> dict[str, str]:
        of = {feature.name: feature.signal.name for feature in self.windows.features}
        of |= {name: name for name in (*self.field_number_names, "local_hour")} | dict.fromkeys(self.clock_names, CLOCK)
        for elapsed in self.view.elapsed:
            of[elapsed.name] = of[elapsed.since]
        for ratio in self.view.ratios:
            of[ratio.name] = of[ratio.numerator]
        return of


def plan_graph(catalog: Catalog, view: View) -> GraphPlan:
    """The graph plan of a view of a checked catalog."""
    fields = (*catalog.profile_fields_of(view), *view.request)
    return GraphPlan(view, plan_windows(catalog.signals_of(view)), fields)


def plan_windows(signals: tuple[Signal, ...]) -> WindowPlan:
    """The constants that finish every window of these signals."""
    series_windows = _windows_by_series(signals)
    packed = {
        name: layout.pack_series(signal.id, operation, resolution)
        for name, (signal, operation, resolution, _) in series_windows.items()
    }
    dense = {name: number for number, name in enumerate(series_windows)}
    dense_series = np.full(max(packed.values()) + 2, len(dense), dtype=np.int64)
    for name, series in packed.items():
        dense_series[series] = dense[name]
    stride = 2 + max(max(buckets) for *_, buckets in series_windows.values())

    reductions, columns, offset = [], {}, 0
    for reduction, operations in REDUCTIONS.items():
        chosen = {name: entry for name, entry in series_windows.items() if entry[1] in operations}
        if not chosen:
            continue
        rings = max(len(buckets) for *_, buckets in chosen.values())
        width = sum(signal.by.size if signal.by else 1 for signal, *_ in chosen.values())
        cell = np.full((len(dense) + 1, stride), DROPPED, dtype=np.int64)
        slot = 0
        for name, (signal, operation, _, buckets) in chosen.items():
            for ring, (low, high) in enumerate(zip((0, *buckets[:-1]), buckets, strict=True)):
                cell[dense[name], 1 + low : 1 + high] = ring * width + slot
                for by in range(signal.by.size if signal.by else 1):
                    columns[signal.name, operation, name[2], ring, by] = offset + ring * width + slot + by
            slot += signal.by.size if signal.by else 1
        reductions.append(ReductionPlan(reduction, rings, width, cell.reshape(-1)))
        offset += rings * width
    features = window_features(signals)
    column = np.array([columns[_place_of(feature, series_windows)] for feature in features], dtype=np.int64)
    return WindowPlan(features, dense_series, stride, tuple(reductions), column, any(signal.by for signal in signals))


SeriesName = tuple[str, str, str]
SeriesEntry = tuple[Signal, str, layout.Resolution, tuple[int, ...]]


def _windows_by_series(signals: tuple[Signal, ...]) -> dict[SeriesName, SeriesEntry]:
    """For each (signal, operation, resolution) its windows in buckets, ascending; a lifetime is one bucket long."""
    series: dict[SeriesName, SeriesEntry] = {}
    for signal in signals:
        for operation in signal.operations:
            for resolution in layout.RESOLUTIONS:
                windows_s = [window_s for window_s in signal.windows_s if layout.resolution_of(window_s) == resolution]
                if windows_s:
                    buckets = tuple(window_s // resolution.period_s if resolution.period_s else 1 for window_s in windows_s)
                    series[signal.name, operation, resolution.name] = (signal, operation, resolution, buckets)
    return series


def _place_of(feature: WindowFeature, series: dict[SeriesName, SeriesEntry]) -> tuple[str, str, str, int, int]:
    resolution = layout.resolution_of(feature.window_s)
    name = (feature.signal.name, feature.operation, resolution.name)
    buckets = feature.window_s // resolution.period_s if resolution.period_s else 1
    return (*name, series[name][3].index(buckets), feature.by)
