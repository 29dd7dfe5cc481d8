"""Frames of a log file: a fixed header with two checksums, then one Arrow IPC stream with the events of one append.

Header, little-endian: magic, payload bytes, events, first offset, ingest_time (UTC microseconds), CRC-32 of
the payload, CRC-32 of the header before it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final
from zlib import crc32

import numpy as np
import pyarrow as pa

from features.event_log.port import STAMPED

MAGIC: Final = b"PLF1"
HEADER: Final = struct.Struct("<4sIIqqI")
CHECKSUM: Final = struct.Struct("<I")
HEADER_BYTES: Final = HEADER.size + CHECKSUM.size


@dataclass(frozen=True, slots=True)
class Frame:
    """What a header says.

    Attributes:
        rows: number of events, at least 1; their offsets are dense from ``first_offset`` on.
        ingest_us: ingest_time of all of them, UTC microseconds.
    """

    payload_bytes: int
    rows: int
    first_offset: int
    ingest_us: int
    payload_crc: int

    @property
    def next_offset(self) -> int:
        return self.first_offset + self.rows

    @property
    def frame_bytes(self) -> int:
        """Bytes of header and payload."""
        return HEADER_BYTES + self.payload_bytes


def encode_frame(events: pa.Table, first_offset: int, ingest_us: int) -> bytes:
    """Events that were appended together, as bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, events.schema) as writer:
        writer.write_table(events.combine_chunks())
    return frame_payload(sink.getvalue(), events.num_rows, first_offset, ingest_us)


def frame_payload(payload: pa.Buffer, rows: int, first_offset: int, ingest_us: int) -> bytes:
    """A payload behind its header."""
    header = HEADER.pack(MAGIC, payload.size, rows, first_offset, ingest_us, crc32(payload))
    return b"".join((header, CHECKSUM.pack(crc32(header)), payload))


def read_header(data: bytes) -> Frame | None:
    """The header at the beginning of ``data``; None where there is no whole and undamaged one."""
    if len(data) < HEADER_BYTES or data[:4] != MAGIC:
        return None
    if CHECKSUM.unpack_from(data, HEADER.size)[0] != crc32(data[: HEADER.size]):
        return None
    return Frame(*HEADER.unpack_from(data)[1:])


def is_whole(frame: Frame, payload: bytes) -> bool:
    """Whether this is the payload that the header was written with."""
    return len(payload) == frame.payload_bytes and crc32(payload) == frame.payload_crc


def decode_frame(frame: Frame, payload: bytes) -> pa.Table:
    """The frame's events with the columns that the log fills in."""
    events = pa.ipc.open_stream(pa.py_buffer(payload)).read_all()
    offsets = np.arange(frame.first_offset, frame.next_offset)
    times = np.full(frame.rows, frame.ingest_us)
    stamped = {"ingest_time": times, "log_offset": offsets}
    for name, kind in STAMPED.items():
        events = events.append_column(pa.field(name, kind, nullable=False), pa.array(stamped[name], pa.int64()).cast(kind))
    return events
