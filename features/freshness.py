"""How old each shard of a view is against what the view promises, as rows for monitors.

Age counts from the shard's watermark and not from anybody's last event: a quiet shard that has read all of its log is fresh.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from features.declarations import View
from features.layout import US_PER_S
from features.online.store import NO_OFFSET, OnlineStore
from features.rows import FRESHNESS


def measure_freshness(store: OnlineStore, view: View, *, now_us: int) -> pa.Table:
    """One row of ``rows.FRESHNESS`` for each shard of a view's online store.

    A shard that was never filled has no age and is late: what is missing is no pass.

    Args:
        store: of this view.
        now_us: the time of asking, UTC microseconds.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    rows: list[dict[str, Any]] = []
    for shard in range(store.partitions):
        mark = store.watermark(shard)
        known = bool(mark.as_of_us) or mark.log_offset != NO_OFFSET
        age_us = max(now_us - max(mark.as_of_us, mark.ingest_time_us), 0)
        rows.append({
            "view_key": view.key,
            "shard": shard,
            "measured_at": _time(now_us),
            "as_of": _time(mark.as_of_us) if known else None,
            "log_offset": mark.log_offset,
            "age_s": age_us / US_PER_S if known else None,
            "freshness_sla_s": view.freshness_sla_s,
            "late": not known or age_us > view.freshness_sla_s * US_PER_S,
            "half_filled": mark.filling_to != NO_OFFSET,
        })  # fmt: skip
    return pa.Table.from_pylist(rows, schema=FRESHNESS)


def _time(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us / US_PER_S, UTC)
