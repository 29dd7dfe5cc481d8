"""What a stream's workers have done, as one small JSON file each: written with every commit, read by whoever watches."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from features.stream_fold import Folded


@dataclass
class Progress:
    """Counts since the workers started.

    Attributes:
        events: log events read; of them ``repeats`` were dropped and ``refused`` by reason.
        next_offsets: by partition, the offset that is read next.
        newest_us: by partition, ingest_time of the last event folded, UTC microseconds.
        new_attributes: names that events carry and the catalog does not declare.
    """

    commits: int = 0
    events: int = 0
    repeats: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    next_offsets: dict[str, int] = field(default_factory=dict)
    newest_us: dict[str, int] = field(default_factory=dict)
    new_attributes: list[str] = field(default_factory=list)

    def add(self, done: Folded) -> None:
        """Count one commit."""
        self.commits += 1
        self.events += done.events
        self.repeats += done.repeats
        self.refused = dict(Counter(self.refused) + Counter(done.refused))
        self.next_offsets[str(done.partition)] = done.next_offset
        self.newest_us[str(done.partition)] = done.newest_us
        self.new_attributes = sorted({*self.new_attributes, *done.new_attributes})


class ProgressFile:
    """Counts commits into one file; pickled to the worker that makes them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._progress = Progress()

    def __call__(self, done: Folded) -> None:
        self._progress.add(done)
        partial = self._path.with_name(f"{self._path.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps(asdict(self._progress)))
        partial.rename(self._path)


def read_progress(folder: Path) -> Progress:
    """All workers' counts together; empty where none has committed yet."""
    total = Progress()
    for path in sorted(folder.glob("worker-*.json")):
        one = Progress(**json.loads(path.read_text()))
        total.commits += one.commits
        total.events += one.events
        total.repeats += one.repeats
        total.refused = dict(Counter(total.refused) + Counter(one.refused))
        total.next_offsets |= one.next_offsets
        total.newest_us |= one.newest_us
        total.new_attributes = sorted({*total.new_attributes, *one.new_attributes})
    return total


def clear_progress(folder: Path) -> None:
    """Forget the counts of earlier runs."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("worker-*.json"):
        path.unlink()
