"""Logged predictions on disk: rows of ``rows.PREDICTION`` in segments of frames, one open segment a serving process.

A segment is named after its process's start and its number, so that names ascend as rows came. Frames are those of the event
log (``features.event_log.frames``), with the number of the frame's first row and its newest ``answered_at`` in the header:
what a crash leaves half written at a segment's end is not read. Readers need no lock. A writer and ``erase`` hold the lock of
a segment while they change it; a writer whose segment was replaced goes on in a new one.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from features.errors import EventLogError, explain
from features.event_log.frames import HEADER_BYTES, MAGIC, frame_payload, is_whole, read_header
from features.layout import US_PER_S
from features.rows import PREDICTION

SUFFIX: Final = ".predictions"
SEGMENT_BYTES: Final = 64 << 20
SEGMENT_AGE_S: Final = 600
"""A segment that has grown beyond these bytes or this age gets no further frame."""

_OPTIONS: Final = pa.ipc.IpcWriteOptions(compression="lz4")

Cursor = Mapping[str, int]
"""Frames read of each segment, by its name: where a reader goes on from. JSON can hold it."""


class Read(NamedTuple):
    """What a reader got: rows of ``PREDICTION``, and where to go on from."""

    rows: pa.Table
    cursor: Cursor


class SegmentWriter:
    """Appends rows as one process's segments; for one thread."""

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES, segment_age_s: float = SEGMENT_AGE_S) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._segment_age_us = segment_age_s * US_PER_S
        self._file: BinaryIO | None = None
        self._path = folder
        self._number = 0
        self._began_us = 0
        self._rows = 0

    def append(self, rows: pa.Table) -> None:
        """Append rows as one frame; on an error nothing of it stays.

        Raises:
            OSError: the disk is full or fails; a later append may succeed.
        """
        newest_us = int(pc.max(rows["answered_at"].cast(pa.int64())).as_py())
        path, file = self._locked(newest_us)
        end = os.fstat(file.fileno()).st_size
        try:
            _write_all(file, _encode(rows, self._rows, newest_us))
        except OSError:
            try:
                # Still under the lock: once it is free, the name may be that of a segment which ``erase`` has rewritten.
                os.ftruncate(file.fileno(), end)
                if not end:
                    path.unlink()
            finally:
                self.close()  # nothing may ever follow a torn frame
            raise
        self._rows += rows.num_rows
        fcntl.flock(file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the open segment, if there is one."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _locked(self, now_us: int) -> tuple[Path, BinaryIO]:
        """The segment to append to, locked; a new one where the last is full, old, or was replaced by ``erase``."""
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            status = os.fstat(self._file.fileno())
            spent = status.st_size >= self._segment_bytes or now_us - self._began_us >= self._segment_age_us
            if spent or status.st_nlink == 0:
                self.close()
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._path = self._folder / f"{now_us:020d}-{os.getpid()}-{self._number:06d}{SUFFIX}"
            # Unbuffered: what a failed write has left must not be tried again behind our back.
            self._file = self._path.open("xb", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._number, self._began_us, self._rows = self._number + 1, now_us, 0
        return self._path, self._file


def read_predictions(
    folder: Path, *, since_us: int | None = None, until_us: int | None = None, revision: str | None = None,
    columns: list[str] | None = None,
) -> Iterator[pa.Table]:  # fmt: skip
    """All rows of a model, a frame at a time, by segment.

    Args:
        since_us, until_us: rows answered from ``since_us`` on and before ``until_us``, UTC microseconds.
        revision: rows of this deployment only.
        columns: which columns of ``PREDICTION``; None reads all.

    Raises:
        EventLogError: a segment is damaged.
        OSError: a segment cannot be read.
    """
    schema = PREDICTION if columns is None else pa.schema([PREDICTION.field(name) for name in columns])
    needed = {*schema.names, "answered_at", "revision"}
    for path in list_segments(folder):
        for _, rows in _read_frames(path, 0, since_us, [PREDICTION.get_field_index(name) for name in sorted(needed)]):
            chosen = _select(rows, since_us, until_us, revision)
            if chosen.num_rows:
                yield chosen.select(schema.names)


def read_new(folder: Path, cursor: Cursor, *, limit: int, revision: str | None = None) -> Read:
    """Rows that came since an earlier look, about ``limit`` at most; ``{}`` begins at the oldest.

    Raises:
        EventLogError: a segment is damaged.
        OSError: a segment cannot be read.
    """
    tables, read = [PREDICTION.empty_table()], 0
    position = {}
    for path in list_segments(folder):
        position[path.name] = cursor.get(path.name, 0)
        if read >= limit:
            continue
        for number, rows in _read_frames(path, position[path.name], None):
            tables.append(_select(rows, None, None, revision))
            position[path.name], read = number + 1, read + rows.num_rows
            if read >= limit:
                break
    return Read(pa.concat_tables(tables), position)


def read_segment(path: Path, columns: list[str]) -> Iterator[tuple[int, pa.Table]]:
    """(number, rows) of a segment's whole frames, rows in the columns named; ``erase`` leaves the numbers as they are.

    Raises:
        EventLogError: the segment is damaged.
    """
    for number, rows in _read_frames(path, 0, None, sorted(PREDICTION.get_field_index(name) for name in columns)):
        yield number, rows.select(columns)


def reaches(path: Path, time_us: int) -> bool:
    """Whether a segment may hold a row answered at a time, UTC microseconds, or later."""
    return any(True for _ in _read_frames(path, 0, time_us))


def count_frames(path: Path) -> int:
    """Frames of a segment by their headers alone, a torn one at its end included."""
    count = position = 0
    with suppress(FileNotFoundError), path.open("rb") as file:  # expired since it was listed
        while frame := read_header(file.read(HEADER_BYTES)):
            count, position = count + 1, position + frame.frame_bytes
            file.seek(position)
    return count


def erase(folder: Path, entity_ids: Collection[str]) -> int:
    """Remove every row of these entities, also beside writers; readers see a segment before or after, never between.

    A writer's own queue reaches the disk within a second: rows answered just before come after that, so erase again then.

    Returns:
        How many rows were removed.
    """
    wanted = pa.array(list(entity_ids), pa.string())
    return sum(_rewrite(path, wanted) for path in list_segments(folder))


def expire(folder: Path, before_us: int, *, views: Collection[str] | None = None) -> int:
    """Remove the segments all of whose rows were answered before a time, also beside writers; returns how many.

    Args:
        views: keys of the views whose rows may go; None: of any.
    """
    removed = 0
    for path in list_segments(folder):
        # Under the lock nobody appends between the look and the end of the file.
        with _locked_segment(path) as file:
            if file is None or reaches(path, before_us) or not (views is None or _is_of(path, views)):
                continue
            path.unlink()
            path.with_name(f"{path.name}.partial").unlink(missing_ok=True)  # of a deletion that a crash ended
            removed += 1
    return removed


def _is_of(path: Path, views: Collection[str]) -> bool:
    """Whether a segment's rows are of these views: a process serves one, so its first rows tell."""
    first = next(_read_frames(path, 0, None, [PREDICTION.get_field_index("view_key")]), None)
    return first is None or set(first[1]["view_key"].to_pylist()) <= set(views)


def list_segments(folder: Path) -> list[Path]:
    """A model's segments, oldest first."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def _encode(rows: pa.Table, first_row: int, newest_us: int) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, PREDICTION, options=_OPTIONS) as writer:
        writer.write_table(rows.combine_chunks())
    return frame_payload(sink.getvalue(), rows.num_rows, first_row, newest_us)


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _read_frames(
    path: Path, first: int, since_us: int | None, fields: list[int] | None = None
) -> Iterator[tuple[int, pa.Table]]:  # fmt: skip
    """(number, rows) of the segment's frames from number ``first`` on that may hold rows since a time."""
    options = pa.ipc.IpcReadOptions(included_fields=fields)
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return  # expired since it was listed
    with file:
        position, number = 0, 0
        while frame := read_header(file.read(HEADER_BYTES)):
            if number >= first and (since_us is None or frame.ingest_us >= since_us):
                payload = file.read(frame.payload_bytes)
                if not is_whole(frame, payload):
                    break
                yield number, pa.ipc.open_stream(pa.py_buffer(payload), options=options).read_all()
            position, number = position + frame.frame_bytes, number + 1
            file.seek(position)
        _require_tail(file, position, path)


def _require_tail(file: BinaryIO, position: int, path: Path) -> None:
    """Only what is being written, or what a crash left half written, may follow the last whole frame.

    Raises:
        EventLogError: another whole frame follows, so that this is damage.
    """
    file.seek(position)
    rest = file.read()
    if _begins_whole(rest, 0):
        return  # it was being written when it was looked at, and more may have come since
    at = rest.find(MAGIC, 1)
    while at >= 0:
        if _begins_whole(rest, at):
            raise EventLogError(
                explain("segment of predictions is damaged", which=str(path), expected=f"a frame at byte {position}",
                        got=f"the next one at byte {position + at}", next_step="restore the file from its copy, or remove it")
            )  # fmt: skip
        at = rest.find(MAGIC, at + 1)


def _begins_whole(data: bytes, at: int) -> bool:
    frame = read_header(data[at : at + HEADER_BYTES])
    return frame is not None and is_whole(frame, data[at + HEADER_BYTES : at + frame.frame_bytes])


def _select(rows: pa.Table, since_us: int | None, until_us: int | None, revision: str | None) -> pa.Table:
    answered_us = rows["answered_at"].cast(pa.int64())
    if since_us is not None:
        rows = rows.filter(pc.greater_equal(answered_us, since_us))
        answered_us = rows["answered_at"].cast(pa.int64())
    if until_us is not None:
        rows = rows.filter(pc.less(answered_us, until_us))
    return rows if revision is None else rows.filter(pc.equal(rows["revision"], revision))


def _rewrite(path: Path, wanted: pa.Array) -> int:
    """Replace one segment by itself without these entities; frames keep their numbers, so that cursors hold."""
    with _locked_segment(path) as file:
        if file is None or not _mentions(path, wanted):
            return 0
        removed = 0
        # The lock makes the name ours; what a crash left under it is overwritten.
        partial = path.with_name(f"{path.name}.partial")
        with partial.open("wb") as rewritten:
            for _, rows in _read_frames(path, 0, None):
                kept = rows.filter(pc.invert(pc.is_in(rows["entity_id"], value_set=wanted)))
                removed += rows.num_rows - kept.num_rows
                newest_us = int(pc.max(rows["answered_at"].cast(pa.int64())).as_py() or 0)
                rewritten.write(_encode(kept, 0, newest_us))
            rewritten.flush()
            os.fsync(rewritten.fileno())
        partial.replace(path)
    return removed


def _mentions(path: Path, wanted: pa.Array) -> bool:
    """Whether a segment has a row of these entities; most have none, and nothing is written then."""
    only = [PREDICTION.get_field_index("entity_id")]
    frames = _read_frames(path, 0, None, only)
    return any(pc.any(pc.is_in(rows["entity_id"], value_set=wanted)).as_py() for _, rows in frames)


@contextmanager
def _locked_segment(path: Path) -> Iterator[BinaryIO | None]:
    """The segment under its lock; None where it is gone. Another rewriter may replace it while we wait: then the new one."""
    while True:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            yield None
            return
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:
                yield file
                return
