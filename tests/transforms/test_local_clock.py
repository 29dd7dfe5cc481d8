"""Local hours to UTC instants over every kind of change of the clock, by the graph's own clock and against zoneinfo."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import tensorflow as tf

from features.layout import HOUR_S, US_PER_S
from features.slots import SLOTS
from models.slot_schedule import wait_until
from transforms.local_clock import read_clock

SUNDAY_1, SUNDAY_2, SUNDAY_3 = 145, 146, 147


def starts(zone: str, moments: list[datetime]) -> list[list[datetime]]:
    """Of each moment, when each slot next begins; a slot that one is in began now."""
    now_us = tf.constant([int(at.timestamp()) * US_PER_S for at in moments], tf.int64)
    clock = read_clock(tf.fill([len(moments)], zone), now_us)
    waits_s = wait_until(tf.tile(tf.range(SLOTS)[None, :], [len(moments), 1]), clock).numpy().tolist()
    return [[at + timedelta(seconds=wait_s) for wait_s in row] for at, row in zip(moments, waits_s, strict=True)]


def by_the_calendar(zone: str, at: datetime) -> list[datetime]:
    """The same by zoneinfo alone: the next such hour on the wall clock, at its first time (RFC 5545, 3.3.5); an hour that is
    skipped is read with the offset before the gap, which is where the clock leaps."""
    there = ZoneInfo(zone)
    wall = at.astimezone(there).replace(tzinfo=None)
    hour = wall.replace(minute=0, second=0)
    found = [at] * SLOTS
    for ahead in range(SLOTS):
        begins = hour + timedelta(hours=ahead)
        slot = begins.weekday() * 24 + begins.hour
        found[slot] = begins.replace(tzinfo=there).astimezone(UTC) if ahead else at
    return found


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "now", "slot", "begins"),
    [
        # Berlin leaps from 02:00 to 03:00 at 01:00 UTC on 30 March 2025: 02:00 does not exist and begins with 03:00.
        ("Europe/Berlin", "2025-03-24T12:00:00", SUNDAY_1, "2025-03-30T00:00:00"),
        ("Europe/Berlin", "2025-03-24T12:00:00", SUNDAY_2, "2025-03-30T01:00:00"),
        ("Europe/Berlin", "2025-03-24T12:00:00", SUNDAY_3, "2025-03-30T01:00:00"),
        # From Monday on 09:00 is 07:00 UTC instead of 08:00.
        ("Europe/Berlin", "2025-03-28T12:00:00", 9, "2025-03-31T07:00:00"),
        # It falls back from 03:00 to 02:00 at 01:00 UTC on 26 October 2025: 02:00 comes at 00:00 UTC and at 01:00 UTC.
        ("Europe/Berlin", "2025-10-20T12:00:00", SUNDAY_2, "2025-10-26T00:00:00"),
        ("Europe/Berlin", "2025-10-20T12:00:00", SUNDAY_3, "2025-10-26T02:00:00"),
        ("Europe/Berlin", "2025-10-26T01:30:00", SUNDAY_2, "2025-10-26T01:30:00"),
        ("Europe/Berlin", "2025-10-24T12:00:00", 9, "2025-10-27T08:00:00"),
        # New York leaps from 02:00 to 03:00 at 07:00 UTC on 9 March 2025, and falls back from 02:00 to 01:00 at 06:00 UTC on
        # 2 November 2025: 01:00 comes at 05:00 UTC and at 06:00 UTC.
        ("America/New_York", "2025-03-04T00:30:00", SUNDAY_2, "2025-03-09T07:00:00"),
        ("America/New_York", "2025-03-04T00:30:00", SUNDAY_3, "2025-03-09T07:00:00"),
        ("America/New_York", "2025-03-04T00:30:00", 148, "2025-03-09T08:00:00"),
        ("America/New_York", "2025-10-28T00:30:00", SUNDAY_1, "2025-11-02T05:00:00"),
        ("America/New_York", "2025-10-28T00:30:00", SUNDAY_2, "2025-11-02T07:00:00"),
    ],
)
def test_a_local_hour_begins_at_the_right_instant_on_both_sides_of_a_change(
    zone: str, now: str, slot: int, begins: str
) -> None:  # fmt: skip
    assert starts(zone, [utc(now)])[0][slot] == utc(begins)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"])
def test_every_slot_begins_where_the_calendar_has_it_in_the_weeks_around_each_change(zone: str) -> None:
    """Lord Howe moves its clock by half an hour, and Kolkata lies half an hour off and never moves it."""
    rng = np.random.default_rng(1)
    changes = ("2025-03-09T07:00", "2025-03-30T01:00", "2025-10-04T15:30", "2025-10-26T01:00", "2025-11-02T06:00")
    minutes = [-60, -1, 0, 1, 60, *rng.integers(-8 * 24 * 60, 24 * 60, 15).tolist()]
    moments = [utc(change) + timedelta(minutes=later) for change in changes for later in minutes]
    assert starts(zone, moments) == [by_the_calendar(zone, at) for at in moments]


def test_a_zone_that_nobody_knows_counts_as_utc() -> None:
    now_us = tf.constant([int(utc("2025-03-28T12:00:00").timestamp()) * US_PER_S] * 3, tf.int64)
    named, unknown, empty = read_clock(tf.constant(["UTC", "Mars/Olympus", ""]), now_us).numpy().tolist()
    assert named == unknown == empty == [(4 * 24 + 12) * HOUR_S, 8 * 24 * HOUR_S, 0]
