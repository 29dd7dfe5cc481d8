"""Draw (entity, now) pairs at which finished features are compared: ordinary instants, and every boundary there is."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.parity.adversarial import DAY_US, HOUR_US, MINUTE_US, SPAN_US, START_US
from tests.parity.oracle import SECOND_US, Event, period_s


class Pair(NamedTuple):
    """One read: who, at which microsecond, and which boundary it was drawn for."""

    entity_id: str
    now_us: int
    kind: str


def draw_pairs(events: Sequence[Event], signals: Sequence[Any], lag_s: int, *, count: int, seed: int) -> list[Pair]:
    """``count`` pairs in random order: a quarter at random instants, the others each at a boundary of a random event."""
    rng = random.Random(seed)
    lag_us = lag_s * SECOND_US
    newest: dict[str, int] = {}
    overtaken, repeated, ahead, seen = [], [], [], set()
    for event in events:  # in order of arrival
        if event["event_time"] < newest.get(event["entity_id"], 0) - HOUR_US:
            overtaken.append(event)
        newest[event["entity_id"]] = max(newest.get(event["entity_id"], 0), event["event_time"])
        if event["event_id"] in seen:
            repeated.append(event)
        seen.add(event["event_id"])
        if event["event_time"] > event["ingest_time"] + lag_us:
            ahead.append(event)
    windows = sorted({window_s for signal in signals for window_s in signal.windows_s if window_s}) or [3_600]
    kinds = ("anywhen", "anywhen", "edge", "event", "known", "unknown", "leaving", "overtaken", "repeated", "ahead")
    users = sorted({event["entity_id"] for event in events})
    pairs = []
    for number in range(count):
        kind = "cold" if number % 50 == 0 else kinds[number % len(kinds)]
        event = rng.choice({"overtaken": overtaken, "repeated": repeated, "ahead": ahead}.get(kind) or events)
        known_us = event["ingest_time"] + lag_us
        if kind == "cold":
            pairs.append(Pair(f"nobody-{number}", START_US + rng.randrange(SPAN_US), kind))
        elif kind == "anywhen":
            pairs.append(Pair(rng.choice(users), START_US + rng.randrange(SPAN_US + 100 * DAY_US), kind))
        elif kind == "ahead":
            pairs.append(Pair(event["entity_id"], rng.randint(known_us, max(known_us, event["event_time"])), kind))
        elif kind == "leaving":
            pairs.append(Pair(event["entity_id"], _leaving(event, rng.choice(windows)) - rng.randrange(2), kind))
        elif kind == "edge":
            period_us = rng.choice((MINUTE_US, 5 * MINUTE_US, HOUR_US, DAY_US))
            edge = (max(event["event_time"], known_us) // period_us + rng.randrange(2)) * period_us
            pairs.append(Pair(event["entity_id"], edge - rng.randrange(2), kind))
        else:
            later = {"event": event["event_time"], "unknown": known_us - 1}.get(kind, known_us)
            pairs.append(Pair(event["entity_id"], later, kind))
    rng.shuffle(pairs)
    return pairs


def _leaving(event: Event, window_s: int) -> int:
    """The first instant at which the event's tile is out of the window."""
    period_us = period_s(window_s) * SECOND_US
    return int(event["event_time"] // period_us * period_us) + window_s * SECOND_US
