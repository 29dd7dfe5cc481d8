"""Features of both revisions' users, from the whole rows that servers log of a sample of requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.layout import US_PER_S
from features.predictions import read_predictions
from monitoring.rollout.events import hash_entity

OVERLAP_US: Final = 10 * US_PER_S
"""Rows reach the disk some seconds after their answers, so each look goes back that far; a user met twice counts once."""
COLUMNS: Final = ["revision", "entity_id", "model_version", "finished"]


@dataclass(frozen=True)
class WholeRows:
    """As ``Observations`` has them: names (F), features float32 (m, F), arm and entity (m,)."""

    feature_names: tuple[str, ...]
    features: npt.NDArray[np.float32]
    feature_arm: npt.NDArray[np.int8]
    feature_entity: npt.NDArray[np.int64]


def read_whole_rows(
    folder: Path, arms: Mapping[str, int], names: Mapping[int, tuple[str, ...]], since_us: int, until_us: int
) -> WholeRows:
    """Whole rows answered in a time: of the features that all versions have.

    Args:
        folder: of the model's predictions.
        arms: 0 for stable or 1 for canary, by revision; others are left out.
        names: each version's names of its finished features; rows of other versions are left out.
        since_us, until_us: UTC microseconds, the end excluded.

    Raises:
        EventLogError: a segment is damaged.
    """
    versions = list(names.values())
    common = tuple(name for name in versions[0] if all(name in others for others in versions)) if versions else ()
    places = {version: [list(each).index(name) for name in common] for version, each in names.items()}
    rows: list[tuple[int, int, npt.NDArray[np.float32]]] = []
    for table in read_predictions(folder, since_us=since_us, until_us=until_us, columns=COLUMNS):
        rows += _pick(table, arms, places)
    return WholeRows(
        feature_names=common,
        features=np.stack([row[2] for row in rows]) if rows else np.zeros((0, len(common)), np.float32),
        feature_arm=np.array([row[0] for row in rows], np.int8),
        feature_entity=np.array([row[1] for row in rows], np.int64),
    )


def _pick(
    table: pa.Table, arms: Mapping[str, int], places: Mapping[int, list[int]]
) -> list[tuple[int, int, npt.NDArray[np.float32]]]:
    picked = []
    for row in table.filter(table.column("finished").is_valid()).to_pylist():
        arm, columns = arms.get(row["revision"]), places.get(row["model_version"])
        if arm is not None and columns is not None:
            picked.append((arm, hash_entity(row["entity_id"]), np.array(row["finished"], np.float32)[columns]))
    return picked
