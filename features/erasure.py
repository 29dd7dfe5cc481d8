"""Deletion markers: which events of a log are erased. Every reader of events asks this module, and no other place decides.

A marker is an event of the reserved type ``ERASED`` in the entity's own log partition. Its ``log_offset`` is the erased-to
position: events of the entity at or before it are gone. Its ``event_time`` is the erasure's moment: an event that comes
later but happened by then is old news of somebody who was erased, and is refused; without that, importing an old file
again would bring the entity back. What happens after the moment counts anew.

Markers are no events: no signal, label or population sees one. They outlive what they erase, and hold nothing but the id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.declarations import RESERVED_PREFIX

ERASED: Final = f"{RESERVED_PREFIX}erased"
"""Event type of a marker, in every log; no catalog may declare it."""

REASON: Final = "erased: it happened before its entity was erased"
"""Under which refused old events are counted; they reach no dead letter, which would keep what was to go."""

MARKER_COLUMNS: Final = ("entity_id", "event_time", "log_offset")
RULE_COLUMNS: Final = ("entity_id", "event_type", "event_time", "log_offset")
"""What the rule reads of an event."""

_SCHEMA: Final = {"entity_id": pl.String, "erased_to": pl.Int64, "erased_at_us": pl.Int64}

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Markers:
    """The markers of a log or of a part of it.

    Attributes:
        last: one row an erased entity: ``entity_id``, ``erased_to`` (offset of its last marker), ``erased_at_us`` (its latest
            moment, UTC microseconds).
    """

    last: pl.DataFrame

    def __bool__(self) -> bool:
        return self.last.height > 0

    @property
    def entity_ids(self) -> list[str]:
        return self.last["entity_id"].to_list()

    def joined(self, others: Markers) -> Markers:
        """These and others as one."""
        if not others:
            return self
        return _last_of(pl.concat([self.last, others.last]))

    def of(self, entity_ids: list[str]) -> Markers:
        """Those of some entities."""
        return Markers(self.last.filter(pl.col("entity_id").is_in(entity_ids)))


NONE: Final = Markers(pl.DataFrame(schema=_SCHEMA))
"""A log from which nobody was erased."""


def read_markers(rows: pa.Table) -> Markers:
    """Markers from their rows: columns ``MARKER_COLUMNS``, event_time as a timestamp."""
    if not rows.num_rows:
        return NONE
    return _last_of(
        pl.DataFrame({
            "entity_id": pl.Series(rows["entity_id"]).cast(pl.String),
            "erased_to": pl.Series(rows["log_offset"]).cast(pl.Int64),
            "erased_at_us": pl.Series(_micros(rows)).cast(pl.Int64),
        })
    )  # fmt: skip


def is_marker(event_types: pa.ChunkedArray) -> Mask:
    """(n,) which rows are markers."""
    mask: Mask = pc.fill_null(pc.equal(event_types, ERASED), False).to_numpy()
    return mask


def keep_living(log: pl.LazyFrame, markers: Markers) -> pl.LazyFrame:
    """The events of a log that are not erased, without the markers. This is the rule; everything else applies it.

    Args:
        log: columns ``RULE_COLUMNS`` and any others.
        markers: every marker that the reader knows of, whatever its offset.
    """
    events = log.filter(pl.col("event_type") != ERASED)
    if not markers:
        return events
    known = markers.last.lazy()
    marked = events.join(known, on="entity_id", how="left", maintain_order="left")
    after = (pl.col("log_offset") > pl.col("erased_to")) & (pl.col("event_time").dt.epoch("us") > pl.col("erased_at_us"))
    return marked.filter(pl.col("erased_to").is_null() | after).drop("erased_to", "erased_at_us")


def keep_later(rows: pl.DataFrame, markers: Markers, time: str) -> pl.DataFrame:
    """Rows of a table without offsets (events yet to be appended, profiles) that are dated after their entity's erasure.

    Args:
        rows: a column ``entity_id`` and, named by ``time``, when each row began to be true.
    """
    if not markers:
        return rows
    marked = rows.join(markers.last, on="entity_id", how="left", maintain_order="left")
    after = pl.col("erased_at_us").is_null() | (pl.col(time).dt.epoch("us") > pl.col("erased_at_us"))
    return marked.filter(after).drop("erased_to", "erased_at_us")


def living(events: pa.Table, markers: Markers) -> pa.Table:
    """``keep_living`` of a table, its rows in their order."""
    if not markers or not events.num_rows:
        return events
    ruled = pl.DataFrame({name: pl.Series(name, events[name]) for name in RULE_COLUMNS}).with_row_index("row")
    kept = keep_living(ruled.lazy(), markers).select("row").collect()["row"]
    return events if len(kept) == events.num_rows else events.take(kept.to_arrow())


def count_refused(events: pa.Table, markers: Markers) -> int:
    """How many of these events are old news: behind their entity's marker, but of before its moment."""
    if not markers or not events.num_rows:
        return 0
    places = pl.DataFrame({name: pl.Series(name, events[name]) for name in MARKER_COLUMNS})
    behind = places.join(markers.last, on="entity_id").filter(pl.col("log_offset") > pl.col("erased_to"))
    return int((behind["event_time"].dt.epoch("us") <= behind["erased_at_us"]).sum())


def separate_lives(events: pa.Table, markers: Markers) -> pa.Table:
    """Living events under ids that tell an entity's lives apart.

    An event that was erased must not make a later one its repeat: once its row is gone, nobody could know of it. So whoever
    remembers ids of events does it by these ids.
    """
    if not markers or not events.num_rows:
        return events
    ids = pl.DataFrame({"entity_id": pl.Series("entity_id", events["entity_id"]).cast(pl.String)})
    marked = ids.join(markers.last, on="entity_id", how="left", maintain_order="left")
    own = pl.format("{}\0{}", "entity_id", "erased_to")
    named = marked.select(pl.when(pl.col("erased_to").is_null()).then(pl.col("entity_id")).otherwise(own))
    at = events.column_names.index("entity_id")
    field = events.schema.field(at)
    return events.set_column(at, field, named.to_series().to_arrow().cast(field.type))


def _last_of(markers: pl.DataFrame) -> Markers:
    return Markers(markers.group_by("entity_id").agg(pl.col("erased_to").max(), pl.col("erased_at_us").max()))


def _micros(rows: pa.Table) -> pa.ChunkedArray:
    return rows["event_time"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
