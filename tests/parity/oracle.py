"""The oracle: every finished feature of an entity, in plain Python over raw events.

It imports nothing of Plumbline. Declarations come in as arguments and are read for their fields alone; the rules are
written here a second time, from the text of the design, in the plainest form that is fast enough for ten thousand reads:

* an event dated more than five minutes after its ingest_time does not exist, and no copy of it counts as a first copy;
* of the copies of one event_id of one entity the lowest offset counts; copies that follow within the horizon of
  ingest time, counted from the copy that counts, do not;
* an event is known at t when ingest_time + lag <= t;
* a window W at t over tiles of period P holds the events whose tile b = floor(event_time / P) satisfies
  floor(t / P) - W / P < b <= floor(t / P), and P is the finest of 1 min (windows to 1 h), 5 min (to 12 h), 1 h (to 12 d),
  1 d (beyond);
* a lifetime window holds every known event, also one dated up to five minutes after t;
* an event that lacks the value of a signal is no part of that signal;
* count, sum, max (the true maximum, also of negative values), last and first (event_time in microseconds); 0 when empty.

Times are integers: UTC microseconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

SECOND_US = 1_000_000
MAX_SKEW_US = 5 * 60 * SECOND_US
DEDUPLICATION_HORIZON_US = 7 * 24 * 3_600 * SECOND_US
PERIODS = ((3_600, 60), (12 * 3_600, 300), (12 * 86_400, 3_600))
"""(longest window, tile period) in seconds, finest first; longer windows use days."""

Event = dict[str, Any]


class Entry(NamedTuple):
    """What one event adds to one signal."""

    event_time: int
    ingest_time: int
    by: int
    value: int


class Feature(NamedTuple):
    """One finished integer: where its entries lie and how they are put together."""

    name: str
    signal_id: int
    operation: str
    window_s: int
    by: int


class Oracle:
    """All that is needed to answer for one view: the entries of each (entity, signal), sorted by event time."""

    def __init__(self, events: Iterable[Event], signals: Sequence[Any], lag_s: int) -> None:
        self.features = [feature for signal in sorted(signals, key=lambda s: s.id) for feature in features_of(signal)]
        self.lag_us = lag_s * SECOND_US
        self.entries: dict[tuple[str, int], list[Entry]] = {}
        for event in deduplicated(events):
            for signal in signals:
                if matches(signal, event):
                    value = event[signal.value] if signal.value else 0
                    entry = Entry(event["event_time"], event["ingest_time"], by_code(signal, event), value)
                    self.entries.setdefault((event["entity_id"], signal.id), []).append(entry)
        for entries in self.entries.values():
            entries.sort(key=lambda entry: entry.event_time)

    def integers(self, entity_id: str, now_us: int, *, ingested_by_us: int | None = None) -> dict[str, int]:
        """Every window feature at ``now_us``, by name, in the order of the declarations.

        ``ingested_by_us`` names the last ingest_time that a store had folded; without it, what a stream with the
        declared lag would have known at ``now_us``.
        """
        known_by_us = now_us - self.lag_us if ingested_by_us is None else ingested_by_us
        held: dict[tuple[int, int], dict[int, list[Entry]]] = {}
        finished = {}
        for feature in self.features:
            key = (feature.signal_id, feature.window_s)
            if key not in held:
                held[key] = {}
                for entry in in_window(self.entries.get((entity_id, feature.signal_id), []), feature.window_s, now_us):
                    if entry.ingest_time <= known_by_us:
                        held[key].setdefault(entry.by, []).append(entry)
            finished[feature.name] = combine(feature.operation, held[key].get(feature.by, []))
        return finished


def derive(view: Any, integers: dict[str, int], now_us: int) -> dict[str, float | None]:
    """The view's elapsed seconds (whole, rounded down) and ratios, by name; None where one is missing."""
    finished: dict[str, float | None] = dict(integers)
    for elapsed in view.elapsed:
        since, until = integers[elapsed.since], integers[elapsed.until] if elapsed.until else now_us
        finished[elapsed.name] = (until - since) // SECOND_US if since and until else None
    for ratio in view.ratios:
        above, below = finished[ratio.numerator], finished[ratio.denominator]
        finished[ratio.name] = above / below if above is not None and below else None
    return {entry.name: finished[entry.name] for entry in (*view.elapsed, *view.ratios)}


def deduplicated(events: Iterable[Event]) -> list[Event]:
    """Admissible events in log order, each event_id once within the horizon."""
    admissible = [event for event in events if event["event_time"] - event["ingest_time"] <= MAX_SKEW_US]
    admissible.sort(key=lambda event: (event["log_partition"], event["log_offset"]))
    kept_at: dict[tuple[str, str], int] = {}
    kept = []
    for event in admissible:
        identity = (event["entity_id"], event["event_id"])
        first = kept_at.get(identity)
        if first is None or event["ingest_time"] - first > DEDUPLICATION_HORIZON_US:
            kept_at[identity] = event["ingest_time"]
            kept.append(event)
    return kept


def matches(signal: Any, event: Event) -> bool:
    """Whether the signal aggregates this event."""
    if event["event_type"] not in signal.event_types or (signal.value and event.get(signal.value) is None):
        return False
    return all(event.get(condition.attribute) in condition.is_in for condition in signal.where)


def by_code(signal: Any, event: Event) -> int:
    """The code of the signal's ``by`` for this event; 0 for a signal without one."""
    if signal.by is None:
        return 0
    if signal.by.attribute == "hour_of_week":
        offset_minutes = event.get(signal.by.offset) if signal.by.offset else 0
        if offset_minutes is None:
            return 168
        hours = (event["event_time"] + offset_minutes * 60 * SECOND_US) // (3_600 * SECOND_US)
        return int((hours + 3 * 24) % 168)  # 1970-01-01 was a Thursday, three days after Monday
    listed = list(signal.by.values)
    found = event.get(signal.by.attribute)
    return listed.index(found) + 1 if found in listed else 0


def period_s(window_s: int) -> int:
    """The tile period that answers a window."""
    for longest_s, period in PERIODS:
        if window_s <= longest_s:
            return period
    return 86_400


def in_window(entries: list[Entry], window_s: int, now_us: int) -> list[Entry]:
    """Entries, sorted by event time, whose tile the window holds at ``now_us``."""
    if window_s == 0:
        return entries
    period = period_s(window_s)
    newest = now_us // (period * SECOND_US)
    oldest = newest - window_s // period

    def tile(entry: Entry) -> int:
        return entry.event_time // (period * SECOND_US)

    return entries[bisect_right(entries, oldest, key=tile) : bisect_right(entries, newest, key=tile)]


def combine(operation: str, entries: list[Entry]) -> int:
    """One operation over the entries of one window and one ``by`` code."""
    if operation == "count":
        return len(entries)
    if operation == "sum":
        return sum(entry.value for entry in entries)
    if operation == "max":
        return max((entry.value for entry in entries), default=0)
    times = [entry.event_time for entry in entries]
    return (max(times) if operation == "last" else min(times)) if times else 0


def features_of(signal: Any) -> list[Feature]:
    """The signal's features, named ``<signal>_<operation>_<window>[_<by label>]``."""
    named = []
    for operation in signal.operations:
        for window_s in signal.windows_s:
            base = f"{signal.name}_{operation}_{window_name(window_s)}"
            for by, label in enumerate(by_labels(signal)):
                named.append(Feature(base + label, signal.id, operation, window_s, by))
    return named


def by_labels(signal: Any) -> list[str]:
    """Suffixes of feature names, by code."""
    if signal.by is None:
        return [""]
    if signal.by.attribute == "hour_of_week":
        return [*(f"_h{hour:03d}" for hour in range(168)), *(["_unknown"] if signal.by.offset else [])]
    return ["_other", *(f"_{value}" for value in signal.by.values)]


def window_name(window_s: int) -> str:
    """10m, 2h, 7d, lifetime."""
    if window_s == 0:
        return "lifetime"
    if window_s % 86_400 == 0:
        return f"{window_s // 86_400}d"
    return f"{window_s // 3_600}h" if window_s % 3_600 == 0 else f"{window_s // 60}m"
