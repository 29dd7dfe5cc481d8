"""In which hours of the week outcomes fell: the labels of a model of slots, as known at an instant."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.declarations import By
from features.layout import US_PER_S
from features.matching import by_codes
from features.slots import SLOTS
from models.labels import Ints, counting_outcomes, known_log
from models.specs import LabelSpec


def label_slots(
    events: pa.Table, label: LabelSpec, by: By, entity_ids: pa.Array, now_us: Ints, *, known_at_us: int
) -> pa.Array:  # fmt: skip
    """The slots of every outcome of each row within (now, now + horizon], whether the horizon has passed or not.

    Args:
        events: deduplicated rows of the entity's log, with the attributes that label and ``by`` read.
        label: the outcome.
        by: how an event's hour of the week is told, as for the tiles.
        entity_ids: (n,) strings.
        now_us: (n,) UTC microseconds.
        known_at_us: no event with a later ingest_time is looked at.
    Returns:
        (n,) lists of int16 by ascending event_time; an outcome whose local hour nobody knows is left out.
    """
    outcomes = counting_outcomes(known_log(events, label, known_at_us), label)
    rows, times_us = outcomes["event"].to_numpy().astype(np.int64), outcomes["event_us"].to_numpy()
    slot = by_codes(events, by, rows, times_us)
    told = slot < SLOTS
    ids = entity_ids.combine_chunks() if isinstance(entity_ids, pa.ChunkedArray) else entity_ids
    owner = pc.fill_null(pc.index_in(outcomes["owner"].to_arrow().cast(ids.type), value_set=ids.unique()), -1).to_numpy()
    asker = pc.index_in(ids, value_set=ids.unique()).to_numpy().astype(np.int64)
    owner, times_us, slot = owner[told].astype(np.int64), times_us[told], slot[told]
    until_us = now_us + label.horizon_s * US_PER_S
    ranks = np.unique(np.concatenate([times_us, now_us, until_us]))
    width = len(ranks) + 1
    order = np.lexsort((times_us, owner))
    key = (owner * width + np.searchsorted(ranks, times_us))[order]
    first, end = (
        np.searchsorted(key, asker * width + np.searchsorted(ranks, bound), side="right") for bound in (now_us, until_us)
    )
    counts = end - first
    starts = np.concatenate([[0], np.cumsum(counts)])
    taken = np.repeat(first - starts[:-1], counts) + np.arange(starts[-1])
    values = pa.array(slot[order][taken].astype(np.int16))
    return pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), values)
