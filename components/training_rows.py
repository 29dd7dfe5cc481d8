"""Training rows as known at a time: the log, the profiles and a model's spec brought together.

The rooms that take part do not know each other. Here the models room says which (entity, now) to draw and how each turned
out, the features room says what was known of each entity at its ``now``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.declarations import declarations_of
from components.joined_rows import join_as_known
from features import delta
from features.declarations import Catalog, View
from features.errors import explain
from features.events import DEDUPLICATION_HORIZON_S, deduplicate, read_events
from features.layout import US_PER_S
from features.point_in_time import states_as_known
from features.profiles import profiles_as_of
from features.rows import ARROW_TYPES, EARLIER_LABEL_FIELDS, SLOT_FIELDS, TIME, training_schema
from features.snapshots import Base, read_base
from features.workspace import Workspace
from models.cutoffs import EMBARGO, TRAIN, VALIDATION, Past, Sample, draw_cold_copies, sample_rows
from models.errors import TrainingError
from models.labels import label_rows
from models.slot_labels import label_slots
from models.specs import ModelSpec, load_spec

ROW_GROUP_ROWS: Final = 50_000


@dataclass(frozen=True)
class DataVersions:
    """What a run reads, so that a record can name it.

    Attributes:
        catalog, view, view_hash: the declarations.
        tables: Delta version by table, the event log and every profile; -1 where nothing was ever written.
        log_end_us: newest ingest_time of the event log, UTC microseconds: what is not in by then is not known.
    """

    catalog: str
    view: str
    view_hash: str
    tables: dict[str, int]
    log_end_us: int

    def as_record(self) -> dict[str, Any]:
        """For a run record: one flat mapping."""
        own = {"catalog": self.catalog, "view": self.view, "view_hash": self.view_hash, "log_end_us": self.log_end_us}
        return {**own, **self.tables}


def describe_data(workspace: Workspace, model: str) -> DataVersions:
    """The versions of everything that a model's training rows are made from.

    Raises:
        TrainingError: the event log is empty.
        PlumblineError: the model is unknown, or a table cannot be read.
    """
    catalog, view = declarations_of(model)
    paths = {f"events/{view.entity}": workspace.events(view.entity)}
    joined = {catalog.view(join.view).entity for join in view.joins}
    paths |= {f"events/{entity}": workspace.events(entity) for entity in joined}
    paths |= {f"profiles/{name}": workspace.profile(name) for name in view.profiles}
    opened = {name: delta.open_table(path) for name, path in paths.items()}
    ingest_time = read_events(workspace, catalog, view.entity, columns=["ingest_time"])["ingest_time"]
    if not len(ingest_time):
        raise TrainingError(
            explain(
                "event log is empty",
                which=str(workspace.events(view.entity)),
                expected=f"events of entity {view.entity!r}",
                got="none",
                next_step="import events with `plumb events import`",
            )
        )
    return DataVersions(
        catalog=catalog.name,
        view=view.key,
        view_hash=catalog.view_hash(view),
        log_end_us=pc.max(ingest_time.cast(pa.int64())).as_py(),
        tables={name: -1 if table is None else table.version() for name, table in opened.items()},
    )


def build_training_rows(workspace: Workspace, model: str, known_at_us: int, path: Path) -> dict[str, Any]:
    """Write a model's training rows to ``path``, one Parquet file of ``training_schema``; it appears whole or not at all.

    Nothing enters that became known after ``known_at_us``. Where the log ends before it, or it is 0, the log's end takes its
    place: silence after the end of the log is no evidence that nothing happened.

    Returns:
        Counts by split and the data versions, for the artifact's metadata.
    Raises:
        PlumblineError: the model is unknown, the log is empty, or the history is too short.
    """
    spec = load_spec(model)
    catalog, view = declarations_of(model)
    versions = describe_data(workspace, model)
    known_at_us = min(known_at_us or versions.log_end_us, versions.log_end_us)
    log = read_events(workspace, catalog, view.entity, known_by_us=known_at_us)
    base = read_base(workspace, catalog, view)
    if base is not None:
        base.require(known_at_us, f"training rows of model {model!r}")
    events = deduplicate(log, horizon_s=DEDUPLICATION_HORIZON_S) if base is None else base.after(log)
    sample = sample_rows(events, spec, lag_s=view.lag_s, known_at_us=known_at_us, past=_past_of(base, view))
    columns = {
        "entity_id": sample.entity_ids,
        "now": pa.array(sample.now_us).cast(TIME),
        "state": states_as_known(events, catalog, view, sample.entity_ids, sample.now_us, base),
        "split": pa.array(sample.split.tolist(), pa.string()),
        **dict(read_profiles(workspace, catalog, view, sample)),
        **dict(read_requests(events, view, sample)),
        **read_joins(workspace, events, catalog, view, sample),
        **label_columns(events, spec, sample, known_at_us),
        **slot_columns(events, catalog, spec, sample, known_at_us),
    }
    schema = pa.schema([*training_schema(catalog, view), *(SLOT_FIELDS if spec.slots else ())])
    rows = add_cold_copies(pa.table([columns[field.name] for field in schema], schema=schema), catalog, view, sample, spec)
    partial = path.with_name(f"{path.name}.partial")
    pq.write_table(rows, partial, row_group_size=ROW_GROUP_ROWS)
    partial.replace(path)
    return {
        **versions.as_record(),
        "known_at_us": known_at_us,
        "test_begins_us": sample.test_begins_us,
        "events": log.num_rows,
        "rows": rows.num_rows,
        **count_splits(rows),
    }


def _past_of(base: Base | None, view: View) -> Past | None:
    """What is left of dropped events, for who is drawn; a row sees what was known a lag before it."""
    return None if base is None else Past(base.known_from_us + view.lag_s * US_PER_S, base.latest_events())


def label_columns(events: pa.Table, spec: ModelSpec, sample: Sample, known_at_us: int) -> dict[str, pa.Array]:
    """``LABEL_FIELDS`` and ``EARLIER_LABEL_FIELDS`` of a sample.

    The label of a row to train or validate on is the one known when the test begins, also where a straggler has changed
    it since: nobody evaluated there could have learned from that.
    """
    final, earlier = (
        label_rows(events, spec.label, sample.entity_ids, sample.now_us, known_at_us=at_us, touch=sample.touch)
        for at_us in (known_at_us, sample.test_begins_us)
    )
    learned = pa.array(np.isin(sample.split, (TRAIN, VALIDATION)))
    before_test = pa.array(np.isin(sample.split, (TRAIN, VALIDATION, EMBARGO)))
    columns = {name: final[name] for name in final.column_names}
    columns["label"] = pc.if_else(learned, earlier["label"], final["label"])
    for field in EARLIER_LABEL_FIELDS:
        columns[field.name] = pc.if_else(before_test, earlier[field.name.removeprefix("earlier_")], None)
    return columns


def slot_columns(
    events: pa.Table, catalog: Catalog, spec: ModelSpec, sample: Sample, known_at_us: int
) -> dict[str, pa.Array]:  # fmt: skip
    """``SLOT_FIELDS`` of a sample, for a model of hours of the week; else none."""
    if spec.slots is None:
        return {}
    by = catalog.signal(spec.slots.acts).by
    assert by is not None  # the view finishes the signal by hour of the week, or nothing is learned
    moments = (known_at_us, sample.test_begins_us)
    slots = (label_slots(events, spec.label, by, sample.entity_ids, sample.now_us, known_at_us=at_us) for at_us in moments)
    return dict(zip((field.name for field in SLOT_FIELDS), slots, strict=True))


def add_cold_copies(rows: pa.Table, catalog: Catalog, view: View, sample: Sample, spec: ModelSpec) -> pa.Table:
    """The rows and, after them, copies of some with an empty state and default profile values; labels stay."""
    chosen, split = draw_cold_copies(sample, spec.cutoffs)
    copies = rows.take(pa.array(chosen))
    unknown: dict[str, Any] = {"state": b""}
    unknown |= {entry.name: entry.default for entry in catalog.profile_fields_of(view)}
    columns = {name: pa.repeat(pa.scalar(value, rows.schema.field(name).type), len(chosen)) for name, value in unknown.items()}
    columns["split"] = pa.array(split.tolist(), pa.string())
    filled = [columns.get(name, copies[name]) for name in rows.column_names]
    return pa.concat_tables([rows, pa.table(filled, schema=rows.schema)])


def read_profiles(workspace: Workspace, catalog: Catalog, view: View, sample: Sample) -> Iterator[tuple[str, pa.Array]]:
    """Profile values as known at each row's ``now``, by name."""
    for profile in view.profiles:
        values = profiles_as_of(workspace, catalog, profile, sample.entity_ids, sample.now_us)
        yield from zip(values.column_names, values.columns, strict=True)


def read_requests(events: pa.Table, view: View, sample: Sample) -> Iterator[tuple[str, pa.Array]]:
    """Request fields: attributes of the same name where rows are drawn at events; else, and where null, the defaults,
    because nothing in the log says what a caller would have sent."""
    for entry in view.request:
        default = pa.scalar(entry.default, ARROW_TYPES[entry.dtype])
        if sample.touch is not None and entry.name in events.column_names:
            yield entry.name, events[entry.name].take(pa.array(sample.touch)).fill_null(default)
        else:
            yield entry.name, pa.repeat(default, len(sample.entity_ids))


def read_joins(
    workspace: Workspace, events: pa.Table, catalog: Catalog, view: View, sample: Sample
) -> dict[str, pa.Array]:  # fmt: skip
    """Request fields that joins fill: what was known at each row's ``now`` of whom its touch names."""
    columns: dict[str, pa.Array] = {}
    for join in view.joins:
        if sample.touch is not None and join.key in events.column_names:
            keys = events[join.key].take(pa.array(sample.touch)).combine_chunks()
            columns |= join_as_known(workspace, catalog, join, keys, seen_us=sample.now_us, now_us=sample.now_us)
    return columns


def count_splits(rows: pa.Table) -> dict[str, int]:
    """Rows and positive labels by split, as ``rows_train``, ``positives_train`` and so on."""
    split, positive = np.array(rows["split"].to_pylist()), np.array(rows["label"].fill_null(0))
    counts = {}
    for name in sorted(set(split.tolist())):
        counts[f"rows_{name}"] = int((split == name).sum())
        counts[f"positives_{name}"] = int(positive[split == name].sum())
    return counts
