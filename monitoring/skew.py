"""Served rows beside the same rows made again: what differs, in which signal first, and how often.

Pure comparisons of arrays and bytes. Who makes the rows again is no concern of this module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.layout import RECORD_BYTES, SIGNAL_SHIFT, US_PER_S
from features.rows import SKEW

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

STATE: Final = "state"
PROFILE: Final = "profile"
INPUTS: Final = "inputs"
INTEGERS: Final = "integers"
WINDOWS: Final = "windows"
FINISHED: Final = "finished"
TRANSFORMED: Final = "transformed"
SCORE: Final = "score"
KINDS: Final = (STATE, PROFILE, INPUTS, INTEGERS, WINDOWS, FINISHED, TRANSFORMED, SCORE)
"""What is compared, in the order in which a row comes about: an earlier difference explains the later ones."""

REPLAY: Final = "replay"
"""Against the batch path at the offset that the row names: nothing may differ."""
TRAINING: Final = "training"
"""Against the training kernel at the row's ``now``: what lag and late events change."""

SCORE_TOLERANCE: Final = 1e-6
"""Matrix products differ in their last bits by batch size; features must not differ at all."""
UNNAMED: Final = "a signal that no whole row shows"
POSITION: Final = "log position"
"""Stands for a signal where only the header of a state differs."""


@dataclass(frozen=True)
class Places:
    """Whose rows are compared: entity and ``now`` (UTC microseconds) of each, parallel to the arrays compared."""

    entity_ids: Sequence[str]
    now_us: Sequence[int]


@dataclass(frozen=True)
class Example:
    """One row in which a signal differs, and its two values as text."""

    entity_id: str
    now_us: int
    detail: str


@dataclass(frozen=True)
class Difference:
    """What was compared of one signal (or field) in one way.

    Attributes:
        values, differing: values compared, and those that differ; bytes of state count as one value a row and signal.
        rows, differing_rows: rows compared, and those in which any value differs.
    """

    comparison: str
    kind: str
    signal: str
    rows: int = 0
    values: int = 0
    differing: int = 0
    differing_rows: int = 0
    example: Example | None = None

    def added(self, other: Difference) -> Difference:
        return replace(
            self, rows=self.rows + other.rows, values=self.values + other.values, differing=self.differing + other.differing,
            differing_rows=self.differing_rows + other.differing_rows, example=self.example or other.example,
        )  # fmt: skip


@dataclass
class Tally:
    """Counts over all chunks of an audit.

    Attributes:
        checked, mismatched: rows by kind, of the comparison with the replay.
        differences: by comparison, kind and signal.
    """

    checked: Counter[str] = field(default_factory=Counter)
    mismatched: Counter[str] = field(default_factory=Counter)
    differences: dict[tuple[str, str, str], Difference] = field(default_factory=dict)

    def count_rows(self, kind: str, differs: Mask) -> None:
        """Count whole rows of one kind."""
        self.checked[kind] += len(differs)
        self.mismatched[kind] += int(differs.sum())

    def add(self, differences: Sequence[Difference]) -> None:
        for one in differences:
            key = (one.comparison, one.kind, one.signal)
            known = self.differences.get(key)
            self.differences[key] = known.added(one) if known else one

    @property
    def mismatches(self) -> int:
        """Rows that differ from their replay, each kind counted by itself."""
        return sum(self.mismatched.values())

    def first(self, order: Sequence[str]) -> Difference | None:
        """The first differing signal of the replay: of the earliest kind, and of it the first in ``order``.

        Hashes alone, where no differing row was logged whole, tell the kind but no signal.
        """
        ranks = {name: rank for rank, name in enumerate(order)}
        found = [one for one in self.differences.values() if one.comparison == REPLAY and one.differing]
        found += [
            Difference(REPLAY, kind, UNNAMED, self.checked[kind], self.checked[kind], rows, rows)
            for kind, rows in self.mismatched.items()
            if rows
        ]
        return min(found, key=lambda one: (KINDS.index(one.kind), ranks.get(one.signal, len(ranks))), default=None)


def compare_blocks(
    comparison: str, kind: str, served: NDArray[Any], rebuilt: NDArray[Any], names: Sequence[tuple[str, str]], places: Places
) -> tuple[list[Difference], Mask]:  # fmt: skip
    """Compare two (n, k) blocks bit by bit.

    Args:
        names: (column, signal) of each of the k columns.

    Returns:
        One difference a signal, counts of equal ones included, and which of the n rows differ anywhere.
    """
    differs = _bits(served) != _bits(rebuilt)
    found = []
    for signal in dict.fromkeys(signal for _, signal in names):
        columns = [number for number, (_, of) in enumerate(names) if of == signal]
        mine = differs[:, columns]
        rows = mine.any(axis=1)
        example = None
        if rows.any():
            row = int(rows.argmax())
            column = columns[int(mine[row].argmax())]
            detail = f"{names[column][0]}: served {served[row, column]}, rebuilt {rebuilt[row, column]}"
            example = Example(places.entity_ids[row], places.now_us[row], detail)
        found.append(
            Difference(comparison, kind, signal, len(rows), mine.size, int(mine.sum()), int(rows.sum()), example)
        )  # fmt: skip
    return found, differs.any(axis=1)


def compare_values(
    kind: str, served: Sequence[Mapping[str, Any]], rebuilt: Mapping[str, Sequence[Any]], places: Places
) -> list[Difference]:  # fmt: skip
    """Compare fields of n rows with the replay's; each field stands for itself.

    Args:
        served: (n,) values by name; only names in ``rebuilt`` are compared.
        rebuilt: (n,) values of each field.
    """
    found = []
    for name, values in rebuilt.items():
        pairs = [(row[name], value) for row, value in zip(served, values, strict=True)]
        wrong = [number for number, (one, other) in enumerate(pairs) if one != other]
        example = None
        if wrong:
            one, other = pairs[wrong[0]]
            detail = f"{name}: served {one!r}, rebuilt {other!r}"
            example = Example(places.entity_ids[wrong[0]], places.now_us[wrong[0]], detail)
        found.append(Difference(REPLAY, kind, name, len(pairs), len(pairs), len(wrong), len(wrong), example))
    return found


def compare_states(
    served: Sequence[bytes], rebuilt: Sequence[bytes], signals: Mapping[int, str], places: Places
) -> list[Difference]:  # fmt: skip
    """Compare state bytes tile by tile.

    Args:
        signals: names by signal id; tiles of other ids count under ``signal ID``.
    """
    rows: dict[str, int] = {}
    examples: dict[str, Example] = {}
    for number, (one, other) in enumerate(zip(served, rebuilt, strict=True)):
        if one == other:
            continue
        for signal, detail in _differing_signals(one, other, signals).items():
            rows[signal] = rows.get(signal, 0) + 1
            examples.setdefault(signal, Example(places.entity_ids[number], places.now_us[number], detail))
    total = len(served)
    names = dict.fromkeys([*signals.values(), *rows])
    return [
        Difference(REPLAY, STATE, name, total, total, rows.get(name, 0), rows.get(name, 0), examples.get(name))
        for name in names
    ]


def compare_scores(served: NDArray[Any], rebuilt: NDArray[Any], places: Places) -> tuple[list[Difference], Mask]:
    """Compare scores with ``SCORE_TOLERANCE``; a score that is no number equals none."""
    wrong = ~(np.abs(served.astype(np.float64) - rebuilt) <= SCORE_TOLERANCE)
    example = None
    if wrong.any():
        row = int(wrong.argmax())
        example = Example(places.entity_ids[row], places.now_us[row], f"served {served[row]}, rebuilt {rebuilt[row]}")
    count = int(wrong.sum())
    return [Difference(REPLAY, SCORE, SCORE, len(wrong), len(wrong), count, count, example)], wrong


def tabulate(tally: Tally, *, about: Mapping[str, Any], start_us: int, end_us: int, measured_at_us: int) -> pa.Table:
    """Rows of ``rows.SKEW`` for monitors, one a comparison, kind and signal.

    Args:
        about: model, model_version and view_key.
        start_us, end_us: the rows compared were answered from start to end, UTC microseconds.
    """
    rows = [
        {
            **about, "measured_at": _time(measured_at_us), "start": _time(start_us), "end": _time(end_us),
            "comparison": one.comparison, "kind": one.kind, "signal": one.signal, "rows": one.rows, "values": one.values,
            "differing": one.differing, "differing_rows": one.differing_rows,
            "share": one.differing / one.values if one.values else None,
            "example_entity": one.example.entity_id if one.example else None,
            "example_now": _time(one.example.now_us) if one.example else None,
            "example": one.example.detail if one.example else None,
        }
        for one in tally.differences.values()
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=SKEW)


def _differing_signals(one: bytes, other: bytes, signals: Mapping[int, str]) -> dict[str, str]:
    """Signals whose tiles differ, with what the first of them holds on each side; by ascending key."""
    mine, theirs = _tiles(one), _tiles(other)
    found: dict[str, str] = {}
    for key in sorted(mine.keys() | theirs.keys()):
        if mine.get(key) == theirs.get(key):
            continue
        number = key >> SIGNAL_SHIFT
        name = signals.get(number, f"signal {number}") if number else POSITION
        found.setdefault(name, f"tile {key:#018x}: served {mine.get(key)}, rebuilt {theirs.get(key)}")
    # The header of a state that saw other events differs too; it says nothing about a signal.
    return {name: detail for name, detail in found.items() if name != POSITION} or found


def _tiles(state: bytes) -> dict[int, int]:
    records = np.frombuffer(state[: len(state) // RECORD_BYTES * RECORD_BYTES], "<i8").reshape(-1, 2)
    return dict(records.tolist())


def _bits(block: NDArray[Any]) -> NDArray[Any]:
    """Floats as their bits: equal numbers may differ in their sign of zero, and no NaN equals itself."""
    return block if block.dtype == np.int64 else np.ascontiguousarray(block, np.float32).view(np.uint32)


def _time(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us / US_PER_S, UTC)
