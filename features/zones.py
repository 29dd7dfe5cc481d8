"""Local clocks: when each IANA zone puts its clock forward or back, as arrays that a graph can hold as constants.

The rules are those of the pinned ``tzdata`` package and not of the machine, so that a graph fitted anywhere is the same.

Source: the IANA time zone database; RFC 9636 (its file format), RFC 5545 section 3.3.5 (times that a change skips or repeats).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from features.errors import DeclarationError, explain
from features.layout import DAY_S, MINUTE_S

UTC: Final = "UTC"
CLOCK: Final = "clock"
CLOCK_FEATURES: Final = ("local_week_s", "clock_change_in_s", "clock_change_s")
"""Of a zone at ``now``: seconds since Monday 00:00 by the local clock; seconds until the clock is put forward or back, at most
``CLOCK_HORIZON_S``; and by how many seconds it then is, forward positive, 0 where no change is so near."""

CLOCK_HORIZON_S: Final = 8 * DAY_S
"""How far ahead a change of the clock is looked for: beyond the week that a schedule covers."""

FIRST_S: Final = 946_684_800
LAST_S: Final = 2_840_140_800
"""2000 and 2060: before and after these years a zone keeps the offset that it then had."""

BEGINNING: Final = int(np.iinfo(np.int64).min)
STEP_S: Final = 10 * DAY_S
HEADER: Final = struct.Struct(">4sc15x6I")


@dataclass(frozen=True)
class ZoneTable:
    """All zones one after another.

    Attributes:
        names: (z,) sorted.
        start: (z + 1,) int64, where each zone's entries begin.
        since_s: (m,) int64 seconds since 1970 from which an offset holds; the first of a zone is the least int64.
        offset_s: (m,) int64 seconds east of UTC.
    """

    names: tuple[str, ...]
    start: NDArray[np.int64]
    since_s: NDArray[np.int64]
    offset_s: NDArray[np.int64]

    def offsets_of(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """``since_s`` and ``offset_s`` of one zone.

        Raises:
            DeclarationError: there is none of that name.
        """
        if name not in self.names:
            raise DeclarationError(
                explain("time zone is not known", which=repr(name), expected="an IANA zone such as Europe/Berlin or UTC",
                        got=repr(name), next_step="correct the zone")
            )  # fmt: skip
        number = self.names.index(name)
        span = slice(self.start[number], self.start[number + 1])
        return self.since_s[span], self.offset_s[span]


@cache
def known_zones() -> frozenset[str]:
    """Names of all zones of the pinned database, links included."""
    return frozenset(files("tzdata").joinpath("zones").read_text(encoding="utf-8").split())


@cache
def load_zones() -> ZoneTable:
    """Every zone of the pinned database, links included."""
    names = tuple(sorted(known_zones()))
    folder = files("tzdata").joinpath("zoneinfo")
    found = [_read_changes(folder.joinpath(*name.split("/")).read_bytes()) for name in names]
    start = np.cumsum([0, *(len(since_s) for since_s, _ in found)]).astype(np.int64)
    return ZoneTable(names, start, np.concatenate([entry[0] for entry in found]), np.concatenate([entry[1] for entry in found]))


def offset_minutes_at(name: str, times_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) whole minutes east of UTC that a zone's clock shows at UTC microseconds.

    Raises:
        DeclarationError: there is no such zone.

    Example:
        >>> offset_minutes_at("Europe/Berlin", np.array([1_743_296_399_000_000, 1_743_296_400_000_000])).tolist()
        [60, 120]
    """
    since_s, offset_s = load_zones().offsets_of(name)
    held = np.searchsorted(since_s, times_us // 1_000_000, side="right") - 1
    return offset_s[held] // MINUTE_S


@cache
def _read_changes(content: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Instants from which offsets hold, and the offsets, of a zone's file: its 64-bit block (RFC 9636, section 3), and after
    that, up to ``LAST_S``, the rule in its footer."""
    counts = HEADER.unpack_from(content)[2:]
    block = HEADER.size + _block_bytes(counts, 4)
    counts = HEADER.unpack_from(content, block)[2:]
    body, changes, kinds = block + HEADER.size, counts[3], counts[4]
    kind = np.frombuffer(content, np.uint8, changes, body + 8 * changes)
    entries = np.frombuffer(content, np.dtype([("offset_s", ">i4"), ("dst", "u1"), ("name", "u1")]), kinds, body + 9 * changes)
    offset_s = entries["offset_s"].astype(np.int64)
    since_s = np.concatenate([[BEGINNING], np.frombuffer(content, ">i8", changes, body)]).astype(np.int64)
    held_s = np.concatenate([offset_s[:1], offset_s[kind]])
    if b"," in content[body + _block_bytes(counts, 8) :]:
        later = _follow_rule(content, max(int(since_s[-1]), FIRST_S))
        since_s, held_s = (np.concatenate(pair) for pair in zip((since_s, held_s), later, strict=True))
    # Of what was before the first year only the last offset matters; a change of name alone changes no clock.
    first = int(np.searchsorted(since_s, FIRST_S, side="right")) - 1
    since_s, held_s = since_s[first:].copy(), held_s[first:]
    since_s[0] = BEGINNING
    differs = np.concatenate([[True], held_s[1:] != held_s[:-1]])
    return since_s[differs], held_s[differs]


def _block_bytes(counts: tuple[int, ...], time_bytes: int) -> int:
    isutc, isstd, leaps, changes, kinds, chars = counts
    return changes * (time_bytes + 1) + kinds * 6 + chars + leaps * (time_bytes + 4) + isstd + isutc


def _follow_rule(content: bytes, from_s: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Later changes: where the offset differs within some days, the second is found by halving."""
    zone = ZoneInfo.from_file(BytesIO(content))

    def offset(at_s: int) -> int:
        held = zone.fromutc(datetime(1970, 1, 1, tzinfo=zone) + timedelta(seconds=at_s)).utcoffset()
        assert held is not None  # a zone is never without an offset
        return int(held.total_seconds())

    held = offset(from_s)
    since_s, offsets = [from_s], [held]
    for at_s in range(from_s, LAST_S, STEP_S):
        if offset(at_s + STEP_S) != held:
            low, high = at_s, at_s + STEP_S
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == held else (low, middle)
            held = offset(high)
            since_s.append(high)
            offsets.append(held)
    return np.array(since_s, dtype=np.int64), np.array(offsets, dtype=np.int64)
