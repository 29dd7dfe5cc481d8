"""Feature skew between revisions: in each feature missing values first, then unseen ones, then a shift of the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from monitoring.rollout.histograms import BINS, MISSING, NOVEL, Histograms
from monitoring.rollout.sequential import HARMS, SHIFTS, SPREADS, Floats, log_wealth, log_wealth_any_shape, mix, rank_ratios

KINDS: Final = ("missing", "unseen", "shifted")
SHARES: Final = np.concatenate([HARMS[2:], 1 / HARMS[2:5]])
"""Ratios that bets on a bin's share try: more, and less."""


@dataclass(frozen=True)
class Drift:
    """How one feature differs in one way. ``effect`` is the largest difference in the share of a bin or a range."""

    feature: str
    kind: str
    log_wealth: float
    log_needed: float
    effect: float


def find_drifts(rows: Histograms, price: float, needed: float) -> list[Drift]:
    """Every feature in each of the three ways, in the order of ``KINDS``; each needs ``needed`` and its share of the level."""
    counts = rows.counts[0]
    cost = math.log(len(KINDS) * len(rows.names))
    missing = mix(log_wealth(counts, _bin_ratios(MISSING), price))
    unseen = mix(log_wealth(counts, _bin_ratios(NOVEL), price))
    present = counts.copy()
    present[..., MISSING] = 0
    shares = rows.shares.copy()
    shares[:, MISSING] = 0.0
    shares /= np.maximum(shares.sum(axis=-1, keepdims=True), 1e-12)
    ranks = mix(log_wealth(present, rank_ratios(shares, SHIFTS, SPREADS), price))
    shifted = np.logaddexp(ranks, log_wealth_any_shape(present, price)) - math.log(2)
    effects = _effects(counts, present)
    return [
        Drift(name, kind, float(wealth[column]), needed + cost, float(effects[kind][column]))
        for kind, wealth in zip(KINDS, (missing, unseen, shifted), strict=True)
        for column, name in enumerate(rows.names)
    ]


def _bin_ratios(chosen: int) -> Floats:
    ratios = np.ones((len(SHARES), BINS))
    ratios[:, chosen] = SHARES
    return ratios


def _effects(counts: npt.NDArray[np.int64], present: npt.NDArray[np.int64]) -> dict[str, Floats]:
    apart = _apart(counts)
    shifted = _apart(present)
    ranges = np.abs(np.cumsum(shifted[..., :NOVEL], axis=-1)).max(axis=-1)
    return {
        "missing": np.abs(apart[..., MISSING]),
        "unseen": np.abs(apart[..., NOVEL]),
        "shifted": np.maximum(np.abs(shifted).max(axis=-1), ranges),
    }


def _apart(counts: npt.NDArray[np.int64]) -> Floats:
    shares = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    return np.asarray(shares[..., 1, :] - shares[..., 0, :])
