"""What joins would have put into a request at a time: states of the joined entities from their own log, finished."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.declarations import Catalog
from features.events import read_events
from features.joins import Join
from features.point_in_time import states_as_known
from features.snapshots import read_base
from features.workspace import Workspace

Ints = NDArray[np.int64]


def join_as_known(
    workspace: Workspace, catalog: Catalog, join: Join, keys: pa.Array, *, seen_us: Ints, now_us: Ints
) -> dict[str, pa.Array]:  # fmt: skip
    """Each field of a join for n rows.

    Args:
        keys: (n,) ids of joined entities; empty or null for none.
        seen_us: (n,) what was known by then is all that a row may rest on, UTC microseconds.
        now_us: (n,) when the windows end.
    Returns:
        (n,) int64 each.
    Raises:
        EventLogError: the log has dropped events that a row would have to see.
    """
    # TensorFlow takes seconds to load, and most models join nothing.
    from transforms.joined import JoinedGraph

    view = catalog.view(join.view)
    named = pc.fill_null(pc.not_equal(keys, ""), False)
    rows = np.flatnonzero(named.to_numpy(zero_copy_only=False))
    states = [b""] * len(keys)
    if len(rows):
        # As known by the newest row: an event that came later can touch none.
        events = read_events(workspace, catalog, view.entity, known_by_us=int(seen_us[rows].max()))
        base = read_base(workspace, catalog, view)
        found = states_as_known(events, catalog, view, keys.take(pa.array(rows)), seen_us[rows], base)
        for row, state in zip(rows.tolist(), found.to_pylist(), strict=True):
            states[row] = state
    return {name: pa.array(values) for name, values in JoinedGraph(catalog, join).finish(states, now_us).items()}
