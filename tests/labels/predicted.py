"""Predictions as a server would have logged them, for tests of what became of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa

from features.layout import DAY_S, US_PER_S
from features.predictions import SegmentWriter
from features.rows import PREDICTION, TIME
from features.workspace import Workspace

DAY_US = DAY_S * US_PER_S
START_US = 1_767_571_200_000_000
"""2026-01-05 00:00 UTC."""


@dataclass(frozen=True)
class Asked:
    """One entity of an answered request: ``day`` after the start when it was scored."""

    entity: str
    day: float
    score: float = 0.5
    request: str = "r"
    version: int = 1
    revision: str = "stable"
    answered_day: float | None = None

    @property
    def now_us(self) -> int:
        return START_US + round(self.day * DAY_US)

    def at(self, day: float) -> Asked:
        return replace(self, day=day)


def log_predictions(workspace: Workspace, model: str, *frames: list[Asked]) -> None:
    """One segment of these frames."""
    writer = SegmentWriter(workspace.predictions(model), segment_age_s=1e12)
    for frame in frames:
        writer.append(tabulate(model, frame))
    writer.close()


def tabulate(model: str, asked: list[Asked]) -> pa.Table:
    known = {
        "request_id": [row.request for row in asked], "model": [model] * len(asked), "view_key": ["v"] * len(asked),
        "answered_at": pa.array(
            [row.now_us if row.answered_day is None else START_US + round(row.answered_day * DAY_US) for row in asked]
        ).cast(TIME),
        "now": pa.array([row.now_us for row in asked]).cast(TIME), "model_version": [row.version for row in asked],
        "revision": [row.revision for row in asked], "entity_id": [row.entity for row in asked],
        "score": [row.score for row in asked], "cold": [False] * len(asked),
    }  # fmt: skip
    zeros = dict.fromkeys(["log_partition", "log_offset", "shard_offset", "state_hash", "profile_hash", "inputs_hash"], 0)
    known |= {name: [value] * len(asked) for name, value in zeros.items()}
    columns = [pa.nulls(len(asked), field.type) if field.name not in known else pa.array(known[field.name], field.type)
               if not isinstance(known[field.name], pa.Array) else known[field.name] for field in PREDICTION]  # fmt: skip
    return pa.table(columns, schema=PREDICTION)


def events(*rows: tuple[str, str, float, float], **attributes: list[str]) -> pa.Table:
    """Events from (entity, type, day when it happened, day when it became known)."""
    names, types, happened, known = zip(*rows, strict=True)
    return pa.table({
        "event_id": [f"{name}/{kind}/{day}/{at}" for name, kind, day, at in rows], "entity_id": list(names),
        "event_type": list(types), "region": ["eu"] * len(rows),
        "event_time": pa.array([START_US + round(day * DAY_US) for day in happened]).cast(TIME),
        "ingest_time": pa.array([START_US + round(day * DAY_US) for day in known]).cast(TIME), **attributes,
    })  # fmt: skip
