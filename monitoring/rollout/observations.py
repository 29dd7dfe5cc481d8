"""One tick's requests, as columns: what a collector hands over and gates judge."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from features.errors import explain
from monitoring.errors import ObservationError

STABLE, CANARY = 0, 1


@dataclass(frozen=True)
class Observations:
    """Requests that were answered (or failed) in one tick, in the order of their answers, all at the stage's percent.

    ``at_us`` is the tick's end, UTC microseconds. Of n requests, each array (n,): ``arm`` int8, 0 stable and 1 canary;
    ``entity`` int64, a hash of the entity by which traffic is split; ``failed`` bool; ``latency_s`` float64, seconds;
    ``degraded`` bool; ``score`` float32 in [0, 1], NaN where failed; ``slice_code`` int16, 0 where there are no slices.
    A request for several entities has a row for each; ``request`` int64 (n,) says which rows are one request (left out: each
    row is one), because they fail, or are slow, together.

    Of m whole prediction rows, a sample drawn alike in both arms: ``features`` float32 (m, F) as the network saw them before
    any imputation (NaN is missing), ``feature_arm`` and ``feature_entity`` (m,), ``feature_names`` (F).

    Of k labels that matured since the last tick: ``label_arm``, ``label_entity``, ``label_score`` float32, ``label`` bool,
    and ``label_percent`` float32, the canary's percent when the score was given.

    A request routed at another percent does not belong to this stage: the collector leaves it out.
    """

    at_us: int
    arm: npt.NDArray[np.int8]
    entity: npt.NDArray[np.int64]
    failed: npt.NDArray[np.bool_]
    latency_s: npt.NDArray[np.float64]
    degraded: npt.NDArray[np.bool_]
    score: npt.NDArray[np.float32]
    slice_code: npt.NDArray[np.int16]
    feature_names: tuple[str, ...] = ()
    features: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    feature_arm: npt.NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    feature_entity: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    label_arm: npt.NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    label_entity: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    label_score: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    label: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    label_percent: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    request: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        requests = ("arm", "entity", "failed", "latency_s", "degraded", "score", "slice_code", "request")
        labels = ("label_arm", "label_entity", "label_score", "label", "label_percent")
        for names in (requests, ("features", "feature_arm", "feature_entity"), labels):
            lengths = {name: len(getattr(self, name)) for name in names if getattr(self, name) is not None}
            if len(set(lengths.values())) > 1:
                raise _mismatch("columns of one table of a tick", "one length", str(lengths))
        if len(self.features) and self.features.shape[1] != len(self.feature_names):
            raise _mismatch("features", f"{len(self.feature_names)} columns, one a name", str(self.features.shape))

    def __len__(self) -> int:
        return len(self.arm)

    @property
    def leads(self) -> npt.NDArray[np.bool_]:
        """Rows that stand for their request: the first of each request and revision (n,)."""
        if self.request is None:
            return np.ones(len(self), np.bool_)
        leads = np.zeros(len(self), np.bool_)
        for side in (STABLE, CANARY):
            rows = np.flatnonzero(self.arm == side)
            leads[rows[np.unique(self.request[rows], return_index=True)[1]]] = True
        return leads


def no_requests(at_us: int) -> Observations:
    """A tick in which nothing was seen."""
    return Observations(
        at_us=at_us,
        arm=np.zeros(0, np.int8),
        entity=np.zeros(0, np.int64),
        failed=np.zeros(0, np.bool_),
        latency_s=np.zeros(0, np.float64),
        degraded=np.zeros(0, np.bool_),
        score=np.zeros(0, np.float32),
        slice_code=np.zeros(0, np.int16),
    )


def _mismatch(which: str, expected: str, got: str) -> ObservationError:
    return ObservationError(
        explain("observations refused", which=which, expected=expected, got=got, next_step="correct the collector")
    )
