"""What a model of hours of the week is compared with: each is fitted on rows to learn from, and gives any rows' distributions.

All of them tell where actions will be seen, under the sending policy as it was; none corrects for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import numpy as np

from features.errors import explain
from features.layout import HOUR_S, WEEK_S
from features.slots import SLOTS
from features.zones import CLOCK_FEATURES
from models.errors import SpecError
from models.frame import Floats
from models.slot_rows import SlotRows
from models.specs import ModelSpec

STRENGTHS: Final = tuple(float(2**power) for power in range(11))
REPEAT_SHARES: Final = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.4, 0.8)


class SlotBaseline(Protocol):
    """A fitted baseline."""

    def distribute(self, rows: SlotRows) -> Floats:
        """(n, 168) probabilities of the slot of the next action."""


class Uniform:
    """Every hour alike."""

    def __init__(self, spec: ModelSpec, rows: SlotRows) -> None:
        """Nothing is learned."""

    def distribute(self, rows: SlotRows) -> Floats:
        """(n, 168) times the same number."""
        return np.full((len(rows), SLOTS), 1 / SLOTS)


class GlobalHistogram:
    """The hours of everyone's actions, one added to each."""

    def __init__(self, spec: ModelSpec, rows: SlotRows) -> None:
        counts = 1 + rows.outcomes.sum(axis=0, dtype=np.float64)
        self._shares = counts / counts.sum()

    def distribute(self, rows: SlotRows) -> Floats:
        """(n, 168) times the same row."""
        return np.tile(self._shares, (len(rows), 1))


class UserHistogram:
    """The hours of the user's own actions, drawn towards everyone's by the strength that tells the learned rows best."""

    def __init__(self, spec: ModelSpec, rows: SlotRows) -> None:
        self._global = GlobalHistogram(spec, rows)
        losses = [-(rows.outcomes * np.log(self._shrink(rows, strength))).sum() for strength in STRENGTHS]
        self._strength = STRENGTHS[int(np.argmin(losses))]

    def distribute(self, rows: SlotRows) -> Floats:
        """(n, 168) shrunken histograms."""
        return self._shrink(rows, self._strength)

    def _shrink(self, rows: SlotRows, strength: float) -> Floats:
        acts = rows.acts.astype(np.float64)
        shrunken: Floats = (acts + strength * self._global.distribute(rows)) / (acts.sum(axis=1, keepdims=True) + strength)
        return shrunken


class LastHour:
    """The hour of the week of the user's last action, with the probability that it is the next one's, else everyone's hours.

    The local hour is told by the clock's offset of now; across a change of the clock it is an hour off.
    """

    def __init__(self, spec: ModelSpec, rows: SlotRows) -> None:
        self._global = GlobalHistogram(spec, rows)
        self._recency = spec.recency
        losses = [-(rows.outcomes * np.log(self._mix(rows, share))).sum() for share in REPEAT_SHARES]
        self._share = REPEAT_SHARES[int(np.argmin(losses))]

    def distribute(self, rows: SlotRows) -> Floats:
        """(n, 168) mixtures."""
        return self._mix(rows, self._share)

    def _mix(self, rows: SlotRows, share: float) -> Floats:
        since_s = rows.feature(self._recency)
        slot = ((rows.feature(CLOCK_FEATURES[0]) - since_s) % WEEK_S // HOUR_S).astype(np.int64)
        known = since_s > 0
        mixed = self._global.distribute(rows)
        mixed[known] *= 1 - share
        mixed[np.flatnonzero(known), slot[known]] += share
        return mixed


BASELINES: Final[dict[str, Callable[[ModelSpec, SlotRows], SlotBaseline]]] = {
    "uniform": Uniform,
    "global_histogram": GlobalHistogram,
    "user_histogram": UserHistogram,
    "last_hour": LastHour,
}
"""Fits a baseline by its name."""


def fit_slot_baseline(name: str, spec: ModelSpec, rows: SlotRows) -> SlotBaseline:
    """Fit one baseline.

    Raises:
        SpecError: there is no baseline of that name.
    """
    if name not in BASELINES:
        raise SpecError(
            explain("unknown baseline", which=f"{name!r} of model {spec.name!r}", expected=f"one of {', '.join(BASELINES)}",
                    got=repr(name), next_step="correct the spec")
        )  # fmt: skip
    return BASELINES[name](spec, rows)
