"""Raw events of the subscription catalog that are as awkward as the log admits, drawn from a seed without the simulator.

Bursts within a minute, gaps of exactly one window, instants on tile edges and a microsecond beside them, arrivals hours
and weeks late, copies with other contents at and around the de-duplication horizon, clocks up to five minutes ahead and
one microsecond more, refunds below zero, missing and unlisted attribute values, users without events.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from parity.oracle import DEDUPLICATION_HORIZON_US, MAX_SKEW_US, SECOND_US, Event

MINUTE_US, HOUR_US, DAY_US = 60 * SECOND_US, 3_600 * SECOND_US, 86_400 * SECOND_US
START_US = 1_767_571_200 * SECOND_US
"""2026-01-05 00:00 UTC, a Monday."""
SPAN_US = 120 * DAY_US

EVENT_TYPES = (
    ("session", 8), ("offer_shown", 4), ("offer_clicked", 2), ("message_sent", 4), ("message_opened", 3),
    ("payment", 3), ("refund", 2), ("upgrade", 1), ("signup", 1), ("cancellation", 1),
)  # fmt: skip
GAPS_US = (HOUR_US, 6 * HOUR_US, 12 * HOUR_US, DAY_US, 7 * DAY_US, 12 * DAY_US, 14 * DAY_US, 30 * DAY_US, 90 * DAY_US)
COPY_DELAYS_US = (
    0, 1, MINUTE_US, DAY_US, DEDUPLICATION_HORIZON_US - 1, DEDUPLICATION_HORIZON_US, DEDUPLICATION_HORIZON_US + 1, 15 * DAY_US,
)  # fmt: skip
ATTRIBUTES: dict[str, Sequence[Any]] = {
    "duration_ms": (0, 1, 59_999, 1_800_000, 7_200_000, -40, None),
    "platform": ("ios", "android", "web", "tv", None),
    "channel": ("email", "push", "in_app", "sms", "", None),
    "offer_id": ("o1", "o2", None),
    "plan": ("free", "basic", "pro", None),
    "amount_cents": (999, 1_999, 4_999, 0, 2**31 + 7, 2**53 + 1, None),  # beyond what 32-bit and floating sums hold
    "utc_offset_minutes": (0, 60, -300, 345, 840, -720, None),
}
CARRIED: dict[str, tuple[str, ...]] = {
    "signup": ("plan", "platform"), "session": ("duration_ms", "platform"), "offer_shown": ("offer_id", "channel"),
    "offer_clicked": ("offer_id", "channel"), "message_sent": ("channel", "utc_offset_minutes"),
    "message_opened": ("channel", "utc_offset_minutes"), "upgrade": ("plan", "amount_cents"), "payment": ("amount_cents",),
    "refund": ("amount_cents",), "cancellation": ("plan",),
}  # fmt: skip


def draw_events(users: int, seed: int, *, partitions: int = 8, admissible: bool = True) -> list[Event]:
    """Events in the order of their arrival, with offsets; every fifteenth user has none.

    ``admissible`` leaves out those that the log would dead-letter, and numbers the rest.
    """
    rng = random.Random(seed)
    drawn = []
    for number in range(users):
        if number % 15 != 14:
            drawn += _events_of(f"user-{number}", HABITS[number % len(HABITS)], rng)
    if admissible:
        drawn = [event for event in drawn if event["event_time"] - event["ingest_time"] <= MAX_SKEW_US]
    drawn.sort(key=lambda event: event["ingest_time"])
    offsets = [0] * partitions
    for event in drawn:
        partition = zlib.crc32(event["entity_id"].encode()) % partitions
        event |= {"log_partition": partition, "log_offset": offsets[partition]}
        offsets[partition] += 1
    return drawn


def to_table(events: Sequence[Event], schema: pa.Schema) -> pa.Table:
    """The events as rows of the log."""
    day = [datetime.fromtimestamp(event["ingest_time"] // SECOND_US, UTC).date() for event in events]
    columns = {name: [event.get(name) for event in events] for name in schema.names} | {"ingest_day": day}
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in schema}, schema=schema)


def _events_of(user: str, habit: Callable[[random.Random], list[tuple[int, int]]], rng: random.Random) -> list[Event]:
    """One user's events: the habit's (event_time, delay) beside some ordinary ones, and copies of some."""
    moments = habit(rng)
    moments += [(START_US + rng.randrange(SPAN_US), rng.randrange(3 * SECOND_US)) for _ in range(rng.randrange(5, 40))]
    names, weights = zip(*EVENT_TYPES, strict=True)
    events = []
    for number, (event_time, delay) in enumerate(moments):
        event_type = rng.choices(names, weights)[0]
        # One id in four names an event that also concerns other users, each of whom has it once.
        event_id = f"shared/{number}" if number % 4 == 0 else f"{user}/{number}"
        event = {"event_id": event_id, "entity_id": user, "event_type": event_type, "region": rng.choice(("eu", "us"))}
        events.append(event | {"event_time": event_time, "ingest_time": event_time + delay} | _values(event_type, rng))
        while rng.random() < (0.5 if habit is copies else 0.03):
            copy = events[-1] | {"ingest_time": events[-1]["ingest_time"] + rng.choice(COPY_DELAYS_US)}
            events.append(copy | (_values(event_type, rng) if rng.random() < 0.5 else {}))
    return events


def _values(event_type: str, rng: random.Random) -> dict[str, Any]:
    values = {name: rng.choice(ATTRIBUTES[name]) if name in CARRIED[event_type] else None for name in ATTRIBUTES}
    if event_type == "refund" and values["amount_cents"] is not None:
        values["amount_cents"] = -values["amount_cents"]
    return values


def bursts(rng: random.Random) -> list[tuple[int, int]]:
    """A few dozen events within minutes, several times."""
    starts = [START_US + rng.randrange(SPAN_US) for _ in range(4)]
    return [(start + rng.randrange(20 * MINUTE_US), rng.randrange(SECOND_US)) for start in starts for _ in range(25)]


def late(rng: random.Random) -> list[tuple[int, int]]:
    """Arrivals seconds to 95 days after the fact: newer events have long been folded, some tiles have aged out."""
    delays = (30 * SECOND_US, 5 * MINUTE_US, HOUR_US, 13 * HOUR_US, 12 * DAY_US, 31 * DAY_US, 95 * DAY_US)
    return [(START_US + rng.randrange(SPAN_US), rng.choice(delays) + rng.randrange(2)) for _ in range(60)]


def copies(rng: random.Random) -> list[tuple[int, int]]:
    """Half of the events come again, and again."""
    return [(START_US + rng.randrange(SPAN_US), rng.randrange(MINUTE_US)) for _ in range(50)]


def ahead(rng: random.Random) -> list[tuple[int, int]]:
    """Clocks that run ahead of ingest, to the last admissible microsecond and one beyond."""
    minutes_us = (SECOND_US, 90 * SECOND_US, 240 * SECOND_US)
    ahead_us = (1, *minutes_us, MAX_SKEW_US - 1, MAX_SKEW_US, MAX_SKEW_US + 1, HOUR_US, 40 * DAY_US)
    return [(_round(START_US + rng.randrange(SPAN_US), rng), -rng.choice(ahead_us)) for _ in range(60)]


def edges(rng: random.Random) -> list[tuple[int, int]]:
    """Events on tile edges and one microsecond beside them, in gaps of exactly one window."""
    moments = []
    for _ in range(12):
        at = _round(START_US + rng.randrange(SPAN_US), rng)
        for gap in rng.sample(GAPS_US, 3):
            moments += [(at + gap + rng.choice((-1, 0, 1)), 0), (at, rng.choice((0, 1, MINUTE_US)))]
    return moments


def mixed(rng: random.Random) -> list[tuple[int, int]]:
    """Some of each."""
    return [moment for habit in (bursts, late, ahead, edges) for moment in rng.sample(habit(rng), 18)]


HABITS = (bursts, late, copies, ahead, edges, mixed)


def _round(at_us: int, rng: random.Random) -> int:
    """Down to an edge of some tile period, and mostly a microsecond to one side or on it."""
    period_us = rng.choice((MINUTE_US, 5 * MINUTE_US, HOUR_US, DAY_US))
    return at_us // period_us * period_us + rng.choice((-1, 0, 0, 1))
