"""Each user once: a bounded memory of who has been counted."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

SLOTS: Final = 1 << 17
"""Users a panel can count. Two who share a slot count as one: that costs evidence, never validity, since a slot says nothing
of the revision."""

Panel = npt.NDArray[np.bool_]


def open_panel() -> Panel:
    """Nobody has been counted: (SLOTS,) bool."""
    return np.zeros(SLOTS, np.bool_)


def admit(panel: Panel, entity: npt.NDArray[np.int64]) -> tuple[Panel, npt.NDArray[np.int64]]:
    """Count these users, in order: the panel afterwards, and the positions of those that had not been counted before."""
    if not len(entity):
        return panel, np.zeros(0, np.int64)
    slots = (_scramble(entity) & np.uint64(SLOTS - 1)).astype(np.int64)
    firsts = np.sort(np.unique(slots, return_index=True)[1])
    fresh = firsts[~panel[slots[firsts]]]
    if not len(fresh):
        return panel, fresh
    after = panel.copy()
    after[slots[fresh]] = True
    return after, fresh


def _scramble(entity: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea & Flood 2014): slots must not follow the hash by which traffic is split."""
    mixed = entity.view(np.uint64) if entity.dtype == np.int64 else entity.astype(np.uint64)
    mixed = mixed + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
