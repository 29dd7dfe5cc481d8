"""Draw (entity, now) pairs at which finished features are compared: ordinary instants, and every boundary there is."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from parity.adversarial import DAY_US, HOUR_US, MINUTE_US, SPAN_US, START_US
from parity.oracle import SECOND_US, Event, period_s


class Pair(NamedTuple):
    """One read: who, at which microsecond, and which boundary it was drawn for."""

    entity_id: str
    now_us: int
    kind: str


KINDS = ("anywhen", "anywhen", "edge", "event", "known", "unknown", "leaving", "overtaken", "repeated", "ahead")


def draw_pairs(events: Sequence[Event], signals: Sequence[Any], lag_s: int, *, count: int, seed: int) -> list[Pair]:
    """``count`` pairs in random order: a fifth at random instants, the others each at a boundary of a random event."""
    rng = random.Random(seed)
    windows = sorted({window_s for signal in signals for window_s in signal.windows_s if window_s}) or [3_600]
    noteworthy = _noteworthy(events, lag_s)
    pairs = []
    for number in range(count):
        kind = "cold" if number % 50 == 0 else KINDS[number % len(KINDS)]
        event = rng.choice(noteworthy.get(kind) or events)
        entity_id = f"nobody-{number}" if kind == "cold" else event["entity_id"]
        pairs.append(Pair(entity_id, _instant(kind, event, lag_s, rng.choice(windows), rng), kind))
    rng.shuffle(pairs)
    return pairs


def _noteworthy(events: Sequence[Event], lag_s: int) -> dict[str, list[Event]]:
    """Events that arrived after a newer one of their user, that came again, that are known before their own time."""
    found: dict[str, list[Event]] = {"overtaken": [], "repeated": [], "ahead": []}
    newest: dict[str, int] = {}
    seen = set()
    for event in events:  # in order of arrival
        entity_id, identity = event["entity_id"], (event["entity_id"], event["event_id"])
        if event["event_time"] < newest.get(entity_id, 0) - HOUR_US:
            found["overtaken"].append(event)
        if identity in seen:
            found["repeated"].append(event)
        if event["event_time"] > event["ingest_time"] + lag_s * SECOND_US:
            found["ahead"].append(event)
        newest[entity_id] = max(newest.get(entity_id, 0), event["event_time"])
        seen.add(identity)
    return found


def _instant(kind: str, event: Event, lag_s: int, window_s: int, rng: random.Random) -> int:
    """When to read, for a boundary of this kind; ``overtaken`` and ``repeated`` read as the event becomes known."""
    event_us, known_us = int(event["event_time"]), int(event["ingest_time"]) + lag_s * SECOND_US
    period_us = rng.choice((MINUTE_US, 5 * MINUTE_US, HOUR_US, DAY_US))
    instants = {
        "anywhen": START_US + rng.randrange(SPAN_US + 100 * DAY_US),
        "cold": START_US + rng.randrange(SPAN_US),
        "edge": (max(event_us, known_us) // period_us + rng.randrange(2)) * period_us - rng.randrange(2),
        "event": event_us,
        "unknown": known_us - 1,
        "leaving": _leaving(event, window_s) - rng.randrange(2),
        "ahead": rng.randint(known_us, max(known_us, event_us)),
    }
    return instants.get(kind, known_us)


def _leaving(event: Event, window_s: int) -> int:
    """The first instant at which the event's tile is out of the window."""
    period_us = period_s(window_s) * SECOND_US
    return int(event["event_time"] // period_us * period_us) + window_s * SECOND_US
