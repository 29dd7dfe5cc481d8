"""The peer: one counter over one sliding window, by Beam's own CombinePerKey, on the same runner."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import SlidingWindows, TimestampedValue

from benchmarks.stream_site import Case, draw
from features import layout
from features.declarations import Signal
from features.layout import HOUR_S, MINUTE_S, US_PER_S
from features.tiles import fold, no_tiles, plan_fold
from transforms.stream import DEFAULT_RUNNER

EVENTS: Final = 20_000
USERS: Final = 2_000
PERIOD_S: Final = 5 * MINUTE_S
START_US: Final = 1_735_689_600 * US_PER_S


@dataclass(frozen=True)
class Peer:
    """Events a second of processor time: Beam's, and those of a fold that gives the same numbers."""

    beam_rate: float
    fold_rate: float
    values: int


class _Collect(beam.DoFn):
    found: dict[tuple[int, int], int] = {}  # noqa: RUF012 - of the process: the runner works in it

    def process(self, element: tuple[int, int], window: Any = beam.DoFn.WindowParam) -> None:
        user, count = element
        _Collect.found[(user, int(window.end.micros // US_PER_S))] = count


def run() -> Peer:
    """Count sessions of each user in the hour before every fifth minute, both ways; raises if a count differs."""
    case = Case(users=USERS, events=EVENTS)
    rng = np.random.default_rng(3)
    events = draw(rng, case, 0, EVENTS, START_US, START_US + HOUR_S * US_PER_S)  # beyond it tiles age out
    events = events.filter(pa.array(events["event_type"].to_numpy(zero_copy_only=False) == "session"))
    encoded = events["entity_id"].combine_chunks().dictionary_encode()
    owner = encoded.indices.to_numpy().astype(np.int64)
    at_us = events["event_time"].cast(pa.int64()).to_numpy()

    started = time.process_time()
    _count_by_windows(list(zip(owner.tolist(), at_us.tolist(), strict=True)))
    beam_s = time.process_time() - started

    started = time.process_time()
    signal = Signal(1, "sessions", "user", ("session",), ("count",), (HOUR_S,))
    tiles = fold(no_tiles(), events, owner, plan_fold((signal,)))
    found = _read_windows(tiles.owner, tiles.key & layout.BUCKET_MASK, tiles.value)
    fold_s = time.process_time() - started
    if found != _Collect.found:
        raise AssertionError(f"{len(found.items() ^ _Collect.found.items())} windowed counts differ from Beam's")
    return Peer(len(owner) / beam_s, len(owner) / fold_s, len(found))


def _count_by_windows(events: list[tuple[int, int]]) -> None:
    options = PipelineOptions(flags=[], runner=DEFAULT_RUNNER, save_main_session=False)
    with beam.Pipeline(options=options) as pipeline:
        keyed = pipeline | beam.Create(events) | beam.Map(lambda event: TimestampedValue((event[0], 1), event[1] / US_PER_S))
        counts = keyed | beam.WindowInto(SlidingWindows(HOUR_S, PERIOD_S)) | beam.CombinePerKey(sum)
        _ = counts | beam.ParDo(_Collect())


def _read_windows(owner: np.ndarray, minute: np.ndarray, count: np.ndarray) -> dict[tuple[int, int], int]:
    """Counts in the hour before every fifth minute, from minute tiles: the rule of ``features.layout``."""
    found: dict[tuple[int, int], int] = {}
    steps = PERIOD_S // MINUTE_S
    for lag in range(HOUR_S // PERIOD_S):
        end = (minute // steps + 1 + lag) * steps
        for user, edge, value in zip(owner.tolist(), (end * MINUTE_S).tolist(), count.tolist(), strict=True):
            found[(user, edge)] = found.get((user, edge), 0) + value
    return found
