"""Finished features of the entities that a commit has changed, by the SavedModel that serves: for audiences and triggers.

A subscriber hears of each commit at least once while the stream lives. What changed between a commit and a crash is in the
store's changelog (``OnlineStore.changes``), from which a subscriber that keeps a cursor catches up. Quiet entities change too,
as their windows empty: who keeps derived results sweeps all entities at tile boundaries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pyarrow as pa

from features.declarations import Catalog, View
from features.online.store import OnlineStore
from features.rows import ARROW_TYPES, TIME

if TYPE_CHECKING:
    from transforms.export import Finisher


@dataclass(frozen=True)
class Subscriber:
    """Who wants to know.

    Attributes:
        saved_model: a model's or a view's window graph.
        deliver: takes rows of entity_id, now and the graph's outputs, each a list column or a plain one.
    """

    saved_model: Path
    deliver: Callable[[pa.Table], None]


def finish_entities(
    store: OnlineStore, finisher: Finisher, catalog: Catalog, view: View, entity_ids: list[str], now_us: int
) -> pa.Table:  # fmt: skip
    """Read entities' states and profile values and finish their features at ``now_us``; request fields are at their defaults.

    Returns:
        (n,) rows: entity_id, now, and each output of the graph.
    """
    found = store.get_many(entity_ids)
    profiles = [orjson.loads(profile) if profile else {} for profile in found.profiles]
    now = pa.array(np.full(len(entity_ids), now_us)).cast(TIME)
    columns = {"state": pa.array(found.states, pa.large_binary()), "now": now}
    for entry in catalog.profile_fields_of(view):
        columns[entry.name] = pa.array([profile.get(entry.name) for profile in profiles], ARROW_TYPES[entry.dtype])
    outputs = finisher(pa.table(columns))
    rows = {"entity_id": pa.array(entity_ids, pa.string()), "now": now}
    for name, values in outputs.items():
        flat = pa.array(values.reshape(-1))
        rows[name] = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.table(rows)
