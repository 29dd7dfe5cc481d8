"""Delayed labels and populations, both strictly as known at a time.

A label at (entity, now) asks whether an outcome happened in (now, now + horizon]. It is matured once the horizon and the
label delay have passed by ``known_at``; before that it is null, also where an outcome has been seen already: the rows that
answer early are the positive ones, and training on them alone would overstate the rate. ``outcome_time`` and
``observed_until`` tell what is known of a row that has not matured, for methods that learn from such rows.

Whatever decides which outcomes count (conditions, exclusions, attribution) is decided from the events known by ``known_at``
alone: the label of a row as known at any instant is ``label_rows`` with that instant.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from features.declarations import Condition
from features.errors import explain
from features.layout import US_PER_S
from features.rows import LABEL_FIELDS
from features.snapshots import require_whole
from models.errors import SpecError
from models.specs import Attribution, Exclusion, LabelSpec, Population

Ints = NDArray[np.int64]

_ATTRIBUTE: Final = "attribute:"
"""Prefix of attribute columns, so that none can take the name of another column."""


def label_rows(
    events: pa.Table, label: LabelSpec, entity_ids: pa.Array, now_us: Ints, *, known_at_us: int, touch: Ints | None = None
) -> pa.Table:
    """Label rows by what was known at one instant.

    Args:
        events: deduplicated rows of the entity's log; columns entity_id, event_type, event_time, ingest_time and those
            of ``label_attributes``.
        label: the outcome.
        entity_ids: (n,) strings.
        now_us: (n,) UTC microseconds.
        known_at_us: no event with a later ingest_time is looked at.
        touch: (n,) row numbers in ``events`` of the touches that the rows were drawn at; with attribution, an outcome
            counts for the row of its own touch alone.
    Returns:
        (n,) rows of ``features.rows.LABEL_FIELDS`` in the order given; ``observed_until`` is the instant up to which the
        outcome is known, label delay allowed for, within [now, now + horizon].
    Raises:
        SpecError: the label has an attribution and no touches are given.
    """
    log = known_log(events, label, known_at_us)
    outcomes = counting_outcomes(log, label)
    owner = pl.Series(entity_ids)
    if label.attribution is not None:
        owner = pl.Series(_require_touches(touch, label))
        outcomes = credit_last_touches(log, outcomes, label.attribution)
    horizon_us, delay_us = label.horizon_s * US_PER_S, label.label_delay_s * US_PER_S
    rows = pl.DataFrame({"owner": owner, "now_us": now_us}).with_row_index("row").sort("now_us")
    first = rows.join_asof(
        outcomes.select("owner", "event_us", "ingest_us").sort("event_us", "ingest_us"),
        left_on="now_us", right_on="event_us", by="owner", tolerance=horizon_us,
        strategy="forward", allow_exact_matches=False, coalesce=False, check_sortedness=False,
    ).sort("row")  # fmt: skip
    value = (first["event_us"].is_not_null() == (label.positive == "occurs")).to_numpy()
    matured = now_us + horizon_us + delay_us <= known_at_us
    settled = log.filter(pl.col("event_us") + delay_us <= known_at_us)
    columns = {
        "label": pa.array(value.astype(np.int8), mask=~matured),
        "matured": pa.array(matured),
        "observed_until": pa.array(np.clip(known_at_us - delay_us, now_us, now_us + horizon_us)),
        "outcome_time": first["event_us"].to_arrow(),
        "outcome_known_time": first["ingest_us"].to_arrow(),
        "closed_time": _closing_times(settled, label, owner, now_us).to_arrow(),
    }
    return pa.table([columns[field.name].cast(field.type) for field in LABEL_FIELDS], schema=pa.schema(LABEL_FIELDS))


def label_attributes(label: LabelSpec) -> tuple[str, ...]:
    """Attributes that ``label_rows`` reads from events."""
    parts = (label.exclusion, label.attribution, label.closing)
    matches = [entry.match for entry in parts if entry is not None and entry.match]
    return tuple(dict.fromkeys([condition.attribute for condition in label.where] + matches))


def counting_outcomes(log: pl.DataFrame, label: LabelSpec) -> pl.DataFrame:
    """The outcomes of a known log that meet every condition and are not void as far as the log tells; ``owner`` added."""
    outcomes = _of_types(log, label.outcome)
    for condition in label.where:
        outcomes = outcomes.filter(_meets(condition))
    if label.exclusion is not None:
        outcomes = outcomes.filter(~_are_void(log, outcomes, label.exclusion))
    return outcomes.with_columns(owner=pl.col("entity_id"))


def credit_last_touches(log: pl.DataFrame, outcomes: pl.DataFrame, attribution: Attribution) -> pl.DataFrame:
    """Outcomes that have a touch, with ``owner`` the row number of their last one in the events.

    Of touches at the same instant the one that was known last counts, and of those the one later in the log.
    """
    keys, outcomes = _matching(outcomes, attribution.match)
    _, touches = _matching(_of_types(log, attribution.touches), attribution.match)
    touches = touches.sort("event_us", "ingest_us", "event").select(*keys, "event_us", owner="event")
    credited = outcomes.drop("owner").sort("event_us").join_asof(
        touches, on="event_us", by=keys, strategy="backward", tolerance=attribution.window_s * US_PER_S,
        check_sortedness=False,
    )  # fmt: skip
    return credited.filter(pl.col("owner").is_not_null()).with_columns(pl.col("owner").cast(pl.Int64))


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
    require_whole(events, "population")
    rows = pl.DataFrame({"entity_id": pl.Series(entity_ids), "now_us": now_us}).with_row_index("row").sort("now_us")
    log = _log(events)
    entered = _newest_known(rows, _of_types(log, population.entered_by), lag_s)
    belongs = entered.is_not_null()
    if population.left_by:
        left = _newest_known(rows, _of_types(log, population.left_by), lag_s)
        belongs &= left.is_null() | (left < entered).fill_null(value=False)
    if population.active_within_s is not None:
        age_us = pl.Series(now_us) - entered
        belongs &= (age_us <= population.active_within_s * US_PER_S).fill_null(value=False)
    known: NDArray[np.bool_] = belongs.to_numpy()
    return known


def _closing_times(log: pl.DataFrame, label: LabelSpec, owner: pl.Series, now_us: Ints) -> pl.Series:
    """(n,) event_time of the first closing event after each row's ``now``, within the horizon; null where none is.

    ``log`` ends a label delay before ``known_at``: an outcome from before the closing may be under way for as long.
    """
    if label.closing is None:
        return pl.Series([None] * len(now_us), dtype=pl.Int64)
    rows = pl.DataFrame({"owner": owner, "now_us": now_us}).with_row_index("row")
    closings = _of_types(log, label.closing.event_types)
    if label.attribution is None:
        rows = rows.with_columns(entity_id=pl.col("owner"))
    else:
        rows = rows.join(log.with_columns(owner=pl.col("event").cast(pl.Int64)), on="owner", how="left", maintain_order="left")
    keys, closings = _matching(closings, label.closing.match)
    if label.closing.match:
        rows = rows.with_columns(match=pl.col(_ATTRIBUTE + label.closing.match))
    closed = rows.select("row", "now_us", *keys).sort("now_us").join_asof(
        closings.select(*keys, closed_us=pl.col("event_us")).sort("closed_us"),
        left_on="now_us", right_on="closed_us", by=keys, strategy="forward", tolerance=label.horizon_s * US_PER_S,
        allow_exact_matches=False, coalesce=False, check_sortedness=False,
    )  # fmt: skip
    return closed.sort("row")["closed_us"]


def _newest_known(rows: pl.DataFrame, events: pl.DataFrame, lag_s: int) -> pl.Series:
    """For each row, in ``row`` order, the newest event_time among its entity's events known by then; null where none is."""
    known = events.select("entity_id", "event_us", known_us=pl.col("ingest_us") + lag_s * US_PER_S).sort("known_us")
    known = known.with_columns(pl.col("event_us").cum_max().over("entity_id"))
    joined = rows.join_asof(known, left_on="now_us", right_on="known_us", by="entity_id", check_sortedness=False)
    return joined.sort("row")["event_us"]


def _are_void(log: pl.DataFrame, outcomes: pl.DataFrame, exclusion: Exclusion) -> pl.Series:
    """(outcomes,) whether a known exclusion follows each within the window."""
    keys, excluding = _matching(_of_types(log, exclusion.event_types), exclusion.match)
    matched = outcomes.with_columns(match=pl.col(_ATTRIBUTE + exclusion.match)) if exclusion.match else outcomes
    following = matched.select("event", "event_us", *keys).sort("event_us").join_asof(
        excluding.select(*keys, "event_us", void=pl.lit(value=True)).sort("event_us"), on="event_us", by=keys,
        strategy="forward", tolerance=exclusion.window_s * US_PER_S, check_sortedness=False,
    )  # fmt: skip
    return following.sort("event")["void"].fill_null(value=False)


def _matching(events: pl.DataFrame, attribute: str) -> tuple[list[str], pl.DataFrame]:
    """Names of the columns that two events must share, and the events that have them all."""
    if not attribute:
        return ["entity_id"], events
    keyed = events.with_columns(match=pl.col(_ATTRIBUTE + attribute))
    return ["entity_id", "match"], keyed.filter(pl.col("match").is_not_null())


def known_log(events: pa.Table, label: LabelSpec, known_at_us: int) -> pl.DataFrame:
    """What a label is made from: the events known by then, in log order, ``event`` being their row number."""
    return _log(events, label_attributes(label)).filter(pl.col("ingest_us") <= known_at_us)


def _log(events: pa.Table, attributes: tuple[str, ...] = ()) -> pl.DataFrame:
    columns = {
        "entity_id": pl.Series(events["entity_id"]),
        "event_type": pl.Series(events["event_type"]),
        "event_us": pl.Series(events["event_time"].cast(pa.int64())),
        "ingest_us": pl.Series(events["ingest_time"].cast(pa.int64())),
    }
    return pl.DataFrame(columns | {_ATTRIBUTE + name: pl.Series(events[name]) for name in attributes}).with_row_index("event")


def _of_types(log: pl.DataFrame, event_types: tuple[str, ...]) -> pl.DataFrame:
    return log.filter(pl.col("event_type").is_in(list(event_types)))


def _meets(condition: Condition) -> pl.Expr:
    return pl.col(_ATTRIBUTE + condition.attribute).is_in(list(condition.is_in)).fill_null(value=False)


def _require_touches(touch: Ints | None, label: LabelSpec) -> Ints:
    if touch is None:
        raise SpecError(
            explain(
                "label is attributed, but rows are not drawn at touches",
                which=f"outcome {', '.join(label.outcome)}",
                expected="cutoffs with at_events",
                got="base dates",
                next_step="set at_events, or drop the attribution",
            )
        )
    return touch
