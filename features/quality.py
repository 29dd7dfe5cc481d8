"""What one hour of a log looks like beside the weeks before it, as rows for monitors: volume, null rates, unseen values.

Hours are hours of ingest_time: what has arrived in one does not change any more.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import polars as pl
import pyarrow as pa

from features import delta
from features.declarations import Catalog, EventType
from features.erasure import ERASED
from features.errors import EventLogError, explain
from features.events import open_log
from features.layout import HOUR_S, US_PER_S
from features.rows import QUALITY
from features.workspace import Workspace

WEEK: Final = timedelta(days=7)
HOUR: Final = timedelta(hours=1)
WEEKS: Final = 4
MOST_NAMED: Final = 5
"""How many unseen values a row names, the most frequent first."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def measure_quality(workspace: Workspace, catalog: Catalog, entity: str, *, hour_us: int, weeks: int = WEEKS) -> pa.Table:
    """Rows of ``rows.QUALITY`` for one hour of an entity's log.

    ``volume``: events of a type; its reference are the same hours of the weeks before, as far as the log goes back.
    ``null_rate``: share of a type's events without an attribute that they may carry; reference the same, over those hours.
    ``unseen_share``: share of present values of a string attribute that no event of that type had in the weeks before.
    A type without events in the hour has its rows too: volume 0, the other values null.

    Args:
        hour_us: the hour's start, UTC microseconds.
        weeks: how many weeks before it are the reference.

    Raises:
        EventLogError: the time is no full hour, or the log is corrupted.
    """
    if hour_us % (HOUR_S * US_PER_S):
        raise EventLogError(
            explain("quality is measured by full hours", which=f"{hour_us} us", expected="the start of an hour",
                    got=f"{hour_us // US_PER_S % HOUR_S} s past it", next_step="pass the hour's start")
        )  # fmt: skip
    start = EPOCH + timedelta(microseconds=hour_us)
    events, first = _read(workspace, catalog, entity, start, weeks)
    references = [start - week * WEEK for week in range(1, weeks + 1) if first is not None and start - week * WEEK >= first]
    rows: list[dict[str, Any]] = []
    for event_type in (kind for kind in catalog.event_types if kind.entity == entity):
        mine = events.filter(pl.col("event_type") == event_type.name)
        now = _within(mine, start)
        before = [_within(mine, since) for since in references]
        common = {
            "entity": entity, "event_type": event_type.name, "start": start, "end": start + HOUR, "events": now.height,
            "reference_windows": len(before),
        }  # fmt: skip
        rows.append({**common, "metric": "volume", "value": float(now.height), **_spread([hour.height for hour in before])})
        rows += [{**common, **row} for row in _attribute_rows(catalog, event_type, now, before, mine, start)]
    return pa.Table.from_pylist(rows, schema=QUALITY)


def _read(
    workspace: Workspace, catalog: Catalog, entity: str, start: datetime, weeks: int
) -> tuple[pl.DataFrame, datetime | None]:
    """Events from ``weeks`` before an hour to its end, and when the log begins."""
    attributes = [attribute.name for attribute in catalog.attributes_of(entity)]
    empty = pl.DataFrame(schema={"event_type": pl.String, "ingest_time": pl.Datetime("us", "UTC")})
    log = open_log(workspace, catalog, entity)
    if log is None:
        return empty.with_columns(pl.lit(None).alias(name) for name in attributes), None
    path, since = workspace.events(entity), start - weeks * WEEK
    frame = pl.scan_delta(log).filter(pl.col("event_type") != ERASED)
    stored = set(frame.collect_schema().names())
    first: datetime | None = delta.collect(frame.select(pl.col("ingest_time").min()), path).item()
    days = (pl.col("ingest_day") >= since.date()) & (pl.col("ingest_day") <= (start + HOUR).date())
    span = (pl.col("ingest_time") >= since) & (pl.col("ingest_time") < start + HOUR)
    present = ["event_type", "ingest_time", *(name for name in attributes if name in stored)]
    events = delta.collect(frame.filter(days & span).select(present), path)
    return events.with_columns(pl.lit(None).alias(name) for name in attributes if name not in stored), first


def _within(events: pl.DataFrame, start: datetime) -> pl.DataFrame:
    return events.filter((pl.col("ingest_time") >= start) & (pl.col("ingest_time") < start + HOUR))


def _attribute_rows(
    catalog: Catalog,
    event_type: EventType,
    now: pl.DataFrame,
    before: list[pl.DataFrame],
    all_of_it: pl.DataFrame,
    start: datetime,
) -> list[dict[str, Any]]:
    earlier = all_of_it.filter(pl.col("ingest_time") < start)
    rows: list[dict[str, Any]] = []
    for name in event_type.attributes:
        rates = [_null_rate(hour, name) for hour in before]
        spread = _spread([rate for rate in rates if rate is not None])
        rows.append({"attribute": name, "metric": "null_rate", "value": _null_rate(now, name), **spread})
        if catalog.attribute(name).dtype == "string":
            rows.append({"attribute": name, "metric": "unseen_share", **_unseen(now[name], earlier[name])})
    return rows


def _null_rate(events: pl.DataFrame, name: str) -> float | None:
    return events[name].null_count() / events.height if events.height else None


def _unseen(now: pl.Series, earlier: pl.Series) -> dict[str, Any]:
    present = now.drop_nulls()
    unseen = present.filter(~present.is_in(earlier.drop_nulls().unique().implode()))
    named = unseen.value_counts(sort=True).head(MOST_NAMED)[unseen.name].to_list() if len(unseen) else []
    return {"value": len(unseen) / len(present) if len(present) else None, "detail": ", ".join(map(str, named))}


def _spread(values: list[float] | list[int]) -> dict[str, float | None]:
    if not values:
        return {"reference": None, "reference_low": None, "reference_high": None}
    return {"reference": sum(values) / len(values), "reference_low": float(min(values)), "reference_high": float(max(values))}
