"""Checks of a catalog as a whole: every name resolves, every id is unique, every value has a unit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from features import layout
from features.declarations import EVENT_COLUMNS, HOUR_OF_WEEK, RESERVED_PREFIX, Catalog, Ratio, Signal, View, window_features
from features.errors import DeclarationError, explain
from features.joins import Join
from features.zones import CLOCK, CLOCK_FEATURES, UTC

MIN_RETENTION_S = 14 * layout.DAY_S


def check_catalog(catalog: Catalog) -> None:
    """Raise ``DeclarationError`` with one line at the first contradiction."""
    for kind in ("attributes", "event_types", "signals", "profiles", "views"):
        _refuse_repeats(catalog, kind, (entry.name for entry in getattr(catalog, kind)))
    for attribute in catalog.attributes:
        _require(
            attribute.name not in EVENT_COLUMNS,
            catalog,
            f"attribute {attribute.name!r}",
            "a name of its own",
            "an event column's name",
        )
        _require(
            bool(attribute.unit) or attribute.dtype == "string",
            catalog,
            f"attribute {attribute.name!r}",
            "a unit (cents, ms)",
            "none",
        )
    for event_type in catalog.event_types:
        which = f"event type {event_type.name!r}"
        own = f"a name that does not begin with {RESERVED_PREFIX!r}"
        _require(not event_type.name.startswith(RESERVED_PREFIX), catalog, which, own, "a reserved name")
        for name in event_type.attributes:
            catalog.attribute(name)
    for region, kept_s in catalog.retention_s:
        _require(region in catalog.regions, catalog, f"retention of region {region!r}", "a declared region", repr(region))
        least = f"at least {MIN_RETENTION_S} s, twice the time in which a repeated event is known"
        _require(kept_s >= MIN_RETENTION_S, catalog, f"retention of region {region!r}", least, f"{kept_s} s")
    for entity in catalog.entities:
        _refuse_repeats(
            catalog, f"signal ids of {entity}", (str(signal.id) for signal in catalog.signals if signal.entity == entity)
        )
    for signal in catalog.signals:
        _check_signal(catalog, signal)
    for view in catalog.views:
        _check_view(catalog, view)


def _check_signal(catalog: Catalog, signal: Signal) -> None:
    which = f"signal {signal.name!r}"
    _require(0 < signal.id <= layout.MAX_SIGNAL_ID, catalog, which, f"an id in 1..{layout.MAX_SIGNAL_ID}", str(signal.id))
    _require(bool(signal.operations and signal.windows_s), catalog, which, "operations and windows", "none")
    for operation in signal.operations:
        _require(operation in layout.OPERATION_CODES, catalog, which, f"one of {', '.join(layout.OPERATION_CODES)}", operation)
    _require(
        list(signal.windows_s) == sorted(set(signal.windows_s), key=_window_order),
        catalog,
        which,
        "ascending windows, lifetime last",
        str(signal.windows_s),
    )
    for window_s in signal.windows_s:
        layout.resolution_of(window_s)
    carried: set[str] = set(catalog.event_type(signal.event_types[0]).attributes) if signal.event_types else set()
    for name in signal.event_types:
        event_type = catalog.event_type(name)
        carried &= set(event_type.attributes)
        _require(
            event_type.entity == signal.entity,
            catalog,
            which,
            f"events of {signal.entity!r}",
            f"{name!r} of {event_type.entity!r}",
        )
    needs_value = bool({"sum", "max"} & set(signal.operations))
    _require(
        needs_value == bool(signal.value),
        catalog,
        which,
        "a value exactly when it sums or takes maxima",
        signal.value or "no value",
    )
    if signal.value:
        _require(signal.value in carried, catalog, which, "a value that all its event types carry", signal.value)
        _require(
            catalog.attribute(signal.value).dtype == "int64", catalog, which, "an int64 value in a declared unit", "string"
        )
    for condition in signal.where:
        _require(
            condition.attribute in carried,
            catalog,
            which,
            "a condition on an attribute that all its event types carry",
            condition.attribute,
        )
    if signal.by and signal.by.offset:
        dtype = catalog.attribute(signal.by.offset).dtype if signal.by.offset in carried else "none"
        fits = signal.by.attribute == HOUR_OF_WEEK and dtype == "int64"
        _require(fits, catalog, which, "an offset of the hour of week, an int64 attribute of all its event types", dtype)
    if signal.by and signal.by.attribute != HOUR_OF_WEEK:
        _require(
            signal.by.attribute in carried and catalog.attribute(signal.by.attribute).dtype == "string",
            catalog,
            which,
            "a `by` over a string attribute that all its event types carry",
            signal.by.attribute,
        )
        _require(signal.by.size <= layout.MAX_BY, catalog, which, f"at most {layout.MAX_BY} codes", str(signal.by.size))


def _check_view(catalog: Catalog, view: View) -> None:
    which = f"view {view.name!r}"
    for signal in catalog.signals_of(view):
        _require(
            signal.entity == view.entity, catalog, which, f"signals of {view.entity!r}", f"{signal.name!r} of {signal.entity!r}"
        )
    for profile in catalog.profiles_of(view):
        _require(
            profile.entity == view.entity,
            catalog,
            which,
            f"profiles of {view.entity!r}",
            f"{profile.name!r} of {profile.entity!r}",
        )
    features = {feature.name: feature for feature in window_features(catalog.signals_of(view))}
    times = {name for name, feature in features.items() if feature.is_time}
    for elapsed in view.elapsed:
        _require(
            elapsed.since in times and (not elapsed.until or elapsed.until in times),
            catalog,
            f"{which}, elapsed {elapsed.name!r}",
            f"times among {', '.join(sorted(times))}",
            f"{elapsed.since!r}, {elapsed.until!r}",
        )
    numbers = (set(features) - times) | {elapsed.name for elapsed in view.elapsed}
    for ratio in view.ratios:
        _require(
            {ratio.numerator, ratio.denominator} <= numbers,
            catalog,
            f"{which}, ratio {ratio.name!r}",
            "finished numbers declared before it",
            f"{ratio.numerator!r} / {ratio.denominator!r}",
        )
        numbers.add(ratio.name)
        if ratio.shrink is not None:
            _check_shrinkage(catalog, view, ratio)
    _require(
        set(view.bucketed) <= numbers,
        catalog,
        f"{which}, bucketed",
        "finished numbers",
        ", ".join(set(view.bucketed) - numbers),
    )
    offsets = [entry.name for entry in (*catalog.profile_fields_of(view), *view.request) if entry.dtype == "int64"]
    _require(
        not view.utc_offset or view.utc_offset in offsets, catalog, f"{which}, utc_offset", "an int64 field", view.utc_offset
    )
    _check_clock_and_counts(catalog, view)
    for join in view.joins:
        _check_join(catalog, view, join)
    derived = [*(entry.name for entry in view.elapsed), *(entry.name for entry in view.ratios)]
    inputs = [entry.name for entry in (*catalog.profile_fields_of(view), *view.request)]
    inputs += [join.key for join in view.joins]
    _refuse_repeats(
        catalog, f"features of {view.name}", (*features, *derived, *inputs, "state", "now", "local_hour", *CLOCK_FEATURES)
    )
    # What explains a score is named by signal or by field: the two must not be confused.
    _refuse_repeats(catalog, f"signals and fields of {view.name}", (*view.signals, *inputs, "local_hour", CLOCK))


def _check_clock_and_counts(catalog: Catalog, view: View) -> None:
    which = f"view {view.name!r}"
    texts = [entry.name for entry in (*catalog.profile_fields_of(view), *view.request) if entry.dtype == "string"]
    _require(view.time_zone in ("", UTC, *texts), catalog, f"{which}, time_zone", "a string field or UTC", view.time_zone)
    counts = {signal.name for signal in catalog.signals_of(view) if set(signal.operations) == {"count"}}
    _require(
        set(view.counted) <= counts, catalog, f"{which}, counted", "signals of it that only count", ", ".join(view.counted)
    )


def _check_join(catalog: Catalog, view: View, join: Join) -> None:
    which, other = f"view {view.name!r}, join by {join.key!r}", catalog.view(join.view)
    _require(not (other.profiles or other.request), catalog, which, "a view of signals alone", other.name)
    finished = {feature.name for feature in window_features(catalog.signals_of(other)) if not feature.is_time}
    integers = {entry.name for entry in view.request if entry.dtype == "int64" and entry.default == 0}
    known = finished & integers
    _require(
        bool(join.fields) and set(join.fields) <= known,
        catalog,
        which,
        "finished counts of it, each an int64 request field with default 0",
        ", ".join(sorted(set(join.fields) - known)) or "none",
    )


def _check_shrinkage(catalog: Catalog, view: View, ratio: Ratio) -> None:
    which, shrink = f"view {view.name!r}, shrinkage of {ratio.name!r}", ratio.shrink
    counts = {feature.name for feature in window_features(catalog.signals_of(view)) if feature.operation == "count"}
    _require(shrink is not None and shrink.strength > 0, catalog, which, "a positive strength", str(shrink))
    # A strength is a number of events, and only a count is never negative.
    _require(ratio.denominator in counts, catalog, which, "a count as denominator", repr(ratio.denominator))
    segments = [entry.name for entry in (*catalog.profile_fields_of(view), *view.request) if entry.dtype == "string"]
    named = shrink is not None and shrink.by in ("", *segments)
    _require(named, catalog, which, f"`by` among the string fields {', '.join(segments) or 'none'}", str(shrink))


def _window_order(window_s: int) -> float:
    return float("inf") if window_s == layout.LIFETIME else window_s


def _refuse_repeats(catalog: Catalog, kind: str, names: Iterable[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    _require(not repeated, catalog, kind, "every name once", f"{', '.join(repeated)} more than once")


def _require(holds: bool, catalog: Catalog, which: str, expected: str, got: str) -> None:
    if not holds:
        raise DeclarationError(
            explain(
                "catalog contradicts itself",
                which=f"{which} in {catalog.name!r}",
                expected=expected,
                got=got,
                next_step="correct the declaration",
            )
        )
