"""Rows that cross from one room to another, as frozen Arrow schemas: the one place that says what they hold.

Times are UTC microseconds. Names carry units where a unit is possible.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from features.declarations import Attribute, Catalog, View

TIME: Final = pa.timestamp("us", tz="UTC")
ARROW_TYPES: Final = {"int64": pa.int64(), "string": pa.string()}


def event_schema(attributes: tuple[Attribute, ...]) -> pa.Schema:
    """One row an event of an entity's log.

    ``ingest_time`` is when Plumbline could first know of the event; ``log_partition`` and ``log_offset`` name the
    event's place in its log for ever. Attributes that an event type does not carry are null.
    """
    return pa.schema(
        [
            pa.field("event_id", pa.string(), nullable=False),
            pa.field("entity_id", pa.string(), nullable=False),
            pa.field("event_type", pa.string(), nullable=False),
            pa.field("event_time", TIME, nullable=False),
            pa.field("ingest_time", TIME, nullable=False),
            pa.field("region", pa.string(), nullable=False),
            pa.field("ingest_day", pa.date32(), nullable=False),
            pa.field("log_partition", pa.int32(), nullable=False),
            pa.field("log_offset", pa.int64(), nullable=False),
            *(pa.field(attribute.name, ARROW_TYPES[attribute.dtype]) for attribute in attributes),
        ]
    )


DEAD_LETTER: Final = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("entity", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("content", pa.string(), nullable=False),
        pa.field("recorded_at", TIME, nullable=False),
    ]
)
"""A row that could not become an event: the file, its row number from 0, one line of reason, the row as JSON."""


def profile_schema(catalog: Catalog, profile: str) -> pa.Schema:
    """One row for each (entity, valid_from): values that hold from ``valid_from``, known from ``created_time``."""
    return pa.schema(
        [
            pa.field("entity_id", pa.string(), nullable=False),
            pa.field("valid_from", TIME, nullable=False),
            pa.field("created_time", TIME, nullable=False),
            *(pa.field(entry.name, ARROW_TYPES[entry.dtype]) for entry in catalog.profile(profile).fields),
        ]
    )


def state_schema() -> pa.Schema:
    """State of one entity as known at ``now``: the bytes the online store would have held."""
    return pa.schema(
        [
            pa.field("entity_id", pa.string(), nullable=False),
            pa.field("now", TIME, nullable=False),
            pa.field("state", pa.large_binary(), nullable=False),
        ]
    )


def training_schema(catalog: Catalog, view: View) -> pa.Schema:
    """TrainingRow: inputs of the graph at (entity, now), the label, and what was known of the label.

    ``matured`` is false where the horizon had not passed by ``known_at``; ``label`` is then null. ``observed_until``
    is the last instant whose events the label has seen. ``split`` is ``train``,
    ``validation``, ``embargo`` (between train and test, for the refit alone) or ``test``.
    """
    values = (*catalog.profile_fields_of(view), *view.request)
    return pa.schema(
        [
            *state_schema(),
            *(pa.field(entry.name, ARROW_TYPES[entry.dtype]) for entry in values),
            *LABEL_FIELDS,
            pa.field("split", pa.string(), nullable=False),
        ]
    )


LABEL_FIELDS: Final = (
    pa.field("label", pa.int8()),
    pa.field("matured", pa.bool_(), nullable=False),
    pa.field("observed_until", TIME, nullable=False),
)
