"""The event log on local files: one folder a partition, segments of frames that are only ever appended to.

An append is one frame, written at once and synced to disk before it returns (``Durability``). What a crash leaves half
written at the end is not read, and cut by the next writer; damage anywhere else is an error. Readers need no lock: they
follow the headers, and a frame without its whole payload is not there yet.
"""

from __future__ import annotations

import fcntl
import json
import os
from bisect import bisect_left, bisect_right
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Literal, Self

import pyarrow as pa

from features.errors import EventLogError, TemporaryError, explain
from features.event_log.frames import HEADER_BYTES, MAGIC, Frame, decode_frame, encode_frame, is_whole, read_header
from features.event_log.port import check_sent
from features.partitions import PARTITION_HASH

LOG_FORMAT: Final = 1
IDENTITY_NAME: Final = "log.json"
SEGMENT_BYTES: Final = 256 << 20
"""A segment that has grown beyond this gets no further frame; retention removes whole segments."""

Durability = Literal["disk", "process"]
"""``disk``: an append returns once the disk has it. ``process``: once the operating system has it, which outlives a killed
process but not a loss of power."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a frame lies."""

    segment: Path
    position: int
    frame: Frame


@dataclass
class _Partition:
    """What is known of one partition's files, in offset order, and the segment that is read to its end next."""

    places: list[_Place] = field(default_factory=list)
    segment: Path | None = None
    position: int = 0


@dataclass
class _Writer:
    """The one open segment of a partition that this process appends to."""

    lock: BinaryIO
    file: BinaryIO


class FileLog:
    """``features.event_log.port.EventLog`` on partitioned append-only files."""

    def __init__(self, folder: Path, base: list[int], base_ingest_us: list[int], durability: Durability) -> None:
        self.folder = folder
        self.partitions = len(base)
        self._base = base
        self._base_ingest_us = base_ingest_us
        self._durability = durability
        self._known = [_Partition() for _ in base]
        self._writers: dict[int, _Writer] = {}

    @classmethod
    def create(
        cls, folder: Path, base_offsets: list[int], *, base_ingest_us: list[int] | None = None, durability: Durability = "disk"
    ) -> Self:
        """Open a log, and make an empty one where there is none.

        Args:
            base_offsets: first offset of each partition of a new log; not 0 where the batch log already holds events.
            base_ingest_us: ingest_time of each partition's event before that, UTC microseconds.
        """
        if not folder.exists():
            partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
            for partition in range(len(base_offsets)):
                (partial / f"partition-{partition:03d}").mkdir(parents=True, exist_ok=True)
            identity = {
                "log_format": LOG_FORMAT,
                "partition_hash": PARTITION_HASH,
                "base_offsets": base_offsets,
                "base_ingest_us": base_ingest_us or [0] * len(base_offsets),
            }
            (partial / IDENTITY_NAME).write_text(json.dumps(identity))
            partial.rename(folder)
        return cls.open(folder, len(base_offsets), durability=durability)

    @classmethod
    def open(cls, folder: Path, partitions: int, *, durability: Durability = "disk") -> Self:
        """Open a log that is there.

        Raises:
            EventLogError: there is none, or it was made with another format, hash or number of partitions.
        """
        try:
            identity = json.loads((folder / IDENTITY_NAME).read_text())
        except (FileNotFoundError, json.JSONDecodeError) as error:
            raise EventLogError(
                explain("event log cannot be opened", which=str(folder), expected=f"a readable {IDENTITY_NAME}",
                        got=type(error).__name__, next_step="append events with `plumb stream append`, or name another folder")
            ) from error  # fmt: skip
        found = (identity["log_format"], identity["partition_hash"], len(identity["base_offsets"]))
        if found != (LOG_FORMAT, PARTITION_HASH, partitions):
            raise EventLogError(
                explain("event log is laid out differently", which=str(folder), got=str(found),
                        expected=str((LOG_FORMAT, PARTITION_HASH, partitions)),
                        next_step="use the catalog that the log was made with")
            )  # fmt: skip
        return cls(folder, identity["base_offsets"], identity["base_ingest_us"], durability)

    def append(self, partition: int, events: pa.Table, *, now_us: int) -> range:
        check_sent(events, str(self.folder))
        writer = self._writer(partition)
        known = self._known[partition]
        first = self._end(partition)
        if not events.num_rows:
            return range(first, first)
        ingest_us = max(now_us, known.places[-1].frame.ingest_us if known.places else self._base_ingest_us[partition])
        data = encode_frame(events, first, ingest_us)
        if writer.file.tell() >= SEGMENT_BYTES:
            writer.file.close()
            writer.file = _open_segment(self._segment(partition, first))
        writer.file.write(data)
        writer.file.flush()
        if self._durability == "disk":
            os.fdatasync(writer.file.fileno())
        self._scan(partition)
        return range(first, first + events.num_rows)

    def read(self, partition: int, from_offset: int, limit: int) -> list[pa.Table]:
        if from_offset >= self._end(partition):
            self._scan(partition)
        self._require_offset(partition, from_offset)
        try:
            return self._read_known(partition, from_offset, limit)
        except FileNotFoundError:  # retention has dropped a segment since it was found: look anew
            self._known[partition] = _Partition()
            return self.read(partition, from_offset, limit)

    def _read_known(self, partition: int, from_offset: int, limit: int) -> list[pa.Table]:
        places = self._known[partition].places
        index = bisect_right(places, from_offset, key=lambda place: place.frame.first_offset) - 1
        tables: list[pa.Table] = []
        rows, segment, file = 0, None, None
        with ExitStack() as opened:
            while 0 <= index < len(places) and rows < limit and from_offset < places[-1].frame.next_offset:
                if places[index].segment != segment or file is None:
                    segment = places[index].segment
                    file = opened.enter_context(segment.open("rb"))
                events = self._load(partition, index, file)
                if events is None:
                    break
                skipped = max(from_offset - places[index].frame.first_offset, 0)
                tables.append(events.slice(skipped))
                rows += events.num_rows - skipped
                index += 1
        return tables

    def start_offset(self, partition: int) -> int:
        self._scan(partition)
        places = self._known[partition].places
        return places[0].frame.first_offset if places else self._base[partition]

    def end_offset(self, partition: int) -> int:
        self._scan(partition)
        return self._end(partition)

    def offset_at(self, partition: int, ingest_us: int) -> int:
        self._scan(partition)
        places = self._known[partition].places
        index = bisect_left(places, ingest_us, key=lambda place: place.frame.ingest_us)
        return places[index].frame.first_offset if index < len(places) else self._end(partition)

    def begin_segment(self, partition: int) -> None:
        """Let the next append begin a segment, so that those before it can be dropped as a whole."""
        writer, following = self._writer(partition), self._segment(partition, self._end(partition))
        if Path(writer.file.name) != following:
            writer.file.close()
            writer.file = _open_segment(following)

    def drop_segments(self, partition: int, before: int) -> int:
        """Delete the segments that hold no offset from ``before`` on, never the log's last event; returns how many.

        A reader that has not come so far must be filled from the batch log; an open one finds the log's new start by itself.
        """
        pairs = pairwise(self._segments(partition))
        ended = [segment for segment, after in pairs if int(after.stem) <= before and after.stat().st_size]
        for segment in ended:
            segment.unlink()
        return len(ended)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.file.close()
            writer.lock.close()
        self._writers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _end(self, partition: int) -> int:
        places = self._known[partition].places
        return places[-1].frame.next_offset if places else self._base[partition]

    def _segment(self, partition: int, first_offset: int) -> Path:
        return self.folder / f"partition-{partition:03d}" / f"{first_offset:020d}.log"

    def _segments(self, partition: int) -> list[Path]:
        return sorted((self.folder / f"partition-{partition:03d}").glob("*.log"))

    def _writer(self, partition: int) -> _Writer:
        """This process's writer: on first use takes the partition's lock and cuts what a crash left half written."""
        if partition not in self._writers:
            with ExitStack() as opened:
                lock = opened.enter_context((self.folder / f"partition-{partition:03d}" / ".writer.lock").open("ab"))
                self._lock(partition, lock)
                self._scan(partition)
                self._cut_torn_tail(partition)
                segments = self._segments(partition)
                file = _open_segment(segments[-1] if segments else self._segment(partition, self._end(partition)))
                opened.pop_all()
            self._writers[partition] = _Writer(lock, file)
        return self._writers[partition]

    def _lock(self, partition: int, lock: BinaryIO) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TemporaryError(
                explain("log partition is being written", which=f"partition {partition} of {self.folder}",
                        expected="one writer at a time", got="a second writer",
                        next_step="wait for the other producer to end, or send its events through one")
            ) from error  # fmt: skip

    def _scan(self, partition: int) -> None:
        """Read the headers written since the last look; all of them again where the first segments have been dropped."""
        known = self._known[partition]
        if known.segment is not None and not (known.places[0].segment if known.places else known.segment).exists():
            known = self._known[partition] = _Partition()
        segments = None
        while True:
            if known.segment is None:
                segments = segments or self._segments(partition)
                if not segments:
                    return
                known.segment = segments[0]
            with known.segment.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                while known.position < size:
                    file.seek(known.position)
                    frame = read_header(file.read(HEADER_BYTES))
                    if frame is None or known.position + frame.frame_bytes > size:
                        break
                    self._check_dense(partition, frame)
                    known.places.append(_Place(known.segment, known.position, frame))
                    known.position += frame.frame_bytes
            following = self._segment(partition, self._end(partition))
            if following == known.segment or not following.exists():
                return
            known.segment, known.position = following, 0

    def _check_dense(self, partition: int, frame: Frame) -> None:
        known = self._known[partition]
        last = known.places[-1].frame if known.places else None
        if last and (frame.first_offset != last.next_offset or frame.ingest_us < last.ingest_us):
            raise self._damaged(partition, f"a frame from offset {last.next_offset} on", f"one from {frame.first_offset} on")

    def _load(self, partition: int, index: int, file: BinaryIO | None = None) -> pa.Table | None:
        """A frame's events; None where it is the last one and its payload is not all there yet: it is then forgotten.

        Args:
            file: the frame's segment, open for reading; opened here where None.
        """
        places = self._known[partition].places
        place = places[index]
        with nullcontext(file) if file else place.segment.open("rb") as source:
            source.seek(place.position + HEADER_BYTES)
            payload = source.read(place.frame.payload_bytes)
        if is_whole(place.frame, payload):
            return decode_frame(place.frame, payload)
        self._scan(partition)
        if index + 1 < len(places):
            raise self._damaged(partition, f"the payload of offset {place.frame.first_offset}", "other bytes")
        known = self._known[partition]
        known.segment, known.position = place.segment, places.pop().position
        return None

    def _cut_torn_tail(self, partition: int) -> None:
        """Remove the last append if a crash interrupted it. Valid frames behind damaged bytes are no torn tail."""
        known = self._known[partition]
        if known.segment is None:
            return
        if known.places:
            self._load(partition, len(known.places) - 1)
        with known.segment.open("r+b") as file:
            file.seek(known.position)
            rest = file.read()
            at = rest.find(MAGIC, 1)
            while at >= 0:
                if read_header(rest[at : at + HEADER_BYTES]):
                    got = f"the next one at byte {known.position + at}"
                    raise self._damaged(partition, f"a frame at byte {known.position}", got)
                at = rest.find(MAGIC, at + 1)
            if rest:
                file.truncate(known.position)
                os.fsync(file.fileno())

    def _require_offset(self, partition: int, from_offset: int) -> None:
        places = self._known[partition].places
        start = places[0].frame.first_offset if places else self._base[partition]
        end = self._end(partition)
        if not start <= from_offset <= end:
            raise EventLogError(
                explain("offset is not in the event log", which=f"partition {partition} of {self.folder}",
                        expected=f"{start} to {end}", got=str(from_offset),
                        next_step="materialize the view from the batch log first" if from_offset < start
                        else "restore the log from its copy: the reader has seen more of it")
            )  # fmt: skip

    def _damaged(self, partition: int, expected: str, got: str) -> EventLogError:
        return EventLogError(
            explain("event log is damaged", which=f"{self._known[partition].segment}", expected=expected, got=got,
                    next_step="restore the partition's folder from its copy")
        )  # fmt: skip


def _open_segment(path: Path) -> BinaryIO:
    """Open for appending; a new file's name is made as durable as what will stand in it."""
    file = path.open("ab")
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return file
