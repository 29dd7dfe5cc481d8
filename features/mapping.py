"""What a mapping says: how the rows of a file become events and profile rows. ``features.mapping_file`` reads the YAML.

A mapping is declarative and frozen. Its ``digest`` is recorded with every import, so the same file is never imported
twice under the same mapping, nor under another one by mistake.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final, Literal

Aggregate = Literal["", "sum", "min", "max", "first", "count"]
Epoch = Literal["", "s", "ms", "us"]
Scalar = str | int | float | bool

HALF_AWAY: Final = "half_away_from_zero"
FILE_AND_ROW: Final = "file_and_row"


@dataclass(frozen=True)
class Value:
    """One value of an event: a column, a constant, a product of columns, or the count of a group's rows.

    ``of_row`` takes the row's number in its file, from 0: a name for what a file lists without one. ``days_between`` takes
    the whole days from the first column's date to the second's.

    ``scale`` turns the file's unit into the declared one (pounds to cents: 100). A number that is not whole after
    scaling makes the row bad unless ``round`` says how to round; rounding is done row by row, before any sum.
    ``values`` renames texts, ``prefix`` goes before a text. A missing value makes the row bad unless ``optional``; a missing
    text may have a ``default`` instead.
    """

    columns: tuple[str, ...] = ()
    constant: str | int | None = None
    scale: int = 1
    round: str = ""
    values: tuple[tuple[str, str], ...] = ()
    prefix: str = ""
    aggregate: Aggregate = ""
    optional: bool = False
    default: str = ""
    of_row: bool = False
    days_between: bool = False


@dataclass(frozen=True)
class TimeValue:
    """A time: a column of times, of text (ISO 8601, or ``format`` in strftime's letters) or of integers since 1970.

    A column of dates needs ``time_of_day_s``, seconds from midnight in the mapping's time zone: a date alone does not say
    what was known when. Without a column, ``constant_us`` is the one time of all rows, in UTC microseconds.
    """

    column: str = ""
    epoch: Epoch = ""
    format: str = ""
    aggregate: Aggregate = ""
    time_of_day_s: int | None = None
    constant_us: int | None = None


@dataclass(frozen=True)
class Delay:
    """A time that follows another by a stated number of seconds."""

    delay_s: int


@dataclass(frozen=True)
class Condition:
    """A test of one column, or ``all`` / ``any`` / ``not`` of other conditions. A missing value passes ``is_null`` alone."""

    operator: str
    column: str = ""
    operands: tuple[Scalar, ...] = ()
    parts: tuple[Condition, ...] = ()

    def columns(self) -> Iterator[str]:
        """Every column that is tested."""
        if self.column:
            yield self.column
        for part in self.parts:
            yield from part.columns()


@dataclass(frozen=True)
class Join:
    """Adds the columns of a side file, which lies in the folder of the imported file, by one column that both have.

    The side file has one row a key. A row whose key it lacks is bad.
    """

    file: str
    on: str


@dataclass(frozen=True)
class EventBlock:
    """How rows become events. ``event_type`` is a constant, or a column whose texts name event types of ``entity``.

    ``event_id`` None stands for file hash, row and event type. With ``group_by``, all rows that are equal in those
    columns make one event; every other column then needs an aggregate. With ``file``, only files of that name are read.
    """

    entity: str
    event_type: Value
    entity_id: Value
    event_id: Value | None
    event_time: TimeValue
    ingest_time: TimeValue | Delay
    region: Value
    where: tuple[Condition, ...] = ()
    group_by: tuple[str, ...] = ()
    attributes: tuple[tuple[str, Value], ...] = ()
    file: str = ""
    join: tuple[Join, ...] = ()

    @property
    def times(self) -> tuple[TimeValue | Delay, ...]:
        """Event time, ingest time."""
        return self.event_time, self.ingest_time

    def columns(self) -> Iterator[str]:
        """Every column that the file must have once it is joined, repeats included."""
        yield from self.group_by
        for value in (self.event_type, self.entity_id, self.region, *(value for _, value in self.attributes)):
            yield from value.columns
        yield from self.event_id.columns if self.event_id else ()
        yield from _columns(self.where, *self.times)


@dataclass(frozen=True)
class ProfileBlock:
    """How rows become rows of one profile. ``collapse`` drops a row that repeats the values of the one before it."""

    profile: str
    entity_id: Value
    valid_from: TimeValue
    created_time: TimeValue | Delay
    where: tuple[Condition, ...] = ()
    fields: tuple[tuple[str, Value], ...] = ()
    collapse: bool = False
    file: str = ""
    join: tuple[Join, ...] = ()

    @property
    def times(self) -> tuple[TimeValue | Delay, ...]:
        """Valid from, created time."""
        return self.valid_from, self.created_time

    def columns(self) -> Iterator[str]:
        """Every column that the file must have once it is joined, repeats included."""
        for value in (self.entity_id, *(value for _, value in self.fields)):
            yield from value.columns
        yield from _columns(self.where, *self.times)


@dataclass(frozen=True)
class Mapping:
    """A whole mapping file. ``time_zone`` is that of times without one; rows that fail ``where`` are filtered."""

    name: str
    catalog: str
    time_zone: str
    where: tuple[Condition, ...]
    events: tuple[EventBlock, ...]
    profiles: tuple[ProfileBlock, ...]

    @property
    def digest(self) -> int:
        """62 bits that tell this mapping's meaning from another's; comments and layout do not count."""
        content = {key: value for key, value in asdict(self).items() if key != "name"}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 2

    @property
    def blocks(self) -> tuple[EventBlock | ProfileBlock, ...]:
        """Event blocks, then profile blocks."""
        return (*self.events, *self.profiles)


def _columns(where: tuple[Condition, ...], *times: TimeValue | Delay) -> Iterator[str]:
    for condition in where:
        yield from condition.columns()
    for time in times:
        if isinstance(time, TimeValue) and time.column:
            yield time.column
