"""Profile values as an online store has them, as columns of a graph's inputs: batch and servers read them by one rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from features.declarations import Field
from features.errors import StateError, explain

PYTHON_TYPES: Final[dict[str, type]] = {"string": str, "int64": int}


def read_profiles(values: Sequence[bytes | None]) -> list[dict[str, Any]]:
    """(n,) stored values as mappings; empty where there is none."""
    return [orjson.loads(value) if value else {} for value in values]


def profile_column(profiles: Sequence[Mapping[str, Any]], field: Field) -> list[Any]:
    """(n,) values of a field, its default where a profile has none.

    Raises:
        StateError: one is of another type than the field.
    """
    wanted, default = PYTHON_TYPES[field.dtype], field.default
    values = [row.get(field.name) for row in profiles]
    column = [default if value is None else value for value in values]
    wrong = next((value for value in column if type(value) is not wanted), None)
    if wrong is not None:
        raise StateError(
            explain("stored profile value has a wrong type", which=field.name, expected=field.dtype,
                    got=repr(wrong)[:60], next_step="materialize the profile again")
        )  # fmt: skip
    return column
