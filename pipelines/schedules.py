"""When a scheduled run starts: KFP's cron expressions, which begin with seconds, checked before they are sent."""

from __future__ import annotations

import re
from typing import Final

from features.errors import explain
from pipelines.errors import SubmissionError

FIELDS: Final = (
    ("second", 0, 59), ("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 6),
)  # fmt: skip
NAMES: Final = {
    "month": ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    "day of week": ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}
PART: Final = re.compile(r"(?:\*|\?|(?P<low>\w+)(?:-(?P<high>\w+))?)(?:/(?P<step>\d+))?")


def check_cron(expression: str) -> str:
    """The expression with single blanks between its six fields: second, minute, hour, day of month, month, day of week.

    Raises:
        SubmissionError: it has another number of fields, or one of them cannot be read.

    Example:
        >>> check_cron("0 30 4 * *  mon-fri")
        '0 30 4 * * mon-fri'
    """
    fields = expression.split()
    if len(fields) != len(FIELDS):
        raise _refuse(expression, f"{len(FIELDS)} fields: {', '.join(name for name, _, _ in FIELDS)}", f"{len(fields)} fields")
    for text, (name, lowest, highest) in zip(fields, FIELDS, strict=True):
        for part in text.split(","):
            if not _is_valid(part, name, lowest, highest):
                raise _refuse(expression, f"a {name} of {lowest} to {highest}, a range, a list, a step or *", repr(part))
    return " ".join(fields)


def _is_valid(part: str, name: str, lowest: int, highest: int) -> bool:
    found = PART.fullmatch(part.lower())
    if found is None or found["step"] == "0":
        return False
    values = [_number(found[group], name) for group in ("low", "high") if found[group] is not None]
    in_bounds = all(value is not None and lowest <= value <= highest for value in values)
    return in_bounds and values == sorted(value for value in values if value is not None)


def _number(word: str, name: str) -> int | None:
    if word in NAMES.get(name, ()):
        return NAMES[name].index(word) + (1 if name == "month" else 0)
    return int(word) if word.isdecimal() else None


def _refuse(expression: str, expected: str, got: str) -> SubmissionError:
    return SubmissionError(
        explain("schedule cannot be read", which=repr(expression), expected=expected, got=got,
                next_step="correct --every, such as '0 30 4 * * *' for 04:30:00 UTC every day")
    )  # fmt: skip
