"""What an event log promises while events still arrive: partitions, dense offsets, times that never go back.

The log is the live end of the Delta table of ``features.events``: the same partitions and offsets, first here, then there
(``features.event_log.compaction``). It takes events as producers send them, with attributes that nobody declared yet;
``features.event_log.admission`` says which of them are events of the catalog.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final, Protocol, Self

import numpy as np
import pyarrow as pa

from features.errors import EventLogError, explain
from features.partitions import partition_of
from features.rows import TIME

SENT: Final = ("event_id", "entity_id", "event_type", "event_time", "region")
"""Columns that every producer sends; others are attributes."""

STAMPED: Final = {"ingest_time": TIME, "log_offset": pa.int64()}
"""Columns that the log itself fills in, and their types."""


class EventLog(Protocol):
    """One entity type's log; a context manager that closes itself.

    Every adapter passes ``tests/features/event_log/test_contract.py``. One process appends to a partition at a time, any
    number read.
    """

    @property
    def partitions(self) -> int: ...

    def append(self, partition: int, events: pa.Table, *, now_us: int) -> range:
        """Append events of one partition; when this returns they are as durable as the adapter says.

        Args:
            events: ``SENT`` and any attributes, in the order in which they shall be numbered.
            now_us: becomes their ingest_time, UTC microseconds; that of the partition's last event if that is later.

        Returns:
            The offsets given, dense after those of the events before.

        Raises:
            EventLogError: the batch has columns of the log's own, or the log is damaged.
            TemporaryError: another process appends to this partition.
        """

    def read(self, partition: int, from_offset: int, limit: int) -> list[pa.Table]:
        """Events from an offset on, in offset order, as tables of one schema each with the columns ``STAMPED``.

        Args:
            limit: stop after about this many events; what was appended together is not torn apart.

        Returns:
            Nothing where the log ends before ``from_offset``.

        Raises:
            EventLogError: the log is damaged, or no longer (not ever) holds ``from_offset``.
        """

    def start_offset(self, partition: int) -> int:
        """The lowest offset that the log holds, or will hold where it is empty."""

    def end_offset(self, partition: int) -> int:
        """The offset that the next event will get."""

    def offset_at(self, partition: int, ingest_us: int) -> int:
        """An offset before which every event's ingest_time is earlier than ``ingest_us``, as high as is cheap to find."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


def check_sent(events: pa.Table, which: str) -> None:
    """Refuse events that a log could not number and stamp.

    Raises:
        EventLogError: a column of ``SENT`` is missing, or one of ``STAMPED`` is there already.
    """
    missing = sorted(set(SENT) - set(events.column_names))
    extra = sorted(set(STAMPED) & set(events.column_names))
    if missing or extra:
        raise EventLogError(
            explain("events cannot be appended", which=which, expected=f"columns {', '.join(SENT)} and attributes",
                    got=f"no {', '.join(missing)}" if missing else f"columns of the log's own: {', '.join(extra)}",
                    next_step="correct the producer")
        )  # fmt: skip


def append_by_entity(log: EventLog, events: pa.Table, *, now_us: int) -> int:
    """Append events to the partitions that their entities belong to; returns how many."""
    placed = partition_of(events["entity_id"], log.partitions)
    for partition in np.unique(placed).tolist():
        log.append(partition, events.filter(pa.array(placed == partition)), now_us=now_us)
    return int(events.num_rows)
