"""Rows of events on disk, window by window: append-only while open, closed by a rename, so that a killed process loses nothing.

    KEY/NUMBER.open     one JSON line an event, appended before the event is answered
    KEY/NUMBER.closed   no row will be added; waits for its verdict
    KEY/NUMBER.judged   its verdict is on disk; kept while another revision may be held against it

KEY is SERVICE/REVISION@VERSION@SIDE, NUMBER ascends. What a crash left half written at the end of an open file was never
answered, so its sender will come again, and it is cut off. An event that comes twice counts once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from features.errors import explain
from features.layout import US_PER_S
from monitoring.drift.bodies import Columns
from monitoring.drift.settings import DriftSettings
from monitoring.errors import DriftError
from monitoring.revisions import STABLE

OPEN, CLOSED, JUDGED = ".open", ".closed", ".judged"
PARTS: Final = 3
REMEMBERED: Final = 100_000
"""Event ids kept of a window, to know one that comes twice."""


@dataclass(frozen=True)
class Key:
    """Whose rows: a service's revision, the model version that it said it answers with (empty where it did not), and whether
    these are ``requests`` or ``replies``."""

    service: str
    revision: str
    version: str
    side: str

    @property
    def subject(self) -> str:
        return f"{self.service}/{self.revision}"


@dataclass(frozen=True)
class Record:
    """The rows of one event; ``at_us`` when it came, UTC microseconds. Without columns its rows are only counted."""

    id: str
    at_us: int
    rows: int
    columns: Columns = field(default_factory=dict)


@dataclass
class _Open:
    """The open window of a key."""

    path: Path
    file: BinaryIO
    began_us: int = 0
    seen: int = 0
    kept: int = 0
    ids: set[str] = field(default_factory=set)


def is_called_stable(key: Key) -> bool:
    """Whether a revision has the name that the stable one has where nothing gives it another."""
    return key.revision == STABLE


class WindowStore:
    """All windows under one folder; for one process, and not for two threads at once."""

    def __init__(self, folder: Path, settings: DriftSettings, *, is_stable: Callable[[Key], bool] = is_called_stable) -> None:
        """Take up what an earlier process left.

        Args:
            is_stable: whether a key's revision is stable now.
        Raises:
            DriftError: a file under the folder is none of ours, or is damaged.
        """
        self._folder = folder
        self._settings = settings
        self._is_stable = is_stable
        self._open: dict[Key, _Open] = {}
        self._last: dict[Key, set[str]] = {}
        for path in sorted(path for suffix in (CLOSED, JUDGED) for path in folder.glob(f"*/*/*{suffix}")):
            self._last[key_of(path)] = {record.id for record in read_window(path)}
        for path in sorted(folder.glob(f"*/*/*{OPEN}")):
            self._take_up(path)

    def append(self, key: Key, record: Record) -> bool:
        """Keep an event's rows; False where it has come before. They are with the operating system when this returns.

        Rows beyond ``most_rows`` of a window are only counted.
        """
        if record.id in self._last.get(key, ()):
            return False
        window = self._open.get(key) or self._begin(key, record.at_us)
        if record.id in window.ids:
            return False
        if window.kept + record.rows > self._settings.most_rows and window.kept:
            record = Record(record.id, record.at_us, record.rows)
        line = json.dumps(asdict(record), separators=(",", ":")).encode() + b"\n"
        end = window.file.tell()
        try:
            _write_all(window.file, line)
        except OSError:
            os.truncate(window.path, end)
            window.file.seek(end)
            raise
        _count(window, record)
        return True

    def close_due(self, now_us: int, key: Key | None = None) -> list[Path]:
        """Close the windows that time or count have filled; the paths of those just closed."""
        due = [each for each in ([key] if key else list(self._open)) if each in self._open and self._is_due(each, now_us)]
        return [self._close(each) for each in due]

    def list_closed(self) -> list[Path]:
        """Closed windows that no verdict is known of, the oldest first."""
        return sorted(self._folder.glob(f"*/*/*{CLOSED}"))

    def settle(self, path: Path) -> None:
        """Its verdict is on disk."""
        path.rename(path.with_suffix(JUDGED))

    def expire(self, before_us: int) -> None:
        """Forget judged windows whose last row came before a time."""
        for path in self._folder.glob(f"*/*/*{JUDGED}"):
            if all(record.at_us < before_us for record in read_window(path)):
                path.unlink()

    def rows_between(self, beside: Key, revision: str, start_us: int, end_us: int) -> list[Record]:
        """Rows of another revision of the same service, of whatever version, from ``start_us`` on and before ``end_us``."""
        paths = sorted(self._folder.glob(f"{beside.service}/{revision}@*@{beside.side}/*"))
        return [record for path in paths for record in read_window(path) if start_us <= record.at_us < end_us]

    def open_rows(self) -> dict[Key, int]:
        """Rows seen of each open window."""
        return {key: window.seen for key, window in self._open.items()}

    def close(self) -> None:
        """Leave the windows to the next process; nothing may be appended after that."""
        for window in self._open.values():
            window.file.close()
        self._open.clear()

    def _begin(self, key: Key, at_us: int) -> _Open:
        folder = self._folder / key.service / f"{key.revision}@{key.version}@{key.side}"
        folder.mkdir(parents=True, exist_ok=True)
        used = [int(path.stem) for path in folder.iterdir()]
        # Numbers never come again, also where all judged windows have expired: the time of the first row leads.
        number = max([at_us, *(each + 1 for each in used)])
        path = folder / f"{number:020d}{OPEN}"
        window = self._open[key] = _Open(path, path.open("xb", buffering=0), at_us)
        return window

    def _take_up(self, path: Path) -> None:
        key = key_of(path)
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)
        window = _Open(path, path.open("ab", buffering=0))
        for record in read_window(path):
            window.began_us = window.began_us or record.at_us
            _count(window, record)
        if window.ids:
            self._open[key] = window
        else:
            window.file.close()
            path.unlink()

    def _is_due(self, key: Key, now_us: int) -> bool:
        window, settings = self._open[key], self._settings
        age_s = (now_us - window.began_us) / US_PER_S
        full = window.kept >= settings.most_rows and age_s >= settings.shortest_window_s
        filled = age_s >= settings.window_of(stable=self._is_stable(key)) and window.seen >= settings.least_rows
        return full or filled or age_s >= settings.longest_window_s

    def _close(self, key: Key) -> Path:
        window = self._open.pop(key)
        # A sender whose answer was lost may come again after the window has closed.
        self._last[key] = window.ids
        os.fsync(window.file.fileno())
        window.file.close()
        return window.path.rename(window.path.with_suffix(CLOSED))


def key_of(path: Path) -> Key:
    """Whose window a file is."""
    parts = path.parent.name.split("@")
    if len(parts) != PARTS:
        raise DriftError(
            explain("folder of windows holds something else", which=str(path), expected="SERVICE/REVISION@VERSION@SIDE/NUMBER",
                    got=path.parent.name, next_step="give the detector a folder of its own")
        )  # fmt: skip
    return Key(path.parent.parent.name, *parts)


def read_window(path: Path) -> Iterator[Record]:
    """The whole records of a window's file; none where it has expired meanwhile.

    Raises:
        DriftError: a line in it is damaged.
    """
    for suffix in (path.suffix, CLOSED, JUDGED):
        try:
            lines = path.with_suffix(suffix).read_bytes().splitlines(keepends=True)
            break
        except FileNotFoundError:
            continue
    else:
        return
    for number, line in enumerate(lines):
        if not line.endswith(b"\n"):
            return  # being written
        try:
            content: dict[str, Any] = json.loads(line)
            yield Record(**content)
        except (ValueError, TypeError) as error:
            raise DriftError(
                explain("window is damaged", which=f"{path}, line {number + 1}", expected="one record as JSON",
                        got=repr(line[:80]), next_step="remove the file; its rows are lost")
            ) from error  # fmt: skip


def _count(window: _Open, record: Record) -> None:
    window.seen += record.rows
    window.kept += record.rows if record.columns else 0
    if len(window.ids) < REMEMBERED:
        window.ids.add(record.id)


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
