"""The log as an unbounded Beam source of announcements: partition p now reaches offset e.

An element carries no events. Who folds a partition reads them from the log itself, from the store's own position on, so a
runner may repeat an announcement, lose one or deliver it to another worker, and the result is the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from apache_beam.coders import PickleCoder
from apache_beam.coders.coders import Coder
from apache_beam.io.unbounded_source import CheckpointMark, UnboundedReader, UnboundedSource
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp

from features.event_log.port import EventLog

POLL_S: Final = 0.02
"""Time between two looks at a log that has not grown."""


@dataclass(frozen=True)
class Announced:
    """A partition's log reached ``end_offset`` when it was looked at, UTC microseconds."""

    partition: int
    end_offset: int
    looked_us: int


@dataclass(frozen=True)
class Announcing:
    """What the source needs to know; pickled to wherever it runs.

    Attributes:
        open_log: opens the log there.
        now_us: the clock, UTC microseconds.
        stop_requested: whether readers shall end; the pipeline then finishes what it has read and returns.
        until_caught_up: end once every partition has been announced up to where its log ended at the start.
        heartbeat_us: announce a partition without news after this long, so that its shard is known to be fresh.
    """

    open_log: Callable[[], EventLog]
    now_us: Callable[[], int]
    stop_requested: Callable[[], bool]
    until_caught_up: bool = False
    heartbeat_us: int = 1_000_000


class AnnouncedMark(CheckpointMark):
    """How far each partition has been announced. Nothing is acknowledged upstream: the store's position counts."""

    def __init__(self, announced: dict[int, int]) -> None:
        self.announced = announced


class LogSource(UnboundedSource):
    """Some partitions of a log; splits into one source for each of them where the runner wants that."""

    def __init__(self, how: Announcing, partitions: tuple[int, ...]) -> None:
        self._how = how
        self._partitions = partitions

    def split(self, desired_num_splits: int, options: Any = None) -> Iterable[LogSource]:
        # A local runner reads its splits one after the other, and each would wait for its own partition.
        return [self]

    def create_reader(self, options: Any, checkpoint_mark: AnnouncedMark | None) -> LogReader:
        announced = checkpoint_mark.announced if checkpoint_mark else {}
        return LogReader(self._how, self._partitions, announced)

    def get_checkpoint_mark_coder(self) -> Coder:
        return PickleCoder()


class LogReader(UnboundedReader):
    """Looks at the partitions in turn."""

    def __init__(self, how: Announcing, partitions: tuple[int, ...], announced: dict[int, int]) -> None:
        self._how, self._partitions = how, partitions
        self._announced = dict(announced)
        self._heard_us = dict.fromkeys(partitions, 0)
        self._log = how.open_log()
        self._targets = {partition: self._log.end_offset(partition) for partition in partitions}
        self._current: Announced | None = None
        self._turn = 0
        self._done = False

    def start(self) -> bool:
        return self.advance()

    def advance(self) -> bool:
        # Waits for news instead of reporting that there are none: that would end the bundle, and the local runner starts
        # the next one at once and keeps about 20 KB of each for ever. A heartbeat ends every wait.
        while not self._stopped():
            for _ in self._partitions:
                partition = self._partitions[self._turn % len(self._partitions)]
                self._turn += 1
                if self._look(partition):
                    return True
            time.sleep(POLL_S)
        self._done = True
        return False

    def get_current(self) -> Announced | None:
        return self._current

    def get_current_timestamp(self) -> Timestamp:
        return Timestamp(micros=self._current.looked_us if self._current else 0)

    def get_watermark(self) -> Timestamp:
        return MAX_TIMESTAMP if self._done else Timestamp(micros=min(self._heard_us.values(), default=0))

    def get_checkpoint_mark(self) -> AnnouncedMark:
        return AnnouncedMark(dict(self._announced))

    def close(self) -> None:
        self._log.close()

    def _look(self, partition: int) -> bool:
        looked_us = self._how.now_us()
        end = self._log.end_offset(partition)
        quiet_us = looked_us - self._heard_us[partition]
        if end == self._announced.get(partition) and quiet_us < self._how.heartbeat_us:
            return False
        self._current = Announced(partition, end, looked_us)
        self._announced[partition], self._heard_us[partition] = end, looked_us
        return True

    def _stopped(self) -> bool:
        caught_up = all(self._announced.get(partition, -1) >= end for partition, end in self._targets.items())
        return self._how.stop_requested() or (self._how.until_caught_up and caught_up)
