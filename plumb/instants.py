"""Times as people type them on the command line, and the two clocks: nothing below this floor reads a clock."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta

from features.errors import explain
from plumb.errors import CommandError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_instant(text: str) -> int:
    """UTC microseconds of a date (midnight UTC) or of an ISO 8601 time that names its zone.

    Raises:
        CommandError: the text is neither, or a time without a zone.

    Example:
        >>> parse_instant("1970-01-02"), parse_instant("1970-01-01T01:00:00+01:00")
        (86400000000, 0)
    """
    try:
        if len(text) == len("2011-06-09"):
            moment = datetime.combine(date.fromisoformat(text), datetime.min.time(), tzinfo=UTC)
        else:
            moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandError(
            explain("time cannot be read", which=repr(text), expected="2011-06-09 or 2011-06-09T17:30:00Z", got=str(error),
                    next_step="write it as ISO 8601")
        ) from error  # fmt: skip
    if moment.tzinfo is None:
        raise CommandError(
            explain("time zone is missing", which=repr(text), expected="a zone, such as Z or +01:00", got="none",
                    next_step=f"write {text}Z if it is UTC")
        )  # fmt: skip
    return (moment - EPOCH) // timedelta(microseconds=1)


def show_instant(us: int) -> str:
    """ISO 8601 in UTC.

    Example:
        >>> show_instant(86_400_000_000)
        '1970-01-02T00:00:00Z'
    """
    return (EPOCH + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")


def now_us() -> int:
    """The wall clock, UTC microseconds."""
    return time.time_ns() // 1_000
