"""The 64-bit tile key and the window rule: the two definitions that every path shares.

A tile is one 16-byte record, two little-endian int64: a key and a value. From the highest bit down the key holds

    0 (1 bit) | signal id (15) | operation (3) | resolution (3) | by (10) | bucket (32)

so that keys sort as signed integers, one run of equal ``key >> 32`` is one series of buckets, and ``key >> 42`` names
the series of all ``by`` values of one signal, operation and resolution.

Window rule: a window W at time t over tiles of period P holds the buckets b with

    floor(t / P) - W / P  <  b  <=  floor(t / P)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from features.errors import DeclarationError, explain

RECORD_BYTES: Final = 16
FORMAT_VERSION: Final = 1
HEADER_SIGNAL_ID: Final = 0

BUCKET_BITS: Final = 32
BY_BITS: Final = 10
RESOLUTION_BITS: Final = 3
OPERATION_BITS: Final = 3
SIGNAL_BITS: Final = 15

BY_SHIFT: Final = BUCKET_BITS
RESOLUTION_SHIFT: Final = BY_SHIFT + BY_BITS
OPERATION_SHIFT: Final = RESOLUTION_SHIFT + RESOLUTION_BITS
SIGNAL_SHIFT: Final = OPERATION_SHIFT + OPERATION_BITS
SERIES_SHIFT: Final = RESOLUTION_SHIFT

BUCKET_MASK: Final = (1 << BUCKET_BITS) - 1
MAX_SIGNAL_ID: Final = (1 << SIGNAL_BITS) - 1
MAX_BY: Final = (1 << BY_BITS) - 1

US_PER_S: Final = 1_000_000
MINUTE_S: Final = 60
HOUR_S: Final = 3_600
DAY_S: Final = 86_400

WEEK_S: Final = 7 * DAY_S

LIFETIME: Final = 0
"""The window length that stands for "since the beginning"."""

MAX_FUTURE_S: Final = 300
"""An event dated more than this many seconds after its ingest_time is dead-lettered everywhere."""

OPERATION_CODES: Final[dict[str, int]] = {"count": 0, "sum": 1, "max": 2, "last": 3, "first": 4}


@dataclass(frozen=True)
class Resolution:
    """A tile period. ``period_s`` is 0 for the lifetime tile, which has the single bucket 0."""

    code: int
    name: str
    period_s: int
    max_window_s: int


MINUTE_TILES: Final = Resolution(0, "1min", MINUTE_S, HOUR_S)
FIVE_MINUTE_TILES: Final = Resolution(1, "5min", 5 * MINUTE_S, 12 * HOUR_S)
HOUR_TILES: Final = Resolution(2, "1h", HOUR_S, 12 * DAY_S)
DAY_TILES: Final = Resolution(3, "1d", DAY_S, (1 << 31) * DAY_S)
LIFETIME_TILES: Final = Resolution(4, "lifetime", 0, 0)
RESOLUTIONS: Final = (MINUTE_TILES, FIVE_MINUTE_TILES, HOUR_TILES, DAY_TILES, LIFETIME_TILES)


def resolution_of(window_s: int) -> Resolution:
    """The finest resolution whose tiles answer a window of ``window_s`` seconds (``LIFETIME`` for all time).

    Raises:
        DeclarationError: the window is negative or no whole number of its resolution's tiles.

    Example:
        >>> resolution_of(7 * DAY_S).name, resolution_of(LIFETIME).name
        ('1h', 'lifetime')
    """
    if window_s == LIFETIME:
        return LIFETIME_TILES
    for resolution in RESOLUTIONS[:-1]:
        if 0 < window_s <= resolution.max_window_s:
            if window_s % resolution.period_s == 0:
                return resolution
            raise DeclarationError(
                explain(
                    "window does not fit its tiles",
                    which=f"{window_s} s",
                    expected=f"a multiple of {resolution.period_s} s",
                    got=f"remainder {window_s % resolution.period_s} s",
                    next_step="round the window to whole tiles",
                )
            )
    raise DeclarationError(
        explain("window is not positive", which=f"{window_s} s", expected="> 0 or LIFETIME", got=str(window_s),
                next_step="declare a positive window")
    )  # fmt: skip


def retention_buckets(resolution: Resolution, longest_window_s: int) -> int:
    """How many of the newest buckets a series must keep to answer its longest window exactly.

    The newest bucket may be dated up to ``MAX_FUTURE_S`` after the time a window is read at, hence the surplus.
    """
    surplus = -(-MAX_FUTURE_S // resolution.period_s)
    return longest_window_s // resolution.period_s + surplus


def pack_series(signal_id: int, operation: str, resolution: Resolution) -> int:
    """The key bits above ``by``: what ``key >> SERIES_SHIFT`` gives for every tile of this series.

    Example:
        >>> pack_series(1, "count", MINUTE_TILES)
        64
    """
    return (signal_id << (SIGNAL_SHIFT - SERIES_SHIFT)) | (OPERATION_CODES[operation] << RESOLUTION_BITS) | resolution.code


def pack_key(signal_id: int, operation: str, resolution: Resolution, by: int, bucket: int) -> int:
    """One tile's key; every argument must already be within its bits."""
    return (pack_series(signal_id, operation, resolution) << SERIES_SHIFT) | (by << BY_SHIFT) | bucket


def header_key(log_partition: int) -> int:
    """The key of a state's header record; its value is the log offset of the entity's last folded event."""
    return (FORMAT_VERSION << BY_SHIFT) | log_partition
