"""What a team declares once: event types, signals, profiles and the views that serve them.

Declarations are plain frozen data. ``features.catalogs.load_catalog`` checks a catalog as a whole before anyone uses it,
so that a typing mistake stops there with one line and nothing downstream has to check again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

from features import layout
from features.errors import DeclarationError, explain
from features.joins import Join

Dtype = Literal["int64", "string"]
Named = TypeVar("Named", "Attribute", "EventType", "Signal", "Profile", "View")
Operation = Literal["count", "sum", "max", "last", "first"]

HOUR_OF_WEEK = "hour_of_week"
"""A ``By`` of this name is computed from event_time, in UTC or local: Monday 00:00 is 0, Sunday 23:00 is 167."""

_LATER = {"offset": "", "counted": (), "time_zone": "", "joins": ()}
"""Parts of declarations that came later, with what they are where nobody names them: hashes from before stay as they were."""

EVENT_COLUMNS = (
    "event_id", "entity_id", "event_type", "event_time", "ingest_time", "region", "ingest_day", "log_partition", "log_offset",
)  # fmt: skip
"""Names that no attribute may take: they are columns of every event log."""

RESERVED_PREFIX = "plumbline."
"""Event types that begin so are the log's own (``features.erasure``); no catalog may declare one."""


@dataclass(frozen=True)
class Attribute:
    """One typed value that an event may carry; an event log has one column for each.

    ``unit`` is required for integers (``cents``, ``ms``, ``items``): money and durations are never floats.
    ``pii`` names the class of personal data, if any.
    """

    name: str
    dtype: Dtype
    unit: str = ""
    pii: str = ""


@dataclass(frozen=True)
class EventType:
    """A kind of event that happens to one entity type, with the attributes it may carry."""

    name: str
    entity: str
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Condition:
    """Keep only events whose attribute is one of ``is_in``; a missing attribute never matches."""

    attribute: str
    is_in: tuple[str, ...] | tuple[int, ...]


@dataclass(frozen=True)
class By:
    """A small closed key that splits a signal: ``hour_of_week``, or a string attribute's listed values.

    Value i of ``values`` has the code i + 1; anything else, and a missing attribute, has the code 0 ("other").
    Hour of week has the codes 0 to 167. With ``offset``, an int64 attribute in minutes east of UTC, it is the hour that the
    clock showed where the event happened; an event without it has the code 168 ("unknown").
    """

    attribute: str
    values: tuple[str, ...] = ()
    offset: str = ""

    @property
    def size(self) -> int:
        """Number of codes."""
        return 168 + bool(self.offset) if self.attribute == HOUR_OF_WEEK else len(self.values) + 1

    def label(self, code: int) -> str:
        """The name of one code, as it appears in feature names."""
        if self.attribute == HOUR_OF_WEEK:
            return f"h{code:03d}" if code < 168 else "unknown"
        return "other" if code == 0 else self.values[code - 1]


@dataclass(frozen=True)
class Signal:
    """What to aggregate for each entity: which events, which value, which operations over which windows.

    ``id`` is unique within the entity type for ever: it is written into stored keys. ``windows_s`` are seconds, or
    ``layout.LIFETIME``. ``value`` is an int64 attribute and is needed by ``sum`` and ``max`` alone; ``last`` and
    ``first`` aggregate event_time in microseconds.
    """

    id: int
    name: str
    entity: str
    event_types: tuple[str, ...]
    operations: tuple[Operation, ...]
    windows_s: tuple[int, ...]
    value: str = ""
    where: tuple[Condition, ...] = ()
    by: By | None = None

    @property
    def unit(self) -> str:
        """Name of the value's attribute; its unit stands with the attribute."""
        return self.value or "events"


@dataclass(frozen=True)
class WindowFeature:
    """One finished integer: a signal, an operation, a window and, for a ``by`` signal, one code of it."""

    signal: Signal
    operation: Operation
    window_s: int
    by: int = 0

    @property
    def name(self) -> str:
        """For example ``orders_count_90d`` or ``opens_count_7d_push``."""
        base = f"{self.signal.name}_{self.operation}_{window_label(self.window_s)}"
        return f"{base}_{self.signal.by.label(self.by)}" if self.signal.by else base

    @property
    def is_time(self) -> bool:
        """Whether the integer is an event time in microseconds (missing is 0)."""
        return self.operation in ("last", "first")


@dataclass(frozen=True)
class Elapsed:
    """Seconds from one time feature to another, or to ``now`` when ``until`` is empty; missing if either is missing."""

    name: str
    since: str
    until: str = ""


@dataclass(frozen=True)
class Shrinkage:
    """How far a ratio of few events is drawn towards what is usual: ``strength`` events of the prior are added to it.

    The prior is the ratio of all training rows of the same segment together, itself shrunken by ``strength`` towards that
    of all rows. ``by`` names the string field whose values are the segments; empty for a prior of all rows alone.
    """

    strength: float
    by: str = ""


@dataclass(frozen=True)
class Ratio:
    """``numerator / denominator`` of two finished features; missing if the denominator is missing or 0.

    With ``shrink`` the model sees ``(numerator + strength * prior) / (denominator + strength)``, which is the prior where
    the ratio is missing; the finished value stays the raw ratio.
    """

    name: str
    numerator: str
    denominator: str
    shrink: Shrinkage | None = None


@dataclass(frozen=True)
class Field:
    """A named value that does not come from events: a profile column or a request field.

    ``default`` is used when a caller leaves the field out; strings go through a vocabulary of the most frequent
    ``vocabulary_size`` training values, integers through the same scaling as counters.
    """

    name: str
    dtype: Dtype
    default: str | int = ""
    unit: str = ""
    vocabulary_size: int = 15


@dataclass(frozen=True)
class Profile:
    """A batch table with one row for each (entity, valid_from), as-of joined by event time and created time."""

    name: str
    entity: str
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class View:
    """What one read of the online store answers and one graph finishes.

    Attributes:
        name: unique in the catalog; a changed meaning is a new ``version``.
        entity: the entity type whose state is read.
        signals: names of signals of that entity.
        profiles: names of profiles of that entity.
        request: fields that the caller sends, or names an entity for.
        joins: which of them are filled from another entity's state.
        elapsed, ratios: features derived from finished ones, in the graph.
        bucketed: names of finished features that are also cut at their training quantiles.
        utc_offset: an int64 field in minutes, which gives the feature ``local_hour`` of ``now``; empty for none.
        counted: names of signals whose counts the model sees as they are, neither logarithms nor scaled.
        time_zone: a string field, an IANA zone, or ``UTC``: gives ``zones.CLOCK_FEATURES`` of ``now``; empty for none.
        lag_s: the stream's declared lag; a training row at t sees events with ingest_time + lag_s <= t.
        freshness_sla_s: age from which a reply calls the state stale.
    """

    name: str
    version: int
    entity: str
    signals: tuple[str, ...]
    profiles: tuple[str, ...] = ()
    request: tuple[Field, ...] = ()
    elapsed: tuple[Elapsed, ...] = ()
    ratios: tuple[Ratio, ...] = ()
    bucketed: tuple[str, ...] = ()
    utc_offset: str = ""
    counted: tuple[str, ...] = ()
    time_zone: str = ""
    joins: tuple[Join, ...] = ()
    lag_s: int = 60
    freshness_sla_s: int = 3_600

    @property
    def key(self) -> str:
        """Name and version, as they appear in paths and records: ``subscriber@1``."""
        return f"{self.name}@{self.version}"

    @property
    def former_keys(self) -> tuple[str, ...]:
        """Keys of the versions before this one, under which values may still be kept."""
        return tuple(f"{self.name}@{version}" for version in range(1, self.version))


@dataclass(frozen=True)
class Catalog:
    """Every declaration of one product.

    ``retention_s`` gives, by region, for how many seconds of ingest time raw events are kept; what they made of states stays.
    A region that is not in it keeps them for ever.
    """

    name: str
    attributes: tuple[Attribute, ...]
    event_types: tuple[EventType, ...]
    signals: tuple[Signal, ...] = ()
    profiles: tuple[Profile, ...] = ()
    views: tuple[View, ...] = ()
    regions: tuple[str, ...] = ("global",)
    retention_s: tuple[tuple[str, int], ...] = ()
    log_partitions: int = 8

    @cached_property
    def entities(self) -> tuple[str, ...]:
        """Entity types in order of first use; each has one event log."""
        return tuple(dict.fromkeys(event_type.entity for event_type in self.event_types))

    def attribute(self, name: str) -> Attribute:
        return _named(self.attributes, name, "attribute", self.name)

    def event_type(self, name: str) -> EventType:
        return _named(self.event_types, name, "event type", self.name)

    def signal(self, name: str) -> Signal:
        return _named(self.signals, name, "signal", self.name)

    def profile(self, name: str) -> Profile:
        return _named(self.profiles, name, "profile", self.name)

    def view(self, name: str) -> View:
        return _named(self.views, name, "view", self.name)

    def signals_of(self, view: View) -> tuple[Signal, ...]:
        """The view's signals by ascending id."""
        return tuple(sorted((self.signal(name) for name in view.signals), key=lambda signal: signal.id))

    def profiles_of(self, view: View) -> tuple[Profile, ...]:
        return tuple(self.profile(name) for name in view.profiles)

    def profile_fields_of(self, view: View) -> tuple[Field, ...]:
        """Fields of all the view's profiles, in declaration order."""
        return tuple(entry for profile in self.profiles_of(view) for entry in profile.fields)

    def attributes_of(self, entity: str) -> tuple[Attribute, ...]:
        """Attributes that any event type of this entity may carry, in declaration order."""
        used = {name for kind in self.event_types if kind.entity == entity for name in kind.attributes}
        return tuple(attribute for attribute in self.attributes if attribute.name in used)

    def view_hash(self, view: View) -> str:
        """SHA-256 of the view with all it refers to: equal hashes mean equal features from equal bytes."""
        joined = [self.view(join.view) for join in view.joins]
        counted = [signal for other in joined for signal in self.signals_of(other)]
        own: list[View | Signal | Profile] = [view, *self.signals_of(view), *self.profiles_of(view)]
        named = [*own, *joined, *counted]
        parts = [asdict(part, dict_factory=_without_later_defaults) for part in named]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _without_later_defaults(entries: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in entries if name not in _LATER or value != _LATER[name]}


def window_label(window_s: int) -> str:
    """A window in its largest whole unit.

    Example:
        >>> [window_label(w) for w in (600, 7200, 7 * 86_400, 0)]
        ['10m', '2h', '7d', 'lifetime']
    """
    if window_s == layout.LIFETIME:
        return "lifetime"
    for unit_s, suffix in ((layout.DAY_S, "d"), (layout.HOUR_S, "h"), (layout.MINUTE_S, "m")):
        if window_s % unit_s == 0:
            return f"{window_s // unit_s}{suffix}"
    return f"{window_s}s"


def window_features(signals: Iterable[Signal]) -> tuple[WindowFeature, ...]:
    """Every finished integer of these signals, in the one order that graph, audits and metadata share."""
    return tuple(
        WindowFeature(signal, operation, window_s, by)
        for signal in signals
        for operation in signal.operations
        for window_s in signal.windows_s
        for by in range(signal.by.size if signal.by else 1)
    )


def _named(entries: tuple[Named, ...], name: str, kind: str, catalog: str) -> Named:
    for entry in entries:
        if entry.name == name:
            return entry
    declared = ", ".join(entry.name for entry in entries) or "none declared"
    raise DeclarationError(
        explain(f"{kind} is not declared", which=f"{name!r} in catalog {catalog!r}", expected=f"one of {declared}",
                got=repr(name), next_step=f"correct the name or declare the {kind}")
    )  # fmt: skip
