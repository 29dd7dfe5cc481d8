"""All of one log partition that can still be read: the batch log and, behind it, the live log's tail."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from features.declarations import Catalog, View
from features.erasure import Markers, living, read_markers
from features.event_log.admission import admit
from features.event_log.compaction import BatchHistory, compacted_to, open_live_log
from features.events import DEDUPLICATION_HORIZON_S, deduplicate, find_markers, log_heads, read_events
from features.snapshots import Base, read_base
from features.workspace import Workspace


@dataclass(frozen=True)
class CompletePartition:
    """What one partition holds.

    Attributes:
        events: living events by offset, each once, rows of ``rows.event_schema``; those behind ``base`` where there is one.
        base: what is left of events that the log has dropped; None where it is whole.
        markers: who was erased, and to where.
        end_offset: events from here on are not in, because they had not come.
    """

    events: pa.Table
    base: Base | None
    markers: Markers
    end_offset: int

    def dropped_to(self, partition: int) -> int:
        """Offset up to which events are gone for good; -1 where none are."""
        return -1 if self.base is None else int(self.base.log_offsets[partition])


def read_complete(
    workspace: Workspace, catalog: Catalog, view: View, partition: int, *, entity_ids: pa.Array | None = None
) -> CompletePartition:
    """Read one partition of the log of a view's entity type.

    A log on Kafka is read as far as it has been compacted.

    Args:
        entity_ids: events of these entities only; None keeps all.

    Raises:
        EventLogError: a log is damaged or was written under another contract.
    """
    entity, base = view.entity, read_base(workspace, catalog, view)
    has_tail = workspace.live_log(entity).exists()
    if has_tail:
        with open_live_log(workspace, catalog, entity) as log:
            start, end = compacted_to(log, workspace, catalog, entity, partition), log.end_offset(partition)
            batches = log.read(partition, start, end - start) if end > start else []
        if batches:
            end = int(batches[-1]["log_offset"][-1].as_py()) + 1
        tail = admit(batches, catalog, entity, partition)
    else:
        _, recorded = BatchHistory(workspace.root, catalog, entity).markers(partition, 0)
        start = end = max(recorded, int(log_heads(workspace, catalog, entity)[0][partition]))
        tail = admit([], catalog, entity, partition)
    batch = read_events(workspace, catalog, entity, partition=partition)
    # A compaction since the first look has moved events that the tail has already given.
    batch = batch.filter(pc.less(batch["log_offset"], start))
    markers = find_markers(workspace, catalog, entity, partition=partition).joined(read_markers(tail.markers))
    events = pa.concat_tables([batch, tail.events.cast(batch.schema)])
    if entity_ids is not None:
        events = events.filter(pc.is_in(events["entity_id"], value_set=entity_ids))
    alive = living(events, markers)
    once = deduplicate(alive, horizon_s=DEDUPLICATION_HORIZON_S) if base is None else base.after(alive)
    return CompletePartition(once, base, markers, end)
