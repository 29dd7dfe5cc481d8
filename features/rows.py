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


FRESHNESS: Final = pa.schema(
    [
        pa.field("view_key", pa.string(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("measured_at", TIME, nullable=False),
        pa.field("as_of", TIME),
        pa.field("log_offset", pa.int64(), nullable=False),
        pa.field("age_s", pa.float64()),
        pa.field("freshness_sla_s", pa.int64(), nullable=False),
        pa.field("late", pa.bool_(), nullable=False),
        pa.field("half_filled", pa.bool_(), nullable=False),
    ]
)
"""One shard of a view's online store, how old it was when it was looked at, and whether that breaks the view's promise."""

QUALITY: Final = pa.schema(
    [
        pa.field("entity", pa.string(), nullable=False),
        pa.field("event_type", pa.string(), nullable=False),
        pa.field("attribute", pa.string()),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("start", TIME, nullable=False),
        pa.field("end", TIME, nullable=False),
        pa.field("events", pa.int64(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("reference", pa.float64()),
        pa.field("reference_low", pa.float64()),
        pa.field("reference_high", pa.float64()),
        pa.field("reference_windows", pa.int32(), nullable=False),
        pa.field("detail", pa.string()),
    ]
)
"""One measure of one hour of a log: ``volume``, ``null_rate`` or ``unseen_share``, beside the same in earlier weeks.

``reference`` is the mean over ``reference_windows`` earlier windows, low and high their extremes; null where there is none.
"""


PREDICTION: Final = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("answered_at", TIME, nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("model_version", pa.int64(), nullable=False),
        pa.field("view_key", pa.string(), nullable=False),
        pa.field("revision", pa.string(), nullable=False),
        pa.field("entity_id", pa.string(), nullable=False),
        pa.field("now", TIME, nullable=False),
        pa.field("log_partition", pa.int32(), nullable=False),
        pa.field("log_offset", pa.int64(), nullable=False),
        pa.field("shard_offset", pa.int64(), nullable=False),
        pa.field("profiles_as_of", TIME),
        pa.field("state_hash", pa.int64(), nullable=False),
        pa.field("profile_hash", pa.int64(), nullable=False),
        pa.field("inputs_hash", pa.int64(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("cold", pa.bool_(), nullable=False),
        pa.field("degraded", pa.string()),
        pa.field("state", pa.large_binary()),
        pa.field("fields", pa.string()),
        pa.field("integers", pa.list_(pa.int64())),
        pa.field("finished", pa.list_(pa.float32())),
        pa.field("transformed", pa.list_(pa.float32())),
    ]
)
"""One entity of an answered request: what the model saw of it, by name and by hash, and what it said.

``log_offset`` is the last event of the entity that its state holds; ``shard_offset`` how far its whole shard had been read,
so that an event the stream lost is missed too. ``profiles_as_of`` is the time as of which the store's profile values stood,
null where they were of no single time. ``features.fingerprints`` says what the hashes stand for. The last five columns are
null but for a sample of whole rows: state bytes, profile values and request fields as one JSON object, the graph's outputs.
"""


SERVED_LABEL: Final = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("entity_id", pa.string(), nullable=False),
        pa.field("answered_at", TIME, nullable=False),
        pa.field("now", TIME, nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("model_version", pa.int64(), nullable=False),
        pa.field("revision", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("label", pa.int8(), nullable=False),
        pa.field("matured_at", TIME, nullable=False),
        pa.field("known_at", TIME, nullable=False),
    ]
)
"""What became of a logged prediction: the first columns are its own, ``label`` is 0 or 1 as known at ``known_at``.

``matured_at`` is ``now`` plus the label's horizon and delay; ``known_at`` is never before it. A row is written once and never
changed, so an event that reaches the log later than the label's delay allows for does not alter it.
"""


SKEW: Final = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("model_version", pa.int64(), nullable=False),
        pa.field("view_key", pa.string(), nullable=False),
        pa.field("measured_at", TIME, nullable=False),
        pa.field("start", TIME, nullable=False),
        pa.field("end", TIME, nullable=False),
        pa.field("comparison", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("signal", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("values", pa.int64(), nullable=False),
        pa.field("differing", pa.int64(), nullable=False),
        pa.field("differing_rows", pa.int64(), nullable=False),
        pa.field("share", pa.float64()),
        pa.field("example_entity", pa.string()),
        pa.field("example_now", TIME),
        pa.field("example", pa.string()),
    ]
)
"""How much of one signal (or field) differed between served rows and the same rows made again.

``comparison`` is ``replay``, the batch path at the offset each row names, where nothing may differ, or ``training``, the
training kernel at each row's ``now``, where lag and late events show. ``share`` is that of the values. ``start`` and ``end``
bound when the rows were answered.
"""


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

    ``split`` is one of those that ``models.cutoffs`` explains: ``train``, ``validation``, ``embargo``, ``test``,
    ``censored``, ``cold``.
    """
    values = (*catalog.profile_fields_of(view), *view.request)
    return pa.schema(
        [
            *state_schema(),
            *(pa.field(entry.name, ARROW_TYPES[entry.dtype]) for entry in values),
            *LABEL_FIELDS,
            *EARLIER_LABEL_FIELDS,
            pa.field("split", pa.string(), nullable=False),
        ]
    )


LABEL_FIELDS: Final = (
    pa.field("label", pa.int8()),
    pa.field("matured", pa.bool_(), nullable=False),
    pa.field("observed_until", TIME, nullable=False),
    pa.field("outcome_time", TIME),
    pa.field("outcome_known_time", TIME),
    pa.field("closed_time", TIME),
)
"""What was known of a row's outcome by ``known_at``.

``matured`` is false where the horizon had not passed; ``label`` is then null. ``observed_until`` is the last instant whose
events are surely in. ``outcome_time`` is the event_time of the first outcome within the horizon that counts, also of a row
that has not matured, and ``outcome_known_time`` its ingest_time; null where none was known. ``closed_time`` is the event_time
of what ended the wait within the horizon; null where nothing did.
"""

SLOT_FIELDS: Final = (
    pa.field("outcome_slots", pa.list_(pa.int16()), nullable=False),
    pa.field("earlier_outcome_slots", pa.list_(pa.int16()), nullable=False),
)
"""Only of a model of hours of the week: the hour of every outcome within the horizon, as known at the end and when the test's
rows begin."""

EARLIER_LABEL_FIELDS: Final = (
    pa.field("earlier_observed_until", TIME),
    pa.field("earlier_outcome_time", TIME),
    pa.field("earlier_outcome_known_time", TIME),
    pa.field("earlier_closed_time", TIME),
)
"""The same as known when the test's rows begin, which is all that an evaluated model may have learned from; null in rows
drawn later than that. An outcome known then may have been voided since, so the later columns cannot tell."""
