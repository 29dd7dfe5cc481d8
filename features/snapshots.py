"""Snapshots: the state of a view's entities at a position of the log, kept when the events before it are dropped.

A snapshot and the events behind its position give the bytes that the whole log gave: states merge, whatever the cut. For that
it holds more than states: which events of the last de-duplication horizon were counted, so that a late copy is still known as
one, and when each entity last had an event of each type, by which populations are drawn.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from features import layout
from features.codec import decode_states, encode_states
from features.declarations import Catalog, View
from features.erasure import Markers
from features.errors import EventLogError, StateError, explain
from features.events import DEDUPLICATION_HORIZON_S, PARTIAL, deduplicate, expired_to, find_markers
from features.rows import TIME
from features.tiles import Ints, fold, plan_fold
from features.workspace import Workspace

IDENTITY: Final = ("entity_id", "event_id", "ingest_time", "log_offset")
_COUNTED: Final = pa.struct([("event_id", pa.string()), ("ingest_time", TIME), ("log_offset", pa.int64())])
_LATEST: Final = pa.struct([("event_type", pa.string()), ("event_time", TIME)])
SCHEMA: Final = pa.schema(
    [
        pa.field("entity_id", pa.string(), nullable=False),
        pa.field("state", pa.large_binary(), nullable=False),
        pa.field("counted", pa.list_(_COUNTED), nullable=False),
        pa.field("latest", pa.list_(_LATEST), nullable=False),
    ]
)


@dataclass(frozen=True)
class Snapshot:
    """One view's entities of one log partition.

    Attributes:
        log_offset: the position: every event up to it is in; -1 for that of no event at all.
        ingest_us: ingest_time of that event, UTC microseconds.
        entities: rows of ``SCHEMA``, each entity once.
    """

    log_offset: int
    ingest_us: int
    entities: pa.Table

    def after(self, events: pa.Table) -> pa.Table:
        """The living events behind the position that are no repeats, neither of each other nor of what was counted.

        Args:
            events: rows of ``rows.event_schema`` of this partition, those before the position too or not.
        """
        if self.log_offset < 0:
            return deduplicate(events, horizon_s=DEDUPLICATION_HORIZON_S)
        tail = events.filter(pc.greater(events["log_offset"], self.log_offset))
        return drop_counted(self.counted(), tail)

    def counted(self) -> pa.Table:
        """``IDENTITY`` of the events that were counted within one de-duplication horizon before the position."""
        return _unnest(self.entities, "counted").select(list(IDENTITY)).sort_by("log_offset")

    def latest_events(self) -> pa.Table:
        """(entity_id, event_type, event_time) of each entity's last event of each type up to the position."""
        return _unnest(self.entities, "latest")

    def fold_after(self, tail: pa.Table, catalog: Catalog, view: View, partition: int) -> tuple[pa.Array, pa.LargeBinaryArray]:
        """Entities and their states with the tail folded in; tail is what ``after`` gave."""
        known = self.entities["entity_id"].combine_chunks()
        names = pa.chunked_array([known, tail["entity_id"].combine_chunks()], pa.string()).unique()
        states = self.entities["state"].combine_chunks()
        empty = pa.array([b""] * (len(names) - len(known)), pa.large_binary())
        before = pa.chunked_array([states, empty], pa.large_binary()).combine_chunks()
        owner: Ints = pc.index_in(tail["entity_id"], value_set=names).to_numpy().astype(np.int64)
        offsets = np.concatenate((_header_offsets(states), np.full(len(empty), -1)))
        np.maximum.at(offsets, owner, tail["log_offset"].to_numpy())
        tiles = fold(decode_states(before), tail, owner, plan_fold(catalog.signals_of(view)))
        return names, encode_states(tiles, np.full(len(names), partition), offsets)


def drop_counted(counted: pa.Table, tail: pa.Table) -> pa.Table:
    """Events that are no repeats, neither of each other nor of those that were counted before; columns ``IDENTITY``."""
    names = tail.select(list(IDENTITY)).cast(counted.schema)
    both = pa.concat_tables([counted, names]).append_column("row", pa.array(np.arange(-counted.num_rows, tail.num_rows)))
    kept = deduplicate(both, horizon_s=DEDUPLICATION_HORIZON_S)["row"].to_numpy()
    return tail if (kept >= 0).sum() == tail.num_rows else tail.take(pa.array(kept[kept >= 0]))


@dataclass(frozen=True)
class Base:
    """What is left of the events that a log has dropped, for readers of all its partitions.

    Attributes:
        known_from_us: from here on everything can be said that the whole log could have told, UTC microseconds.
        log_offsets: position of each partition; -1 where nothing was dropped.
        entities: rows of ``SCHEMA``.
    """

    known_from_us: int
    log_offsets: Ints
    entities: pa.Table

    def after(self, events: pa.Table) -> pa.Table:
        """As ``Snapshot.after``, of any partitions; the result may stand alone as a history only together with this base."""
        behind = events["log_offset"].to_numpy() > self.log_offsets[events["log_partition"].to_numpy()]
        counted = _unnest(self.entities, "counted").select(list(IDENTITY))
        return drop_counted(counted, events.filter(pa.array(behind)))

    def latest_events(self) -> pa.Table:
        """Columns entity_id, event_type, event_time and ingest_time: each entity's last event of each type."""
        latest = _unnest(self.entities, "latest")
        known = pa.array(np.full(latest.num_rows, self.known_from_us)).cast(TIME)
        return latest.append_column("ingest_time", known)

    def states_of(self, entity_ids: pa.Array) -> tuple[list[bytes], Ints]:
        """(n,) states and log offsets in them; empty and -1 for an entity without."""
        place = pc.index_in(entity_ids, value_set=self.entities["entity_id"].combine_chunks())
        states = self.entities["state"].combine_chunks().take(place).fill_null(b"")
        return states.to_pylist(), _header_offsets(states)

    def require(self, time_us: int, which: str) -> None:
        """Refuse rows of before ``known_from_us``; raises ``EventLogError``."""
        require_after(Snapshot(-1, self.known_from_us, self.entities), time_us, which)


def read_base(workspace: Workspace, catalog: Catalog, view: View) -> Base | None:
    """What a view's rows start from where its log has dropped events; None where it is whole."""
    if not any(expired_to(workspace, catalog, view.entity, partition) >= 0 for partition in range(catalog.log_partitions)):
        return None
    parts = [read_snapshot(workspace, catalog, view, partition) for partition in range(catalog.log_partitions)]
    # An event may be dated so far ahead of its ingest_time: what happened after this moment is all there.
    known_from_us = max(part.ingest_us for part in parts) + layout.MAX_FUTURE_S * layout.US_PER_S
    offsets = np.array([part.log_offset for part in parts])
    return Base(known_from_us, offsets, pa.concat_tables([part.entities for part in parts]))


def require_whole(events: pa.Table, which: str) -> None:
    """Refuse to take what a log has left for all that it ever held.

    Raises:
        EventLogError: the events were read from a log that has dropped old ones.
    """
    if PARTIAL.items() <= (events.schema.metadata or {}).items():
        raise EventLogError(
            explain("events of before the log's retention are gone", which=which, expected="the whole log, or its snapshots",
                    got="only what the log has kept", next_step="use a longer retention, or ask for what snapshots answer")
        )  # fmt: skip


def nothing() -> Snapshot:
    """That of the log's beginning."""
    return Snapshot(-1, 0, SCHEMA.empty_table())


def read_snapshot(workspace: Workspace, catalog: Catalog, view: View, partition: int) -> Snapshot:
    """What a view's fold starts from: its newest snapshot without whoever was erased since, or ``nothing()``.

    Raises:
        EventLogError: events were dropped that no snapshot of this view holds.
        StateError: the file is damaged.
    """
    found = _read(_path(workspace, view.key, partition), catalog.view_hash(view)) or nothing()
    dropped_to = expired_to(workspace, catalog, view.entity, partition)
    if found.log_offset < dropped_to:
        raise EventLogError(
            explain("events of before the log's retention are gone", which=f"view {view.key}, partition {partition}",
                    expected=f"a snapshot of this view at offset {dropped_to} or later", got=f"one at {found.log_offset}",
                    next_step="declare a view before its events expire; one declared later needs the old files imported anew")
        )  # fmt: skip
    if found.log_offset < 0:
        return found
    return without_erased(found, find_markers(workspace, catalog, view.entity, partition=partition))


def newest_snapshot(workspace: Workspace, catalog: Catalog, entity: str, partition: int) -> Snapshot:
    """The furthest snapshot of any view of an entity: which events were counted, all of them know alike."""
    views = (view for view in catalog.views if view.entity == entity)
    found = (_read(_path(workspace, view.key, partition), catalog.view_hash(view)) for view in views)
    furthest = max(filter(None, found), key=lambda snapshot: snapshot.log_offset, default=nothing())
    return without_erased(furthest, find_markers(workspace, catalog, entity, partition=partition))


def require_after(snapshot: Snapshot, time_us: int, which: str) -> None:
    """Refuse to say what was known at a time of which only a later snapshot is left.

    Raises:
        EventLogError: naming ``which`` rows or store were asked for.
    """
    if time_us < snapshot.ingest_us:
        raise EventLogError(
            explain("events of that time are gone", which=which, got=f"{np.datetime64(time_us, 'us')}Z",
                    expected=f"a time from {np.datetime64(snapshot.ingest_us, 'us')}Z on, before which the log has expired",
                    next_step="ask for a later time")
        )  # fmt: skip


def without_erased(snapshot: Snapshot, markers: Markers) -> Snapshot:
    """The snapshot less the entities that a marker behind its position erased; those before it were folded in."""
    gone = markers.last.filter(pl.col("erased_to") > snapshot.log_offset)["entity_id"]
    if not len(gone):
        return snapshot
    names = gone.to_arrow().cast(pa.string())
    stays = pc.invert(pc.is_in(snapshot.entities["entity_id"], value_set=names))
    return Snapshot(snapshot.log_offset, snapshot.ingest_us, snapshot.entities.filter(stays))


@dataclass(frozen=True)
class Position:
    """Where a snapshot is to stand: an offset of one partition, and the ingest_time there, UTC microseconds."""

    partition: int
    log_offset: int
    ingest_us: int


def extend(before: Snapshot, events: pa.Table, catalog: Catalog, view: View, at: Position) -> Snapshot:
    """The snapshot at a later position.

    Args:
        events: the partition's living events up to there, those that ``before`` holds among them or not.
    """
    partition = at.partition
    tail = before.after(events)
    names, states = before.fold_after(tail, catalog, view, partition)
    since = pa.scalar(at.ingest_us - DEDUPLICATION_HORIZON_S * layout.US_PER_S, pa.int64()).cast(TIME)
    earlier = before.counted()
    counted = pa.concat_tables([earlier, tail.select(list(IDENTITY)).cast(earlier.schema)])
    seen = before.latest_events()
    latest = pa.concat_tables([seen, tail.select(seen.column_names).cast(seen.schema)])
    newest = latest.group_by(["entity_id", "event_type"]).aggregate([("event_time", "max")]).rename_columns(
        ["entity_id", "event_type", "event_time"]
    )  # fmt: skip
    recent = counted.filter(pc.greater_equal(counted["ingest_time"], since))
    entities = [names, states, _nest(recent, names, _COUNTED), _nest(newest, names, _LATEST)]
    return Snapshot(at.log_offset, at.ingest_us, pa.table(entities, schema=SCHEMA))


def write_snapshot(workspace: Workspace, catalog: Catalog, view: View, partition: int, snapshot: Snapshot) -> None:
    """Replace a partition's snapshot; it is on disk when this returns."""
    _write(_path(workspace, view.key, partition), catalog.view_hash(view), snapshot)


def purge_snapshots(workspace: Workspace, catalog: Catalog, entity: str) -> int:
    """Rewrite the snapshots that hold somebody who was erased since, also of earlier view versions; returns how many left."""
    gone = 0
    for partition in range(catalog.log_partitions):
        markers = find_markers(workspace, catalog, entity, partition=partition)
        for key in (key for view in catalog.views if view.entity == entity for key in (view.key, *view.former_keys)):
            path = _path(workspace, key, partition)
            stored, view_hash = _load(path)
            kept = without_erased(stored, markers)
            if kept is not stored:
                _write(path, view_hash, kept)
                gone += stored.entities.num_rows - kept.entities.num_rows
    return gone


def _write(path: Path, view_hash: str, snapshot: Snapshot) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {"view_hash": view_hash, "log_offset": str(snapshot.log_offset), "ingest_us": str(snapshot.ingest_us)}
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        table = snapshot.entities.replace_schema_metadata(said)
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def _read(path: Path, view_hash: str) -> Snapshot | None:
    """The snapshot in a file, if it is of the view as declared now."""
    snapshot, stored_hash = _load(path)
    return snapshot if stored_hash == view_hash else None


def _load(path: Path) -> tuple[Snapshot, str]:
    """The snapshot in a file and the hash of its view; ``nothing()`` and no hash where there is no file."""
    if not path.exists():
        return nothing(), ""
    try:
        with path.open("rb") as file:
            table = pa.ipc.open_file(file).read_all()
        said = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        entities = table.replace_schema_metadata(None).cast(SCHEMA)
        return Snapshot(int(said["log_offset"]), int(said["ingest_us"]), entities), said["view_hash"]
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise StateError(
            explain("snapshot cannot be read", which=str(path), expected="a whole file", got=str(error).splitlines()[0],
                    next_step="restore the file from its copy")
        ) from error  # fmt: skip


def _path(workspace: Workspace, view_key: str, partition: int) -> Path:
    return workspace.snapshots(view_key) / f"partition-{partition:03d}.arrow"


def _header_offsets(states: pa.LargeBinaryArray) -> Ints:
    """The log offset in each state's header; -1 for an empty state."""
    offsets = np.frombuffer(states.buffers()[1], np.int64)[states.offset : states.offset + len(states) + 1]
    found = np.full(len(states), -1, np.int64)
    present = np.flatnonzero(np.diff(offsets) > 0)
    if len(present):
        records = np.frombuffer(states.buffers()[2], "<i8")
        found[present] = records[offsets[:-1][present] // 8 + 1]
    return found


def _nest(rows: pa.Table, names: pa.Array, kind: pa.StructType) -> pa.Array:
    """Rows as one list of structs an entity, in the order of ``names``."""
    place: Ints = pc.index_in(rows["entity_id"], value_set=names).to_numpy().astype(np.int64)
    order = np.argsort(place, kind="stable")
    counts = np.bincount(place, minlength=len(names))
    offsets = pa.array(np.concatenate(([0], np.cumsum(counts))).astype(np.int32))
    taken = rows.take(pa.array(order))
    fields = [taken[field.name].combine_chunks().cast(field.type) for field in kind]
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(fields, fields=list(kind)))


def _unnest(entities: pa.Table, column: str) -> pa.Table:
    """The lists' structs as rows, with their entity."""
    lists = entities[column].combine_chunks()
    owner = pc.list_parent_indices(lists)
    flat = pc.list_flatten(lists)
    names = entities["entity_id"].combine_chunks().take(owner)
    fields = lists.type.value_type
    columns = {"entity_id": names} | {field.name: pc.struct_field(flat, field.name) for field in fields}
    return pa.table(columns)
