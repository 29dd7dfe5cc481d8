"""Judged windows on disk: one JSON file each, named by what was judged, so that judging twice changes nothing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from features.errors import explain
from monitoring.drift.judge import Judgement
from monitoring.errors import DriftError
from monitoring.verdicts import Verdict, read_verdict

SUFFIX: Final = ".json"
MOST_RANKED: Final = 100
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._@-]+")


@dataclass(frozen=True)
class JudgedWindow:
    """One window as it was judged beside one reference.

    Attributes:
        id: the file's name without its suffix; the same whenever the same window is judged.
        model: whose rows these were.
        source: where the rows came from: ``predictions``, or events of ``requests`` or ``replies``.
        subject, reference, start_us, end_us, rows: what was judged.
        verdicts: one a family of tests.
        features: the first features of the ranking, each with ``name``, ``effect``, ``p_value``, ``q_value``, ``threshold``,
            ``importance`` and ``drifted``.
    """

    id: str
    model: str
    source: str
    subject: str
    version: str
    reference: str
    start_us: int
    end_us: int
    rows: int
    verdicts: tuple[Verdict, ...]
    features: tuple[dict[str, Any], ...]

    def describe(self) -> dict[str, Any]:
        """Plain values for JSON."""
        verdicts = [verdict.describe() for verdict in self.verdicts]
        return {**self.__dict__, "verdicts": verdicts, "features": list(self.features)}


def record_judgement(judgement: Judgement, model: str, source: str, version: str) -> JudgedWindow:
    """A judgement as it is kept: its verdicts, and the first ``MOST_RANKED`` features."""
    window, ranking = judgement.window, judgement.ranking
    names = ("effect", "p_value", "q_value", "threshold", "importance")
    features = tuple(
        {"name": ranking.names[row], "drifted": bool(ranking.drifted[row])}
        | {name: float(np.asarray(getattr(ranking, name))[row]) for name in names}
        for row in range(min(len(ranking), MOST_RANKED))
    )
    parts = (
        f"{window.end_us:020d}",
        f"{window.start_us:020d}",
        source,
        *window.subject.split("/"),
        version,
        judgement.reference,
    )
    return JudgedWindow(
        "_".join(_UNSAFE.sub("-", part) or "-" for part in parts), model, source, window.subject, version, judgement.reference,
        window.start_us, window.end_us, window.rows, judgement.verdicts, features,
    )  # fmt: skip


def write_judged(folder: Path, judged: JudgedWindow) -> Path:
    """Write the file, whole or not at all; the same window again replaces it by the same."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{judged.id}{SUFFIX}"
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(judged.describe(), indent=1), encoding="utf-8")
    partial.replace(path)
    return path


def read_judged(folder: Path, *, since_us: int = 0) -> Iterator[JudgedWindow]:
    """Windows that ended at ``since_us`` (UTC microseconds) or later, the oldest first.

    Raises:
        DriftError: a file is damaged.
    """
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        if path.name >= f"{since_us:020d}":
            yield _read(path)


def _read(path: Path) -> JudgedWindow:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        verdicts = tuple(read_verdict(each) for each in content.pop("verdicts"))
        features = tuple(content.pop("features"))
        return JudgedWindow(**content, verdicts=verdicts, features=features)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DriftError(
            explain("judged window is damaged", which=str(path), expected="a file that the drift monitor wrote",
                    got=" ".join(str(error).split()), next_step="remove the file")
        ) from error  # fmt: skip
