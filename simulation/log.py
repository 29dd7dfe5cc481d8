"""The log being written: deliveries wait here until no earlier ingest_time can still come, then go to the file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.layout import DAY_S, US_PER_S
from simulation.batch import EVENT_TYPE_NAMES, Batch
from simulation.delivery import DELIVERY_NAMES, Delivered
from simulation.population import MAX_UTC_OFFSET_MINUTES, Population
from simulation.scenario import Scenario
from simulation.tables import EVENTS, events_table


class Log:
    """Writes ``events.parquet`` a day at a time, ordered by (ingest_time, event_id); memory holds what is under way.

    ``counts`` says how many events of each type, how many of each way of delivery, and how many duplicates were made;
    ``rows_written`` and ``rows_after_end`` add up to events plus duplicates.
    """

    def __init__(self, path: Path, user_ids: pa.StringArray, population: Population, scenario: Scenario) -> None:
        self._writer = pq.ParquetWriter(path, EVENTS, compression="zstd", compression_level=1)
        self._user_ids, self._population, self._scenario = user_ids, population, scenario
        self._waiting: pa.Table = EVENTS.empty_table()
        self.next_number = 0
        self.event_types: Counter[str] = Counter()
        self.deliveries: Counter[str] = Counter()
        self.duplicates = 0
        self.rows_written = 0
        self.rows_after_end = 0

    def add(self, batch: Batch, delivered: Delivered) -> None:
        """Take a batch on its way."""
        self.next_number += len(batch)
        for code, count in enumerate(np.bincount(batch.event_type, minlength=len(EVENT_TYPE_NAMES))):
            self.event_types[EVENT_TYPE_NAMES[code]] += int(count)
        for code, count in enumerate(np.bincount(delivered.how[~delivered.duplicate], minlength=len(DELIVERY_NAMES))):
            self.deliveries[DELIVERY_NAMES[code]] += int(count)
        self.duplicates += int(delivered.duplicate.sum())
        table = events_table(batch, delivered, self._user_ids, self._population, self._scenario.world)
        self._waiting = pa.concat_tables([self._waiting, table])

    def write_before_day(self, day: int) -> None:
        """Write what was ingested before a local day can have begun anywhere."""
        earliest_us = self._scenario.start_us + (day * DAY_S - MAX_UTC_OFFSET_MINUTES * 60) * US_PER_S
        self._write_before(min(earliest_us, self._scenario.end_us))

    def close(self) -> None:
        """Write what was ingested by the end of the simulation; the rest would not be known yet and is only counted."""
        self._write_before(self._scenario.end_us)
        self.rows_after_end = len(self._waiting)
        self._writer.close()

    def _write_before(self, limit_us: int) -> None:
        known = pc.less(pc.cast(self._waiting["ingest_time"], pa.int64()), limit_us)
        ready = self._waiting.filter(known)
        self._waiting = self._waiting.filter(pc.invert(known))
        if len(ready):
            self._writer.write_table(ready.sort_by([("ingest_time", "ascending"), ("event_id", "ascending")]))
            self.rows_written += len(ready)
