"""Values watched one by one: alibi-detect's online tests of a share and of a number, whose state can be kept across restarts.

Alarms come as soon as the evidence is there instead of when a window closes, with a configured mean number of values between
false ones.

Sources: Ross, Tasoulis, Adams 2012, Sequential monitoring of a Bernoulli sequence when the pre-change parameter is unknown
(Computational Statistics 27); Ross, Adams 2012, Two nonparametric control charts for detecting arbitrary distribution changes
(Journal of Quality Technology 44).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from monitoring.drift.detectors import seeded

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

DIRECTIONS: Final = {"rise": "greater", "fall": "less"}


@dataclass(frozen=True)
class OnlineSettings:
    """How values are watched.

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


class OnlineWatch:
    """Watches a stream of values; its memory is bounded by the longest window; alibi-detect's own grows with each value."""

    def __init__(self, detector: Any, settings: OnlineSettings) -> None:
        self._detector = detector
        self._longest = max(settings.windows)
        self._random = np.random.default_rng(settings.seed)

    @property
    def thresholds(self) -> Floats:
        """What the simulations found: (t,) or (t, windows)."""
        found: Floats = self._detector.thresholds
        return found

    def update(self, values: npt.NDArray[Any]) -> list[int]:
        """Take in values in their order; the places of those at which an alarm stands. After an alarm it begins anew."""
        alarms = []
        for place, value in enumerate(values.tolist()):
            with seeded(int(self._random.integers(2**31))):
                found = self._detector.predict(self._as_input(value))["data"]["is_drift"]
            if found:
                alarms.append(place)
                self._detector.reset_state()
            else:
                self._trim()
        return alarms

    def describe(self) -> dict[str, Any]:
        """State as plain values for JSON; thresholds are not among it, they follow from reference and settings."""
        return {"t": self._detector.t, "values": self._values(), "random": self._random.bit_generator.state}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``describe`` gave, of a watch with the same reference and settings."""
        self._detector.reset_state()
        if state["t"]:
            self._replay(state)
            self._detector.t = int(state["t"])
        self._random.bit_generator.state = state["random"]

    def _trim(self) -> None:
        detector = self._detector
        detector.xs = detector.xs[-self._longest :]
        detector.test_stats = detector.test_stats[-1:]
        detector.drift_preds = detector.drift_preds[-1:]

    def _values(self) -> list[float]:
        found: list[float] = self._detector.xs.reshape(-1).tolist()
        return found

    def _as_input(self, value: float) -> npt.NDArray[Any]:
        raise NotImplementedError

    def _replay(self, state: Mapping[str, Any]) -> None:
        raise NotImplementedError


class ShareWatch(OnlineWatch):
    """Watches a stream of true and false values in one direction, by Fisher's exact test."""

    def __init__(self, reference: Flags, direction: str, settings: OnlineSettings, *, thresholds: Floats | None = None) -> None:
        """Find the thresholds, which takes a minute of processor time with the default settings.

        Args:
            reference: values of a time without drift; some true, some false.
            direction: ``rise`` or ``fall``.
            thresholds: those that a watch of the same reference and settings has found; None finds them.
        """
        from alibi_detect.cd import FETDriftOnline

        with seeded(settings.seed):
            detector = _keep_thresholds(FETDriftOnline, thresholds)(
                reference.astype(np.int64), ert=settings.values_between_alarms, window_sizes=list(settings.windows),
                n_bootstraps=settings.simulations, alternative=DIRECTIONS[direction], verbose=False,
            )  # fmt: skip
        super().__init__(detector, settings)

    def describe(self) -> dict[str, Any]:
        stats = [
            [[None if np.isnan(each) else float(each) for each in row] for row in rows] for rows in self._detector.test_stats
        ]
        return super().describe() | {"test_stats": stats}

    def _values(self) -> list[float]:
        found: list[float] = self._detector.xs.reshape(-1).astype(int).tolist()
        return found

    def _as_input(self, value: float) -> npt.NDArray[Any]:
        return np.array([int(value)])

    def _replay(self, state: Mapping[str, Any]) -> None:
        self._detector.xs = np.array(state["values"], np.int64).reshape(-1, 1)
        self._detector.test_stats = _with_nan(state["test_stats"])  # each is smoothed with the one before


class ValueWatch(OnlineWatch):
    """Watches a stream of numbers for any change of their distribution, by the Cramér-von Mises test."""

    def __init__(self, reference: Floats, settings: OnlineSettings, *, thresholds: Floats | None = None) -> None:
        """Find the thresholds.

        Args:
            reference: values of a time without drift; memory and time grow with their number, some hundreds do.
            thresholds: those that a watch of as many values and the same settings has found; None finds them.
        """
        from alibi_detect.cd import CVMDriftOnline

        with seeded(settings.seed):
            detector = _keep_thresholds(CVMDriftOnline, thresholds)(
                reference.astype(np.float64), ert=settings.values_between_alarms, window_sizes=list(settings.windows),
                n_bootstraps=settings.simulations, verbose=False,
            )  # fmt: skip
        super().__init__(detector, settings)

    def _as_input(self, value: float) -> npt.NDArray[Any]:
        return np.array([float(value)])

    def _replay(self, state: Mapping[str, Any]) -> None:
        for value in state["values"]:  # its windows look at these alone
            self._detector._update_state(np.array([[value]]))


def _keep_thresholds(detector: type[Any], thresholds: Floats | None) -> type[Any]:
    """The detector, with thresholds that were found before instead of new simulations."""
    if thresholds is None:
        return detector

    def configure(self: Any) -> None:
        self.thresholds = thresholds

    return type(detector.__name__, (detector,), {"_configure_thresholds": configure})


def _with_nan(values: Sequence[Any]) -> npt.NDArray[np.float64]:
    return np.array([[[np.nan if each is None else each for each in row] for row in rows] for rows in values], np.float64)
