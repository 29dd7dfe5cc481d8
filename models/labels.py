"""Delayed labels and populations, both strictly as known at a time.

A label at (entity, now) asks whether an outcome happened in (now, now + horizon]. It is matured once the horizon and the
label delay have passed by ``known_at``; before that it is null, also where an outcome has been seen already: the rows that
answer early are the positive ones, and training on them alone would overstate the rate. ``observed_until`` tells how far the
outcome is known, for methods that learn from censored rows.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from features.declarations import Condition
from features.layout import US_PER_S
from features.rows import LABEL_FIELDS
from models.specs import LabelSpec, Population

Ints = NDArray[np.int64]


def label_rows(events: pa.Table, label: LabelSpec, entity_ids: pa.Array, now_us: Ints, *, known_at_us: int) -> pa.Table:
    """Label rows by what was known at one instant.

    Args:
        events: deduplicated rows of the entity's log; columns entity_id, event_type, event_time, ingest_time and those
            named by ``label.where``.
        label: the outcome.
        entity_ids: (n,) strings.
        now_us: (n,) UTC microseconds.
        known_at_us: no event with a later ingest_time is looked at.
    Returns:
        (n,) rows of ``features.rows.LABEL_FIELDS`` in the order given; ``observed_until`` is the instant up to which the
        outcome is known, label delay allowed for, within [now, now + horizon].
    """
    outcomes = _times(events, label.outcome, label.where).filter(pl.col("ingest_us") <= known_at_us)
    horizon_us, delay_us = label.horizon_s * US_PER_S, label.label_delay_s * US_PER_S
    rows = pl.DataFrame({"entity_id": pl.Series(entity_ids), "now_us": now_us}).with_row_index("row").sort("now_us")
    following = rows.join_asof(
        outcomes.select("entity_id", "event_us").sort("event_us"), left_on="now_us", right_on="event_us", by="entity_id",
        strategy="forward", allow_exact_matches=False, coalesce=False, check_sortedness=False,
    ).sort("row")  # fmt: skip
    occurs = (following["event_us"] - following["now_us"] <= horizon_us).fill_null(value=False).to_numpy()
    value = occurs if label.positive == "occurs" else ~occurs
    matured = now_us + horizon_us + delay_us <= known_at_us
    observed_until = np.clip(known_at_us - delay_us, now_us, now_us + horizon_us)
    fields = {field.name: field.type for field in LABEL_FIELDS}
    columns = [
        pa.array(value.astype(np.int8), fields["label"], mask=~matured),
        pa.array(matured),
        pa.array(observed_until).cast(fields["observed_until"]),
    ]
    return pa.table(columns, schema=pa.schema(LABEL_FIELDS))


def population_at(
    events: pa.Table, population: Population, now_us: Ints, *, lag_s: int, entity_ids: pa.Array
) -> NDArray[np.bool_]:
    """Whether each (entity, now) belongs to the population, from events with ingest_time + lag_s <= now.

    Args:
        events: deduplicated rows of the entity's log; columns entity_id, event_type, event_time, ingest_time.
        population: who belongs.
        now_us: (n,) UTC microseconds.
        lag_s: the view's declared lag, as for its features.
        entity_ids: (n,) strings.
    """
    rows = pl.DataFrame({"entity_id": pl.Series(entity_ids), "now_us": now_us}).with_row_index("row").sort("now_us")
    entered = _newest_known(rows, _times(events, population.entered_by), lag_s)
    belongs = entered.is_not_null()
    if population.left_by:
        left = _newest_known(rows, _times(events, population.left_by), lag_s)
        belongs &= left.is_null() | (left < entered).fill_null(value=False)
    if population.active_within_s is not None:
        age_us = pl.Series(now_us) - entered
        belongs &= (age_us <= population.active_within_s * US_PER_S).fill_null(value=False)
    known: NDArray[np.bool_] = belongs.to_numpy()
    return known


def _newest_known(rows: pl.DataFrame, events: pl.DataFrame, lag_s: int) -> pl.Series:
    """For each row, in ``row`` order, the newest event_time among its entity's events known by then; null where none is."""
    known = events.select("entity_id", "event_us", known_us=pl.col("ingest_us") + lag_s * US_PER_S).sort("known_us")
    known = known.with_columns(pl.col("event_us").cum_max().over("entity_id"))
    joined = rows.join_asof(known, left_on="now_us", right_on="known_us", by="entity_id", check_sortedness=False)
    return joined.sort("row")["event_us"]


def _times(events: pa.Table, event_types: tuple[str, ...], where: tuple[Condition, ...] = ()) -> pl.DataFrame:
    """entity_id, event_us and ingest_us of the events of these types that meet the conditions."""
    kind = pl.Series(events["event_type"])
    keep = kind.is_in(list(event_types))
    for condition in where:
        keep &= pl.Series(events[condition.attribute]).is_in(list(condition.is_in)).fill_null(value=False)
    frame = pl.DataFrame(
        {
            "entity_id": pl.Series(events["entity_id"]),
            "event_us": pl.Series(events["event_time"].cast(pa.int64())),
            "ingest_us": pl.Series(events["ingest_time"].cast(pa.int64())),
        }
    )
    return frame.filter(keep)
