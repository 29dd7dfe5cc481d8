"""A share watched value by value: alibi-detect's online Fisher exact test, whose state can be kept across restarts.

Alarms come as soon as the evidence is there instead of when a window closes, with a configured mean time between false ones.

Source: Ross, Tasoulis, Adams, Sequential monitoring of a Bernoulli sequence when the pre-change parameter is unknown, 2012.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from monitoring.drift.detectors import seeded

Flags = npt.NDArray[np.bool_]

DIRECTIONS: Final = {"rise": "greater", "fall": "less"}


@dataclass(frozen=True)
class ShareSettings:
    """How a share is watched.

    Attributes:
        values_between_alarms: values expected before a false alarm in one direction (alibi-detect's expected run time).
        windows: how many of the newest values are held against the reference, several at once: short ones find large changes
            soon, long ones small ones.
        simulations: streams drawn to find the thresholds; ten times ``values_between_alarms`` at least, or the alarms do not
            keep to it.
        seed: of those.
    """

    values_between_alarms: int = 1_000
    windows: tuple[int, ...] = (50, 200)
    simulations: int = 10_000
    seed: int = 0


class ShareWatch:
    """Watches a stream of true and false values in one direction.

    Its memory is bounded by the longest window; alibi-detect's own grows with every value.
    """

    def __init__(self, reference: Flags, direction: str, settings: ShareSettings) -> None:
        """Find the thresholds, which takes a minute of processor time with the default settings.

        Args:
            reference: values of a time without drift; some true, some false.
            direction: ``rise`` or ``fall``.
        """
        from alibi_detect.cd import FETDriftOnline

        with seeded(settings.seed):
            self._detector = FETDriftOnline(
                reference.astype(np.int64), ert=settings.values_between_alarms, window_sizes=list(settings.windows),
                n_bootstraps=settings.simulations, alternative=DIRECTIONS[direction], verbose=False,
            )  # fmt: skip
        self._longest = max(settings.windows)
        self._random = np.random.default_rng(settings.seed)

    def update(self, values: Flags) -> list[int]:
        """Take in values in their order; the places of those at which an alarm stands. After an alarm it begins anew."""
        alarms = []
        for place, value in enumerate(values.tolist()):
            with seeded(int(self._random.integers(2**31))):
                found = self._detector.predict(np.array([int(value)]))["data"]["is_drift"]
            if found:
                alarms.append(place)
                self._detector.reset_state()
            else:
                self._trim()
        return alarms

    def describe(self) -> dict[str, Any]:
        """State as plain values for JSON; thresholds are not among it, they follow from reference and settings."""
        detector = self._detector
        return {
            "t": detector.t, "values": detector.xs.reshape(-1).astype(int).tolist(),
            "test_stats": [[[None if np.isnan(each) else float(each) for each in row] for row in rows] for rows in
                           detector.test_stats],
            "random": self._random.bit_generator.state,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``describe`` gave, of a watch with the same reference and settings."""
        detector = self._detector
        detector.reset_state()
        if state["t"]:
            detector.t = int(state["t"])
            detector.xs = np.array(state["values"], np.int64).reshape(-1, 1)
            detector.test_stats = _with_nan(state["test_stats"])
        self._random.bit_generator.state = state["random"]

    def _trim(self) -> None:
        detector = self._detector
        detector.xs = detector.xs[-self._longest :]
        detector.test_stats = detector.test_stats[-1:]
        detector.drift_preds = detector.drift_preds[-1:]


def _with_nan(values: Sequence[Any]) -> npt.NDArray[np.float64]:
    return np.array([[[np.nan if each is None else each for each in row] for row in rows] for rows in values], np.float64)
