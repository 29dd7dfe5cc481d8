"""Local clocks by the pinned database: every zone, both switches, and hours of the week that are local where events say so."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.resources import files
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

from features.catalogs import load_catalog
from features.declarations import HOUR_OF_WEEK, By
from features.errors import DeclarationError
from features.matching import by_codes
from features.zones import FIRST_S, LAST_S, load_zones, offset_minutes_at

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def instant_us(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize("name", load_zones().names[::23])
def test_offsets_are_those_of_the_standard_library_on_the_same_database(name: str) -> None:
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        zone = ZoneInfo.from_file(file)
    seconds = np.random.default_rng(0).integers(FIRST_S, LAST_S, 200)
    wanted = [datetime.fromtimestamp(at, UTC).astimezone(zone).utcoffset() for at in seconds.tolist()]
    found = offset_minutes_at(name, seconds * 1_000_000)
    assert found.tolist() == [int(offset.total_seconds() // 60) for offset in wanted if offset is not None]


@pytest.mark.parametrize(
    ("zone", "last_second", "before", "after"),
    [
        (BERLIN, "2025-03-30T00:59:59", 60, 120),  # put forward at 02:00 CET, 01:00 UTC
        (BERLIN, "2025-10-26T00:59:59", 120, 60),  # put back at 03:00 CEST, 01:00 UTC
        (NEW_YORK, "2025-03-09T06:59:59", -300, -240),  # put forward at 02:00 EST, 07:00 UTC
        (NEW_YORK, "2025-11-02T05:59:59", -240, -300),  # put back at 02:00 EDT, 06:00 UTC
        ("Australia/Lord_Howe", "2025-10-04T15:29:59", 630, 660),  # half an hour, at 02:00 local
    ],
)
def test_a_clock_changes_at_its_very_second(zone: str, last_second: str, before: int, after: int) -> None:
    last_us = instant_us(last_second)
    assert offset_minutes_at(zone, np.array([last_us, last_us + 1_000_000])).tolist() == [before, after]


def test_an_unknown_zone_is_refused_by_name() -> None:
    with pytest.raises(DeclarationError, match=r"time zone is not known.*Europe/Atlantis"):
        offset_minutes_at("Europe/Atlantis", np.array([0]))


def codes_of(zone: str, texts: list[str], by: By) -> list[int]:
    times_us = np.array([instant_us(text) for text in texts])
    events = pa.table({"utc_offset_minutes": pa.array(offset_minutes_at(zone, times_us))})
    return by_codes(events, by, np.arange(len(texts)), times_us).tolist()


LOCAL = By(HOUR_OF_WEEK, offset="utc_offset_minutes")


def test_no_event_falls_into_the_hour_that_the_clock_skips() -> None:
    # 2025-03-30 is a Sunday, whose hours are 144 to 167; 00:30 and 01:30 UTC are 01:30 CET and 03:30 CEST.
    assert codes_of(BERLIN, ["2025-03-30T00:30:00", "2025-03-30T01:30:00"], LOCAL) == [144 + 1, 144 + 3]


def test_events_of_an_hour_that_the_clock_shows_twice_share_its_code() -> None:
    # 2025-11-02 is a Sunday; 05:30 and 06:30 UTC are 01:30 EDT and 01:30 EST, 07:30 is 02:30 EST.
    found = codes_of(NEW_YORK, ["2025-11-02T05:30:00", "2025-11-02T06:30:00", "2025-11-02T07:30:00"], LOCAL)
    assert found == [144 + 1, 144 + 1, 144 + 2]


def test_the_same_local_hour_has_the_same_code_in_summer_and_winter() -> None:
    # Mondays at 09:00 local: 08:00 UTC in January, 07:00 UTC in July. By UTC the codes differ.
    mondays = ["2025-01-06T08:00:00", "2025-07-07T07:00:00"]
    assert codes_of(BERLIN, mondays, LOCAL) == [9, 9]
    assert codes_of(BERLIN, mondays, By(HOUR_OF_WEEK)) == [8, 7]


def test_an_event_that_does_not_say_its_offset_has_the_code_of_no_hour() -> None:
    events = pa.table({"utc_offset_minutes": pa.array([None, 60], pa.int64())})
    assert by_codes(events, LOCAL, np.array([0, 1]), np.array([0, 0])).tolist() == [168, 72 + 1]
    assert (LOCAL.size, LOCAL.label(168), LOCAL.label(9)) == (169, "unknown", "h009")


def test_hashes_of_views_from_before_local_hours_stand() -> None:
    catalog = load_catalog("subscription")
    assert catalog.view_hash(catalog.view("subscriber")).startswith("923b62c51f0d")
