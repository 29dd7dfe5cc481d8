"""How events of one hour came: what share was refused, and what share came late, beside the weeks before it, as monitors' rows.

Hours are hours of ingest_time, as those of ``quality``. Rows are of ``rows.QUALITY``, with an empty event type.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import polars as pl
import pyarrow as pa

from features import delta
from features.declarations import Catalog
from features.erasure import ERASED
from features.events import open_log
from features.layout import HOUR_S
from features.quality import EPOCH, HOUR, WEEK, WEEKS
from features.rows import QUALITY
from features.workspace import Workspace

REFUSED: Final = "dead_letter_share"
LATE: Final = "late_share"
LATE_S: Final = HOUR_S
"""An event that becomes known longer after it happened is late."""


def measure_arrivals(workspace: Workspace, catalog: Catalog, entity: str, *, hour_us: int, weeks: int = WEEKS) -> pa.Table:
    """``dead_letter_share``: rows that could not become events, of all rows that came; ``late_share``: events known more than
    ``LATE_S`` after they happened. Reference: the same hours of the weeks before, as far as the log goes back.

    Args:
        hour_us: the hour's start, UTC microseconds.

    Raises:
        EventLogError: the log or the dead letters are corrupted.
    """
    start = EPOCH + timedelta(microseconds=hour_us)
    log = open_log(workspace, catalog, entity)
    if log is None:
        return QUALITY.empty_table()
    path = workspace.events(entity)
    frame = pl.scan_delta(log).filter(pl.col("event_type") != ERASED)
    first = delta.collect(frame.select(pl.col("ingest_time").min()), path).item()
    if first is None:
        return QUALITY.empty_table()
    hours = [start, *(start - week * WEEK for week in range(1, weeks + 1) if start - week * WEEK >= first)]
    counted = [_count(workspace, frame, entity, hour) for hour in hours]
    common = {"entity": entity, "event_type": "", "start": start, "end": start + HOUR, "reference_windows": len(hours) - 1}
    rows = []
    for metric, part in ((REFUSED, "refused"), (LATE, "late")):
        whole = "rows" if metric == REFUSED else "events"
        shares = [one[part] / one[whole] if one[whole] else None for one in counted]
        before = [share for share in shares[1:] if share is not None]
        rows.append({
            **common, "metric": metric, "events": counted[0][whole], "value": shares[0],
            "reference": sum(before) / len(before) if before else None,
            "reference_low": min(before, default=None), "reference_high": max(before, default=None),
        })  # fmt: skip
    return pa.Table.from_pylist(rows, schema=QUALITY)


def _count(workspace: Workspace, frame: pl.LazyFrame, entity: str, hour: Any) -> dict[str, int]:
    days = (pl.col("ingest_day") >= hour.date()) & (pl.col("ingest_day") <= (hour + HOUR).date())
    span = (pl.col("ingest_time") >= hour) & (pl.col("ingest_time") < hour + HOUR)
    late = (pl.col("ingest_time") - pl.col("event_time")) > timedelta(seconds=LATE_S)
    query = frame.filter(days & span).select(events=pl.len(), late=late.sum())
    events, came_late = delta.collect(query, workspace.events(entity)).row(0)
    refused = 0
    letters = delta.open_table(workspace.dead_letters)
    if letters is not None:
        recorded = (pl.col("recorded_at") >= hour) & (pl.col("recorded_at") < hour + HOUR)
        mine = pl.scan_delta(letters).filter((pl.col("entity") == entity) & recorded).select(pl.len())
        refused = int(delta.collect(mine, workspace.dead_letters).item())
    return {"events": events, "late": came_late, "refused": refused, "rows": events + refused}
