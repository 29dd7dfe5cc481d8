"""What became of both revisions' predictions: the labels that have matured, at the odds that stood when each score was given.

Labels come into their table long after the answers (``features.served_labels``), in any order and maybe again after a restart;
a gate counts each user's first one only, so handing a label over twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.layout import US_PER_S
from features.rows import SERVED_LABEL
from features.served_labels import read_labels
from monitoring.rollout.events import hash_entity

if TYPE_CHECKING:
    from monitoring.rollout.records import Step

SETTLING_US: Final = 5 * US_PER_S
"""Answers so near to a change of the share may have been routed at the other one, so their labels are left out."""
COLUMNS: Final = ["revision", "entity_id", "answered_at", "score", "label"]


@dataclass(frozen=True)
class Share:
    """The canary's percent of users, for answers in [from_us, until_us), UTC microseconds."""

    percent: int
    from_us: int
    until_us: int


@dataclass(frozen=True)
class MaturedLabels:
    """As ``Observations`` has them, in the order in which they matured: (k,) each."""

    label_arm: npt.NDArray[np.int8]
    label_entity: npt.NDArray[np.int64]
    label_score: npt.NDArray[np.float32]
    label: npt.NDArray[np.bool_]
    label_percent: npt.NDArray[np.float32]


def shares_of(steps: Sequence[Step], now_us: int) -> list[Share]:
    """When which share surely stood, from a rollout's steps in their order: from a step's being applied to the next's being
    recorded, less ``SETTLING_US`` at either end."""
    ends = [*(step.at_us for step in steps[1:]), now_us + SETTLING_US]
    return [
        Share(step.percent, step.applied_at_us + SETTLING_US, until_us - SETTLING_US)
        for step, until_us in zip(steps, ends, strict=True)
        if step.applied_at_us is not None and 0 < step.percent < 100
    ]


def read_matured(folder: Path, arms: Mapping[str, int], shares: Sequence[Share]) -> MaturedLabels:
    """Labels of what these revisions answered while the canary had a share.

    Args:
        folder: of the model's labels.
        arms: 0 for stable or 1 for canary, by revision; others are left out.

    Raises:
        EventLogError: the table is damaged.
    """
    if not shares:
        return _pick(pa.schema([SERVED_LABEL.field(name) for name in COLUMNS]).empty_table(), arms, shares)
    return _pick(read_labels(folder, since_us=min(share.from_us for share in shares), columns=COLUMNS), arms, shares)


def _pick(rows: pa.Table, arms: Mapping[str, int], shares: Sequence[Share]) -> MaturedLabels:
    at_us = rows["answered_at"].cast(pa.int64()).to_numpy()
    percent = np.zeros(len(at_us), np.float32)
    for share in shares:
        percent[(at_us >= share.from_us) & (at_us < share.until_us)] = share.percent
    revisions = rows["revision"].combine_chunks().dictionary_encode()
    by_revision = np.array([arms.get(name, -1) for name in revisions.dictionary.to_pylist()], np.int8)
    arm = by_revision[revisions.indices.to_numpy()]
    chosen = (percent > 0) & (arm >= 0)
    # Users come again and again, and only their first label counts; hashing each once is what takes time.
    entities = rows["entity_id"].filter(pa.array(chosen)).combine_chunks().dictionary_encode()
    hashes = np.array([hash_entity(entity) for entity in entities.dictionary.to_pylist()], np.int64)
    return MaturedLabels(
        label_arm=arm[chosen],
        label_entity=hashes[entities.indices.to_numpy()],
        label_score=rows["score"].to_numpy()[chosen],
        label=rows["label"].to_numpy()[chosen] == 1,
        label_percent=percent[chosen],
    )
