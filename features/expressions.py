"""A mapping's values, times and conditions as Polars expressions, each with the reason why a row cannot be read.

All rounding and all time zones are settled here, once: what leaves is text, int64 in the declared unit, or UTC
microseconds, beside an expression that is null where the row is good and a one-line reason where it is not.
"""

from __future__ import annotations

import operator
from functools import reduce
from typing import Final, NamedTuple

import polars as pl
from polars.expr.whenthen import ChainedThen, Then

from features.errors import MappingError, explain
from features.mapping import Condition, TimeValue, Value
from features.source_files import ROW

UTC_TIME: Final = pl.Datetime("us", "UTC")
NO_REASON: Final = pl.lit(None, pl.String)

MAX_WHOLE: Final = 2**53
"""Values beyond this cannot be told from their neighbours once they become floats in the graph."""

BINARY_NOISE_DIGITS: Final = 6
"""Floats are first cut to a millionth of the unit: 1.005 * 100 is 100.49999999999999 in binary but 100.5 in the file."""

ISO_AWARE: Final = r":\d{2}(?:\.\d+)?(?:[+-]\d{2}:?\d{2})$"
ISO_FORMATS: Final = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d")
TIME_LETTERS: Final = ("%H", "%I", "%T", "%R", "%X", "%c", "%s")
"""strftime's letters of which one says that a format holds a time of day."""

COMPARE: Final = {"greater_than": operator.gt, "at_least": operator.ge, "less_than": operator.lt, "at_most": operator.le}
EPOCH_US: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}


class Reading(NamedTuple):
    """A value's expression and its reason's; the reason is null where the value is good."""

    value: pl.Expr
    reason: pl.Expr


def read_text(value: Value, schema: pl.Schema, name: str) -> Reading:
    """An id, a name or a text attribute. Whole numbers become their digits; an empty text is missing."""
    if value.of_row:
        return Reading(pl.lit(value.prefix) + pl.col(ROW).cast(pl.String), NO_REASON)
    if not value.columns:
        return Reading(pl.lit(value.constant, pl.String), NO_REASON)
    source, dtype = pl.col(value.columns[0]), schema[value.columns[0]]
    if dtype.is_float():
        text = pl.when(source == source.floor()).then(source.cast(pl.Int64, strict=False)).cast(pl.String)
    elif dtype.is_nested() or dtype.is_temporal() or dtype == pl.Binary:
        raise _unusable(value.columns[0], dtype, f"{name}: a column of texts or whole numbers")
    else:
        text = source.cast(pl.String).replace("", None)
    unreadable = text.is_null() & source.is_not_null() if dtype.is_float() else pl.lit(False)
    if value.values:
        text = text.replace(dict(value.values))
    text = pl.lit(value.prefix) + text if value.prefix else text
    text = text.fill_null(value.default) if value.default else text
    reason = pl.when(unreadable).then(pl.lit(f"{name} is neither a text nor a whole number"))
    return Reading(text, reason if value.optional else reason.when(text.is_null()).then(pl.lit(f"{name} is missing")))


def read_whole(value: Value, schema: pl.Schema, name: str) -> Reading:
    """An int64 attribute in its declared unit: scaled, rounded if the mapping says so, else refused unless whole."""
    if not value.columns:
        return Reading(pl.lit(1 if value.aggregate == "count" else value.constant, pl.Int64), NO_REASON)
    if value.days_between:
        return _read_days(value, schema, name)
    for column in value.columns:
        if not (schema[column].is_numeric() or schema[column] in (pl.String, pl.Null)):
            raise _unusable(column, schema[column], f"{name}: a column of numbers")
    sources = [pl.col(column) for column in value.columns]
    floats = reduce(_times, (source.cast(pl.Float64, strict=False) for source in sources)) * float(value.scale)
    settled = floats.round(BINARY_NOISE_DIGITS, mode="half_away_from_zero")
    rounded = settled.round(0, mode="half_away_from_zero")
    whole = pl.when(rounded.abs() <= MAX_WHOLE).then(rounded.cast(pl.Int64, strict=False))
    if all(schema[column].is_integer() for column in value.columns):
        exact = reduce(_times, (source.cast(pl.Int64) for source in sources)) * value.scale
        whole = pl.when(floats.abs() <= MAX_WHOLE).then(exact)
    missing = pl.any_horizontal([_absent(pl.col(column), schema[column]) for column in value.columns])
    readable = floats.is_finite().fill_null(False)
    reason: Then | ChainedThen = pl.when(~missing & ~readable).then(pl.lit(f"{name} is not a number"))
    reason = reason.when(~missing & (floats.abs() > MAX_WHOLE)).then(pl.lit(f"{name} is beyond 2**53"))
    if not value.round:
        reason = reason.when(~missing & (settled != rounded)).then(pl.lit(f"{name} is not a whole number"))
    return Reading(whole, reason if value.optional else reason.when(missing).then(pl.lit(f"{name} is missing")))


def _read_days(value: Value, schema: pl.Schema, name: str) -> Reading:
    """Whole days from the first column's date to the second's; a text is read up to its day (ISO 8601)."""
    dates = []
    for column in value.columns:
        source, dtype = pl.col(column), schema[column]
        if dtype == pl.String:
            dates.append(source.str.slice(0, 10).str.to_date(ISO_FORMATS[2], strict=False))
        elif dtype.is_temporal():
            dates.append(source.cast(pl.Date))
        else:
            raise _unusable(column, dtype, f"{name}: a column of dates")
    missing = pl.any_horizontal([_absent(pl.col(column), schema[column]) for column in value.columns])
    days = (dates[1] - dates[0]).dt.total_days()
    unreadable = pl.when(~missing & days.is_null()).then(pl.lit(f"{name} cannot be read as days"))
    return Reading(days, unreadable if value.optional else unreadable.when(missing).then(pl.lit(f"{name} is missing")))


def read_time(time: TimeValue, schema: pl.Schema, zone: str, name: str) -> Reading:
    """A time as UTC microseconds; naive times are local times of ``zone``."""
    if time.constant_us is not None:
        return Reading(pl.lit(time.constant_us, pl.Int64).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"), NO_REASON)
    source, dtype = pl.col(time.column), schema[time.column]
    missing = _absent(source, dtype)
    local, undated = None, pl.lit(False)
    if time.epoch and (dtype.is_numeric() or dtype == pl.String):
        whole = read_whole(Value((time.column,), scale=EPOCH_US[time.epoch]), schema, name).value
        utc = whole.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    elif isinstance(dtype, pl.Datetime) and dtype.time_zone:
        utc = source.dt.convert_time_zone("UTC").cast(UTC_TIME)
    elif isinstance(dtype, pl.Datetime | pl.Date):
        local, undated = _local_times(time, source, dtype, name)
        utc = _to_utc(local, zone)
    elif dtype == pl.String:
        aware, local, undated = _parse_text(time, source)
        utc = pl.coalesce(aware, _to_utc(local, zone))
    elif dtype == pl.Null:
        utc = pl.lit(None, UTC_TIME)
    else:
        raise _unusable(time.column, dtype, f"{name}: times, ISO 8601 texts, or integers with 'epoch: s|ms|us'")
    lacks = "has a time of day of its own" if time.time_of_day_s is not None else "is a date without a time of day"
    reason: Then | ChainedThen = pl.when(missing).then(pl.lit(f"{name} is missing"))
    reason = reason.when(undated).then(pl.lit(f"{name} {lacks}"))
    if local is not None and zone:
        unplaced = local.is_not_null() & utc.is_null()
        reason = reason.when(unplaced).then(pl.lit(f"{name} does not exist or is ambiguous in {zone}"))
    reason = reason.when(utc.is_null()).then(pl.lit(f"{name} cannot be read as a time"))
    return Reading(utc, reason.when(utc.dt.epoch("us") < 0).then(pl.lit(f"{name} is before 1970")))


def naive_rows(time: TimeValue, schema: pl.Schema) -> pl.Expr:
    """Whether a row's time has no zone of its own, so that the mapping must state one."""
    if time.constant_us is not None:
        return pl.lit(False)
    dtype = schema[time.column]
    if time.epoch or (isinstance(dtype, pl.Datetime) and dtype.time_zone):
        return pl.lit(False)
    return _parse_text(time, pl.col(time.column))[1].is_not_null() if dtype == pl.String else pl.col(time.column).is_not_null()


def _local_times(time: TimeValue, source: pl.Expr, dtype: pl.DataType, name: str) -> tuple[pl.Expr, pl.Expr]:
    """(local times of a column of dates or naive times, whether a row contradicts the stated time of day)."""
    local = source.cast(pl.Datetime("us"))
    if time.time_of_day_s is None:
        if dtype == pl.Date:
            raise _unusable(time.column, dtype, f"{name}: times, or dates with time_of_day")
        return local, pl.lit(False)
    return local + pl.duration(seconds=time.time_of_day_s), local != local.dt.truncate("1d")


def match_rows(conditions: tuple[Condition, ...], schema: pl.Schema) -> pl.Expr:
    """Whether a row passes all conditions; null where a number is asked for and the text is none."""
    return reduce(lambda left, right: left & right, (_match(condition, schema) for condition in conditions), pl.lit(True))


def _match(condition: Condition, schema: pl.Schema) -> pl.Expr:
    if condition.operator == "not":
        return ~match_rows(condition.parts, schema)
    if condition.operator == "all":
        return match_rows(condition.parts, schema)
    if condition.operator == "any":
        return reduce(_or, (_match(part, schema) for part in condition.parts), pl.lit(False))
    return _test(condition, pl.col(condition.column), schema[condition.column])


def _test(condition: Condition, source: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    operand = condition.operands[0]
    if condition.operator == "is_null":
        return _absent(source, dtype) == operand
    if condition.operator in ("equals", "in"):
        return reduce(_or, (_equals(source, each) for each in condition.operands))
    if condition.operator == "not_equals":
        return ~_equals(source, operand)
    if condition.operator == "starts_with":
        return source.cast(pl.String).str.starts_with(str(operand)).fill_null(False)
    number = source.cast(pl.Float64, strict=False)
    unreadable = number.is_null() & ~_absent(source, dtype)
    return pl.when(~unreadable).then(COMPARE[condition.operator](number, operand).fill_null(False))


def _times(left: pl.Expr, right: pl.Expr) -> pl.Expr:
    return left * right


def _or(left: pl.Expr, right: pl.Expr) -> pl.Expr:
    return left | right


def _equals(source: pl.Expr, operand: str | int | float | bool) -> pl.Expr:
    if isinstance(operand, str):
        return (source.cast(pl.String) == operand).fill_null(False)
    if isinstance(operand, bool):
        return (source.cast(pl.String).str.to_lowercase() == str(operand).lower()).fill_null(False)
    return (source.cast(pl.Float64, strict=False) == operand).fill_null(False)


def _absent(source: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    return source.is_null() | (source == "") if dtype == pl.String else source.is_null()


def _parse_text(time: TimeValue, source: pl.Expr) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    """(times that state their offset, as UTC; those that do not, as local times; whether the time of day is in doubt)."""
    nothing, no_local, no_date = pl.lit(None, UTC_TIME), pl.lit(None, pl.Datetime("us")), pl.lit(None, pl.Date)
    text = source.str.strip_chars()
    if time.format:
        timed = any(letter in time.format for letter in TIME_LETTERS)
        parsed = text.str.to_datetime(time.format, time_unit="us", strict=False) if timed else no_local
        aware = parsed.dt.convert_time_zone("UTC") if "%z" in time.format else nothing
        local = no_local if "%z" in time.format else parsed
        dates = no_date if timed else text.str.to_date(time.format, strict=False)
    else:
        text = text.str.replace(r"^(\S+) ", "${1}T").str.replace(r"[zZ]$", "+00:00")
        with_offset = pl.when(text.str.contains(ISO_AWARE)).then(text)
        seconds = with_offset.str.replace(r"T(\d{2}:\d{2})([+-]\d{2}:?\d{2})$", "T${1}:00${2}")
        aware = seconds.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", time_unit="us", strict=False).dt.convert_time_zone("UTC")
        local = pl.coalesce(*(text.str.to_datetime(each, time_unit="us", strict=False) for each in ISO_FORMATS[:2]))
        dates = text.str.to_date(ISO_FORMATS[2], strict=False)
    if time.time_of_day_s is None:
        return aware, local, dates.is_not_null() & local.is_null() & aware.is_null()
    placed = dates.cast(pl.Datetime("us")) + pl.duration(seconds=time.time_of_day_s)
    return nothing, placed, pl.coalesce(aware.dt.replace_time_zone(None), local).is_not_null()


def _to_utc(local: pl.Expr, zone: str) -> pl.Expr:
    placed = local.dt.replace_time_zone(zone or "UTC", ambiguous="null", non_existent="null")
    return placed.dt.convert_time_zone("UTC")


def _unusable(column: str, dtype: pl.DataType, expected: str) -> MappingError:
    return MappingError(explain("column cannot be used", which=repr(column), expected=expected, got=f"a column of {dtype}",
                                next_step="map another column, or state how to read this one"))  # fmt: skip
