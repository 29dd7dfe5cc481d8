"""How far a model's labels have matured: by age of the predictions, and how long outcomes take to become known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from features.layout import DAY_S, US_PER_S
from monitoring.verdicts import Finding, Outcome, Severity, Verdict

MONITOR: Final = "maturity"
QUANTILES: Final = (0.5, 0.9, 0.99)
MOST_AGES: Final = 60
DAY_US: Final = DAY_S * US_PER_S

Ints = npt.NDArray[np.int64]
NEVER_KNOWN: Final = np.iinfo(np.int64).max
"""Stands for the time at which an outcome became known that nobody has seen."""


@dataclass(frozen=True)
class Answers:
    """Logged predictions and what is known of their outcomes, n of them, parallel arrays.

    Attributes:
        now_us: when each was asked, UTC microseconds.
        known_us: when its outcome became known, ``NEVER_KNOWN`` where none has; for a label that is 1 where nothing happens,
            this is what makes it 0.
        score: the served probability of label 1.
        version: the model version that answered.
        matured: whether horizon and label delay have passed.
        entity: codes of entities.
    """

    now_us: Ints
    known_us: Ints
    score: npt.NDArray[np.float64]
    version: Ints
    matured: npt.NDArray[np.bool_]
    entity: Ints

    def __len__(self) -> int:
        return len(self.now_us)

    def take(self, chosen: npt.NDArray[Any]) -> Answers:
        """These rows, by number or flag."""
        return Answers(**{name: values[chosen] for name, values in self.__dict__.items()})


@dataclass(frozen=True)
class AgeRow:
    """Predictions of one age, in whole days: how many, how many have matured, and of how many an outcome is known."""

    age_days: int
    predictions: int
    matured: int
    outcomes: int


@dataclass(frozen=True)
class MaturityTable:
    """A model's label maturity.

    Attributes:
        ages: by age in days, ascending; the last row takes all that are older.
        delays_s: by quantile, seconds from a prediction until its outcome was known, of matured predictions that have one;
            empty where none has.
        waiting: matured predictions that nobody has labelled yet.
    """

    model: str
    ages: tuple[AgeRow, ...]
    delays_s: dict[str, float]
    waiting: int

    @property
    def predictions(self) -> int:
        return sum(row.predictions for row in self.ages)

    @property
    def matured(self) -> int:
        return sum(row.matured for row in self.ages)

    def describe(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"predictions": self.predictions, "matured": self.matured}


def delay_name(quantile: float) -> str:
    """Name of a delay quantile in a verdict's evidence."""
    return f"delay_s_p{100 * quantile:g}"


def tabulate_maturity(model: str, answers: Answers, *, waiting: int, now_us: int) -> MaturityTable:
    """The table of ``plumb monitors labels``."""
    age = np.clip((now_us - answers.now_us) // DAY_US, 0, MOST_AGES)  # a clock that runs ahead asks in the future
    known = answers.known_us < NEVER_KNOWN
    rows = []
    for days in np.unique(age).tolist():
        own = age == days
        rows.append(AgeRow(days, int(own.sum()), int(answers.matured[own].sum()), int(known[own].sum())))
    delays_s = np.maximum((answers.known_us - answers.now_us)[known & answers.matured], 0) / US_PER_S
    found = {f"{each:g}": float(np.quantile(delays_s, each)) for each in QUANTILES} if len(delays_s) else {}
    return MaturityTable(model, tuple(rows), found, waiting)


def judge_maturity(table: MaturityTable, *, silence_s: float, most_silence_s: float, now_us: int) -> Verdict:
    """Whether labels can come in at all: they mature as far as the event log reaches.

    Args:
        silence_s: how long ago the log ends.
        most_silence_s: it fails where the log ends longer ago.
    """
    share = table.matured / table.predictions if table.predictions else None
    evidence: dict[str, Finding] = {
        "predictions": table.predictions, "matured": table.matured, "waiting": table.waiting, "matured_share": share,
        "silence_s": silence_s, **{delay_name(float(name)): value for name, value in table.delays_s.items()},
    }  # fmt: skip
    if silence_s > most_silence_s:
        text = f"the event log ends {silence_s / 3_600:.0f} h ago: no label matures"
        return Verdict(MONITOR, f"model:{table.model}", Outcome.FAIL, Severity.PAGE, evidence, text, now_us)
    text = f"{table.matured:,} of {table.predictions:,} predictions have matured, {table.waiting:,} of them not labelled yet"
    return Verdict(MONITOR, f"model:{table.model}", Outcome.PASS, Severity.PAGE, evidence, text, now_us)


def join_answers(parts: Sequence[Answers]) -> Answers:
    """All rows of several, whose entities' codes are already those of one list."""
    return Answers(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in Answers.__dataclass_fields__})
