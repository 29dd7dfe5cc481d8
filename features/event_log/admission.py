"""Which of a log's rows are events of the catalog: one rule for the stream and for the batch log, as vectorised checks.

A producer may send attributes that nobody declared yet: they stay in the log and are ignored until they are declared. A
declared attribute of another type, an undeclared event type or region is *quarantined*: the event may be right and the
declaration behind. Everything else that is wrong is a *dead letter*. Both keep the whole row and its reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.declarations import Attribute, Catalog
from features.erasure import ERASED
from features.errors import EventLogError, explain
from features.event_log.port import SENT
from features.layout import DAY_S, MAX_FUTURE_S, US_PER_S
from features.online.store import MAX_ENTITY_ID_BYTES
from features.partitions import partition_of
from features.rows import ARROW_TYPES, TIME, event_schema

QUARANTINED: Final = "quarantined: "
"""Reasons that begin so ask for a declaration; the others for another producer."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Admitted:
    """What one batch of the log held.

    Attributes:
        events: rows of ``rows.event_schema`` in offset order.
        markers: deletion markers (``features.erasure``), rows of the same schema.
        refused: log_offset, ingest_time, reason, content (the row as JSON) of the others.
        new_attributes: names that came and are not declared.
    """

    events: pa.Table
    markers: pa.Table
    refused: pa.Table
    new_attributes: frozenset[str]


REFUSED: Final = pa.schema(
    [
        pa.field("log_offset", pa.int64(), nullable=False),
        pa.field("ingest_time", TIME, nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("content", pa.string(), nullable=False),
    ]
)


class _Reasons:
    """The first reason found against each row."""

    def __init__(self, rows: int) -> None:
        self.code: NDArray[np.int16] = np.zeros(rows, np.int16)
        self.texts = [""]

    def refuse(self, wrong: Mask, text: str) -> None:
        if wrong.any():
            self.texts.append(text)
            self.code[wrong & (self.code == 0)] = len(self.texts) - 1


def admit(batches: Iterable[pa.Table], catalog: Catalog, entity: str, partition: int) -> Admitted:
    """Check rows of one log partition.

    Args:
        batches: what ``EventLog.read`` returned.
    """
    schema = event_schema(catalog.attributes_of(entity))
    # Many small appends cost as much as a few large ones once those of one schema stand together.
    alike = (pa.concat_tables(group).combine_chunks() for _, group in groupby(batches, key=lambda batch: batch.schema))
    admitted = [_admit_one(batch, catalog, entity, partition) for batch in alike]
    return Admitted(
        pa.concat_tables([schema.empty_table(), *(one.events for one in admitted)]),
        pa.concat_tables([schema.empty_table(), *(one.markers for one in admitted)]),
        pa.concat_tables([REFUSED.empty_table(), *(one.refused for one in admitted)]),
        frozenset().union(*(one.new_attributes for one in admitted)),
    )


def _admit_one(batch: pa.Table, catalog: Catalog, entity: str, partition: int) -> Admitted:
    attributes = catalog.attributes_of(entity)
    schema = event_schema(attributes)
    reasons = _Reasons(batch.num_rows)
    columns = {name: _envelope(batch, name, schema.field(name).type, reasons) for name in SENT}
    columns |= {attribute.name: _attribute(batch, attribute, catalog, entity, reasons) for attribute in attributes}
    markers = _check_declared(columns, catalog, entity, reasons)
    _check_times(columns["event_time"], batch["ingest_time"], markers, reasons)
    _check_entities(columns["entity_id"], catalog.log_partitions, partition, reasons)
    days = pc.divide(batch["ingest_time"].cast(pa.int64()), DAY_S * US_PER_S).cast(pa.int32()).cast(pa.date32())
    columns |= {"ingest_time": batch["ingest_time"], "ingest_day": days, "log_offset": batch["log_offset"]}
    columns["log_partition"] = pa.chunked_array([np.full(batch.num_rows, partition, np.int32)])
    new = frozenset(batch.column_names) - frozenset(schema.names)
    # Built without nullability first: a row that lacks a required value is refused just below.
    table = pa.table([columns[name] for name in schema.names], names=schema.names)
    wrong = reasons.code > 0
    if not wrong.any() and not markers.any():
        return Admitted(table.cast(schema), schema.empty_table(), REFUSED.empty_table(), new)
    events, marked = (table.filter(pa.array(~wrong & (markers == kind))).cast(schema) for kind in (False, True))
    return Admitted(events, marked, _refused(batch, reasons, wrong), new)


def _envelope(batch: pa.Table, name: str, kind: pa.DataType, reasons: _Reasons) -> pa.ChunkedArray:
    if name not in batch.column_names:
        reasons.refuse(np.ones(batch.num_rows, bool), f"{name} is missing")
        return pa.chunked_array([pa.nulls(batch.num_rows, kind)])
    column = batch[name]
    if not _fits(column.type, kind):
        reasons.refuse(_valid(column), f"{name} is {column.type}, not {kind}")
        column = pa.chunked_array([pa.nulls(batch.num_rows, kind)])
    reasons.refuse(~_valid(column), f"{name} is missing")
    return column.cast(kind)


def _attribute(batch: pa.Table, attribute: Attribute, catalog: Catalog, entity: str, reasons: _Reasons) -> pa.ChunkedArray:
    """A declared attribute's values on events of the types that carry it, null elsewhere."""
    kind = ARROW_TYPES[attribute.dtype]
    nothing = pa.chunked_array([pa.nulls(batch.num_rows, kind)])
    if attribute.name not in batch.column_names:
        return nothing
    column = batch[attribute.name]
    if not _fits(column.type, kind):
        changed = f"{QUARANTINED}attribute {attribute.name} changed its type from {attribute.dtype} to {column.type}"
        reasons.refuse(_valid(column), changed)
        return nothing
    carriers = [each.name for each in catalog.event_types if each.entity == entity and attribute.name in each.attributes]
    if column.null_count == batch.num_rows or "event_type" not in batch.column_names:
        return nothing
    if not _fits(batch["event_type"].type, pa.string()):
        return nothing
    carried = pc.is_in(batch["event_type"], value_set=pa.array(carriers, batch["event_type"].type))
    return pc.if_else(carried, column.cast(kind), pa.scalar(None, kind))


def _check_declared(columns: dict[str, pa.ChunkedArray], catalog: Catalog, entity: str, reasons: _Reasons) -> Mask:
    """Which rows are markers; a log without any is not searched for them, because an undeclared type shows first."""
    markers = np.zeros(reasons.code.shape, bool)
    kinds = [kind.name for kind in catalog.event_types if kind.entity == entity]
    for name, declared in (("event_type", kinds), ("region", list(catalog.regions))):
        unknown = ~pc.is_in(columns[name], value_set=pa.array(declared, pa.string())).to_numpy()
        if unknown.any():
            for value in columns[name].filter(pa.array(unknown)).unique().drop_null().to_pylist():
                these = pc.fill_null(pc.equal(columns[name], value), False).to_numpy()
                if (name, value) == ("event_type", ERASED):
                    markers |= these
                else:
                    reasons.refuse(these, f"{QUARANTINED}{name.replace('_', ' ')} {value[:60]} is not declared")
    return markers


def _check_times(event_time: pa.ChunkedArray, ingest_time: pa.ChunkedArray, markers: Mask, reasons: _Reasons) -> None:
    """A marker may be dated ahead: its moment is that of the latest event which it erases, by whichever clock."""
    event_us = pc.fill_null(event_time.cast(pa.int64()), 0).to_numpy()
    ahead = event_us - ingest_time.cast(pa.int64()).to_numpy() > MAX_FUTURE_S * US_PER_S
    reasons.refuse(ahead & ~markers, f"event_time is more than {MAX_FUTURE_S} s after ingest_time")
    reasons.refuse(event_us < 0, "event_time is before 1970")


def _check_entities(entity_ids: pa.ChunkedArray, partitions: int, partition: int, reasons: _Reasons) -> None:
    ids = pc.fill_null(entity_ids, "")
    lengths = pc.binary_length(ids).to_numpy()
    reasons.refuse((lengths == 0) | (lengths > MAX_ENTITY_ID_BYTES), f"entity_id is not of 1 to {MAX_ENTITY_ID_BYTES} bytes")
    reasons.refuse(partition_of(ids, partitions) != partition, f"entity_id does not belong to partition {partition}")


def _fits(found: pa.DataType, declared: pa.DataType) -> bool:
    """Whether every value of the found type is one of the declared type."""
    if pa.types.is_null(found) or found == declared:
        return True
    if pa.types.is_dictionary(found):
        return _fits(found.value_type, declared)
    if pa.types.is_string(declared):
        return bool(pa.types.is_large_string(found) or pa.types.is_string_view(found))
    if pa.types.is_timestamp(declared):
        return bool(pa.types.is_timestamp(found) and found.tz is not None and found.unit in ("s", "ms", "us"))
    return bool(pa.types.is_integer(found) and found != pa.uint64())


def _valid(column: pa.ChunkedArray) -> Mask:
    valid: Mask = pc.is_valid(column).to_numpy()
    return valid


def _refused(batch: pa.Table, reasons: _Reasons, wrong: Mask) -> pa.Table:
    rows = batch.filter(pa.array(wrong))
    content = [
        orjson.dumps(row, default=_as_text).decode() for row in rows.drop_columns(["ingest_time", "log_offset"]).to_pylist()
    ]
    texts = [reasons.texts[code] for code in reasons.code[wrong].tolist()]
    return pa.table([rows["log_offset"], rows["ingest_time"], texts, content], schema=REFUSED)


def _as_text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def count_reasons(refused: pa.Table) -> dict[str, int]:
    """How many rows each reason refused."""
    return {entry["values"]: entry["counts"] for entry in refused["reason"].value_counts().to_pylist()}


def require_partitions(partitions: int, catalog: Catalog) -> None:
    """A log and its catalog must agree on the number of partitions.

    Raises:
        EventLogError: they do not.
    """
    if partitions != catalog.log_partitions:
        raise EventLogError(
            explain("event log has another number of partitions", which=f"catalog {catalog.name!r}",
                    expected=str(catalog.log_partitions), got=str(partitions), next_step="use the log's own catalog")
        )  # fmt: skip
