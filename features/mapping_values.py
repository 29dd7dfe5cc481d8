"""Reads the small parts of a mapping: values, times and conditions; every key is known, or one line says which is not."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final, cast

from features.errors import MappingError, explain
from features.layout import HOUR_S, MINUTE_S
from features.mapping import HALF_AWAY, Aggregate, Condition, Delay, Epoch, Join, Scalar, TimeValue, Value

VALUE_KEYS: Final = (
    "column",
    "constant",
    "product",
    "row",
    "days_between",
    "sum",
    "min",
    "max",
    "first",
    "scale",
    "round",
    "values",
    "prefix",
    "optional",
    "default",
)
SOURCES: Final = ("column", "constant", "product", "row", "days_between")  # fmt: skip
AGGREGATES: Final = ("sum", "min", "max", "first")
ORDERINGS: Final = ("greater_than", "at_least", "less_than", "at_most")
OPERATORS: Final = ("equals", "not_equals", "in", "starts_with", *ORDERINGS, "is_null")


def parse_value(spec: object, which: str) -> Value:
    """A column's name, ``count``, or keys of ``VALUE_KEYS``."""
    if isinstance(spec, str):
        return Value(columns=(spec,)) if spec != "count" else Value(aggregate="count")
    entries = check_keys(spec, VALUE_KEYS, which)
    aggregate: list[str] = [key for key in AGGREGATES if key in entries]
    source: list[str] = [key for key in SOURCES if key in entries]
    got = ", ".join(aggregate + source) or "none"
    check(len(aggregate) + len(source) == 1, which, f"one of {', '.join((*SOURCES, *AGGREGATES))}", got)
    if aggregate:
        inner = parse_value(entries[aggregate[0]], f"{which}.{aggregate[0]}")
        alone = not inner.aggregate and len(entries) == 1
        check(alone, which, f"{aggregate[0]} of a column or product, and nothing beside it", repr(spec))
        return replace(inner, aggregate=cast("Aggregate", aggregate[0]))
    _check_value(entries, which)
    named = entries.get(source[0]) if source[0] in ("product", "days_between") else [entries.get("column")]
    columns = check_strings(named, which) if source[0] in ("column", "product", "days_between") else []
    check(source[0] != "days_between" or len(columns) == 2, which, "two columns of dates", repr(named))
    return Value(columns=tuple(columns), constant=entries.get("constant"), scale=entries.get("scale", 1),
                 round=entries.get("round", ""), prefix=str(entries.get("prefix", "")), optional=entries.get("optional", False),
                 values=tuple((str(old), str(new)) for old, new in entries.get("values", {}).items()),
                 default=entries.get("default", ""), of_row=source[0] == "row",
                 days_between=source[0] == "days_between")  # fmt: skip


def _check_value(entries: dict[str, Any], which: str) -> None:
    constant, rounding, scale = entries.get("constant", ""), entries.get("round", ""), entries.get("scale", 1)
    whole_or_text = isinstance(constant, str | int) and not isinstance(constant, bool)
    check(whole_or_text, f"{which}.constant", "a text or a whole number", repr(constant))
    check(isinstance(scale, int) and scale > 0, f"{which}.scale", "a whole number above 0", repr(scale))
    check(rounding in ("", HALF_AWAY), f"{which}.round", HALF_AWAY, repr(rounding))
    for key, kind, expected, absent in (("values", dict, "texts and their new texts", {}), ("default", str, "a text", ""),
                                        ("optional", bool, "true or false", False), ("row", bool, "true", True)):  # fmt: skip
        value = entries.get(key, absent)
        check(isinstance(value, kind) and (key != "row" or bool(value)), f"{which}.{key}", expected, repr(value))


def parse_time(spec: object, which: str) -> TimeValue:
    """A column's name; a column with epoch, format, time of day or aggregate; or a constant."""
    if isinstance(spec, str):
        return TimeValue(spec)
    entries = check_keys(spec, ("column", "constant", "epoch", "format", "time_of_day", "min", "max", "first"), which)
    source = [key for key in ("column", "constant", "min", "max", "first") if key in entries]
    check(len(source) == 1, which, "one of column, constant, min, max, first", ", ".join(entries))
    if source[0] == "constant":
        check(len(entries) == 1, which, "a constant and nothing beside it", repr(spec))
        return TimeValue(constant_us=_constant_us(entries["constant"], f"{which}.constant"))
    if source[0] != "column":
        return replace(parse_time(entries[source[0]], which), aggregate=cast("Aggregate", source[0]))
    check(entries.get("epoch", "") in ("", "s", "ms", "us"), f"{which}.epoch", "s, ms or us", repr(entries.get("epoch")))
    column, form = check_strings([entries["column"], entries.get("format", "")], which)
    time_of_day_s = _seconds_of_day(entries["time_of_day"], f"{which}.time_of_day") if "time_of_day" in entries else None
    check(not entries.get("epoch") or time_of_day_s is None, which, "a date where a time of day is stated", "an epoch")
    return TimeValue(column, cast("Epoch", entries.get("epoch", "")), form, time_of_day_s=time_of_day_s)


def _seconds_of_day(text: object, which: str) -> int:
    """YAML reads 12:00 without quotes as the number 720, so only a text is taken."""
    expected = "a quoted text such as '12:00' or '23:59:59'"
    try:
        time = dt.time.fromisoformat(text) if isinstance(text, str) else None
    except ValueError as error:
        raise refused(which, expected, repr(text)) from error
    if time is None or time.tzinfo is not None or time.microsecond:
        raise refused(which, expected, repr(text))
    return time.hour * HOUR_S + time.minute * MINUTE_S + time.second


def _constant_us(moment: object, which: str) -> int:
    expected = "a quoted time with its zone, such as '2017-01-01T00:00:00Z'"
    try:
        parsed = dt.datetime.fromisoformat(moment) if isinstance(moment, str) else None
    except ValueError as error:
        raise refused(which, expected, repr(moment)) from error
    if parsed is None or parsed.tzinfo is None:
        raise refused(which, expected, repr(moment))
    return (parsed - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def parse_joins(spec: object, which: str) -> tuple[Join, ...]:
    """A list of side files, each with the column that it shares with the imported file."""
    entries = [] if spec is None else spec
    check(isinstance(entries, list), which, "a list of side files", repr(spec))
    joins = []
    for row, entry in enumerate(cast("list[object]", entries)):
        keys = check_keys(entry, ("file", "on"), f"{which}[{row}]")
        names = [keys.get("file"), keys.get("on")]
        check(all(isinstance(name, str) and name for name in names), f"{which}[{row}]", "texts for file and on", repr(entry))
        joins.append(Join(*cast("list[str]", names)))
    return tuple(joins)


def parse_time_or_delay(spec: object, which: str) -> TimeValue | Delay:
    """``{delay_s: 3600}``, or a time."""
    if isinstance(spec, dict) and "delay_s" in spec:
        delay_s = check_keys(spec, ("delay_s",), which)["delay_s"]
        check(isinstance(delay_s, int) and delay_s >= 0, f"{which}.delay_s", "seconds, a whole number from 0", repr(delay_s))
        return Delay(delay_s)
    return parse_time(spec, which)


def parse_conditions(spec: object, which: str) -> tuple[Condition, ...]:
    """One condition or a list of them, all of which must hold."""
    entries = [] if spec is None else spec if isinstance(spec, list) else [spec]
    return tuple(_condition(entry, f"{which}[{row}]") for row, entry in enumerate(entries))


def _condition(spec: object, which: str) -> Condition:
    entries = check_keys(spec, ("column", "not", "all", "any", *OPERATORS), which)
    for operator in ("not", "all", "any"):
        if operator in entries:
            check(len(entries) == 1, which, f"{operator!r} alone", ", ".join(entries))
            return Condition(operator, parts=parse_conditions(entries[operator], f"{which}.{operator}"))
    operators = [key for key in entries if key != "column"]
    check(
        len(operators) == 1 and isinstance(entries.get("column"), str),
        which,
        f"a column and one of {', '.join(OPERATORS)}",
        repr(spec),
    )
    operator, operand = operators[0], entries[operators[0]]
    operands = operand if operator == "in" and isinstance(operand, list) else [operand]
    check(
        bool(operands) and all(isinstance(entry, str | int | float) for entry in operands),
        which,
        "texts, numbers or true/false",
        repr(operand),
    )
    if operator == "starts_with":
        check(isinstance(operand, str), which, "a text", repr(operand))
    if operator in ORDERINGS:
        check(isinstance(operand, int | float) and not isinstance(operand, bool), which, "a number", repr(operand))
    if operator == "is_null":
        check(isinstance(operand, bool), which, "true or false", repr(operand))
    return Condition(operator, entries["column"], tuple(cast("list[Scalar]", operands)))


def check_strings(entries: object, which: str) -> list[str]:
    """The entries, if they are a list of texts."""
    check(isinstance(entries, list) and all(isinstance(entry, str) for entry in entries), which, "column names", repr(entries))
    return cast("list[str]", entries)


def check_keys(entries: object, known: Iterable[str], which: str) -> dict[str, Any]:
    """The entries, if they are keys and values and every key is known."""
    names = list(known)
    check(isinstance(entries, dict), which, f"keys among {', '.join(names)}", repr(entries))
    keys = cast("dict[str, Any]", entries)
    unknown = [str(key) for key in keys if key not in names]
    check(not unknown, which, f"keys among {', '.join(names) or 'none'}", ", ".join(unknown))
    return keys


def check(holds: bool, which: str, expected: str, got: str, next_step: str = "correct the mapping") -> None:
    """Raise ``MappingError`` with one line unless ``holds``."""
    if not holds:
        raise refused(which, expected, got, next_step)


def refused(which: str, expected: str, got: str, next_step: str = "correct the mapping") -> MappingError:
    """The error of a mapping's part that does not fit."""
    return MappingError(explain("mapping does not fit", which=which, expected=expected, got=got, next_step=next_step))
