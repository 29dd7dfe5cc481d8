"""Counts of users by revision and by bin of what they met, for many columns at once.

The first users of stable set each column's bins and are not counted; from then on the bins are fixed, so counts say all
that a test needs and any tick size gives the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from monitoring.rollout.observations import STABLE
from monitoring.rollout.panels import Panel, admit, open_panel

VALUE_BINS: Final = 12
NOVEL: Final = VALUE_BINS
"""The bin of a value outside the reference's range, or of a category that the reference does not hold."""
MISSING: Final = VALUE_BINS + 1
BINS: Final = VALUE_BINS + 2
QUANTILES: Final = np.arange(1, 8) / 8
MAX_SLICES: Final = 8
MAX_COLUMNS: Final = 512

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Histograms:
    """Users counted so far, of F columns.

    ``reference`` (r, F) holds stable's first users' values until they are ``wanted``; then ``edges`` (F, 12), padded with
    infinity, ``categorical`` (F,) and ``low``, ``high`` (F,) fix the bins, ``shares`` (F, 14) is the reference by bin.
    ``counts`` (slices, F, 2, 14): slice 0 is everybody.
    """

    names: tuple[str, ...]
    wanted: int
    panel: Panel
    reference: Floats
    edges: Floats
    categorical: npt.NDArray[np.bool_]
    low: Floats
    high: Floats
    shares: Floats
    counts: Ints

    @property
    def ready(self) -> bool:
        """Whether the bins are set."""
        return len(self.reference) >= self.wanted

    def users(self, arm: int) -> int:
        """Users of one revision that have been counted."""
        return int(self.counts[0, 0, arm].sum()) if self.names else 0


def open_histograms(names: tuple[str, ...], wanted: int, slices: int = 1) -> Histograms:
    """Nothing counted, of the first ``MAX_COLUMNS`` columns; the first ``wanted`` users of stable will set the bins."""
    names = names[:MAX_COLUMNS]
    columns = len(names)
    return Histograms(
        names=names,
        wanted=wanted,
        panel=open_panel(),
        reference=np.zeros((0, columns)),
        edges=np.full((columns, VALUE_BINS), np.inf),
        categorical=np.zeros(columns, np.bool_),
        low=np.zeros(columns),
        high=np.zeros(columns),
        shares=np.zeros((columns, BINS)),
        counts=np.zeros((slices, columns, 2, BINS), np.int64),
    )


def forget_users(histograms: Histograms) -> Histograms:
    """The same bins with nobody counted: a stage begins."""
    return replace(histograms, panel=open_panel(), counts=np.zeros_like(histograms.counts))


def count_users(
    histograms: Histograms,
    values: Floats,
    arm: npt.NDArray[np.int8],
    entity: npt.NDArray[np.int64],
    slice_code: npt.NDArray[np.int16] | None = None,
) -> tuple[Histograms, Ints]:
    """Count each user's first row, once the bins are set: values (n, F). Also the positions of first rows."""
    panel, firsts = admit(histograms.panel, entity)
    histograms = replace(histograms, panel=panel)
    start = 0
    if not histograms.ready:
        stable = firsts[arm[firsts] == STABLE][: histograms.wanted - len(histograms.reference)]
        grown = np.concatenate([histograms.reference, values[stable]])
        histograms = replace(histograms, reference=grown)
        start = len(arm)
        if histograms.ready:
            histograms = _set_bins(histograms)
            start = int(stable[-1]) + 1
    counted = firsts[firsts >= start]
    if len(counted):
        codes = np.zeros(len(counted), np.int64) if slice_code is None else slice_code[counted].astype(np.int64)
        added = _tabulate(find_bins(histograms, values[counted]), arm[counted].astype(np.int64), codes, len(histograms.counts))
        histograms = replace(histograms, counts=histograms.counts + added)
    return histograms, firsts


def find_bins(histograms: Histograms, values: Floats) -> Ints:
    """The bin of each value: (n, F) to (n, F)."""
    codes = np.empty(values.shape, np.int64)
    for column in range(values.shape[1]):
        edges = histograms.edges[column]
        codes[:, column] = np.searchsorted(edges, values[:, column], side="left" if histograms.categorical[column] else "right")
    known = np.where(
        histograms.categorical,
        np.take_along_axis(
            np.pad(histograms.edges, ((0, 0), (0, 1)), constant_values=np.inf).T, np.minimum(codes, VALUE_BINS), axis=0
        )
        == values,
        (values >= histograms.low) & (values <= histograms.high),
    )
    codes[~known] = NOVEL
    codes[np.isnan(values)] = MISSING
    return codes


def _set_bins(histograms: Histograms) -> Histograms:
    """Bins of equal share of the reference, or one a value where it has few."""
    edges, categorical = histograms.edges.copy(), histograms.categorical.copy()
    low, high = histograms.low.copy(), histograms.high.copy()
    for column in range(len(histograms.names)):
        values = histograms.reference[:, column]
        values = values[np.isfinite(values)]
        distinct = np.unique(values)
        low[column], high[column] = (distinct[0], distinct[-1]) if len(distinct) else (np.inf, -np.inf)
        categorical[column] = len(distinct) <= VALUE_BINS
        cuts = distinct if categorical[column] else np.unique(np.quantile(values, QUANTILES))
        edges[column, : len(cuts)] = cuts
    histograms = replace(histograms, edges=edges, categorical=categorical, low=low, high=high)
    codes = find_bins(histograms, histograms.reference)
    shares = np.stack([np.bincount(codes[:, column], minlength=BINS) for column in range(codes.shape[1])]) / len(codes)
    return replace(histograms, shares=shares)


def _tabulate(codes: Ints, arm: Ints, slice_code: Ints, slices: int) -> Ints:
    columns = codes.shape[1]
    cell = ((np.arange(columns) * 2 + arm[:, None]) * BINS + codes).ravel()
    shape = (columns, 2, BINS)
    everybody = np.bincount(cell, minlength=columns * 2 * BINS).reshape(1, *shape)
    if slices == 1:
        return everybody
    inside = np.repeat((slice_code > 0) & (slice_code < slices), columns)
    offset = np.repeat(slice_code * columns * 2 * BINS, columns)
    sliced = np.bincount((cell + offset)[inside], minlength=slices * columns * 2 * BINS).reshape(slices, *shape)
    sliced[0] = everybody[0]
    return sliced
