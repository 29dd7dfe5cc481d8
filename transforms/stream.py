"""The streaming job: announcements of the log's growth -> fold each partition into its shard -> what has changed.

No window, no timer, no shuffle, so it means the same on every runner. The fold itself is ``features.stream_fold``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from features.declarations import Catalog, View
from features.errors import PlumblineError
from features.event_log.port import EventLog
from features.online.store import OnlineStore
from features.stream_fold import Folded, History, ShardFold
from transforms.plan import plan_graph
from transforms.stream_changes import Subscriber, finish_entities
from transforms.stream_source import Announced, Announcing, LogSource

if TYPE_CHECKING:
    from transforms.export import Finisher

DEFAULT_RUNNER: Final = "FnApiRunner"
MICRO_BATCH: Final = 200_000
"""At most about this many events a commit: bounds memory, and the time for which a shard's readers see the state before."""

_FAILURES: list[PlumblineError] = []
"""Errors of ours that ended a bundle in this process."""


@dataclass(frozen=True)
class StreamJob:
    """One view's stream; pickled to the workers.

    Attributes:
        open_log, open_store: open the event log and the view's online store where the work is done.
        history: ids in the batch log before the live one's start.
        now_us: the clock, UTC microseconds.
        stop_requested: whether the stream shall end with what it has read.
        report: called with every commit.
        micro_batch: events a commit, at most about.
        subscriber: gets the finished features of the entities that each commit has changed.
    """

    catalog: Catalog
    view: View
    open_log: Callable[[], EventLog]
    open_store: Callable[[], OnlineStore]
    history: History
    now_us: Callable[[], int]
    stop_requested: Callable[[], bool]
    report: Callable[[Folded], None]
    micro_batch: int = MICRO_BATCH
    subscriber: Subscriber | None = None


def run_stream(
    job: StreamJob, partitions: tuple[int, ...], *, runner: str = DEFAULT_RUNNER, until_caught_up: bool = False
) -> None:
    """Fold partitions into their shards until the job is told to stop, or until all that was there has been folded.

    Raises:
        CommitConflict: another writer has taken a shard over.
        EventLogError, StoreError, StoreUnavailable: the log's or the store's.
    """
    how = Announcing(job.open_log, job.now_us, job.stop_requested, until_caught_up)
    options = PipelineOptions(flags=[], runner=runner, save_main_session=False, streaming=True)
    _FAILURES.clear()
    try:
        with beam.Pipeline(options=options) as pipeline:
            announced = pipeline | "Log" >> beam.io.Read(LogSource(how, partitions))
            _ = announced | "Fold" >> beam.ParDo(FoldPartition(job))
    except RuntimeError as error:
        # Beam reports a failed bundle as text; where it ran in this process, the error itself is at hand.
        if _FAILURES:
            raise _FAILURES[0] from error
        raise


class FoldPartition(beam.DoFn):
    """Follows an announcement: folds the partition into its shard up to there, micro-batch by micro-batch."""

    def __init__(self, job: StreamJob) -> None:
        self._job = job
        self._log: EventLog | None = None
        self._store: OnlineStore | None = None
        self._folds: dict[int, ShardFold] = {}
        self._finisher: Finisher | None = None

    def setup(self) -> None:
        self._log, self._store = self._job.open_log(), self._job.open_store()
        if self._job.subscriber:
            # TensorFlow takes seconds to import, and a stream without subscribers has no use for it.
            from transforms.export import load_finisher

            plan = plan_graph(self._job.catalog, self._job.view)
            self._finisher = load_finisher(self._job.subscriber.saved_model, plan)

    def process(self, announced: Announced) -> Iterator[Folded]:
        try:
            yield from self._follow(announced)
        except PlumblineError as error:
            _FAILURES.append(error)
            raise

    def teardown(self) -> None:
        for opened in (self._log, self._store):
            if opened is not None:
                opened.close()

    def _follow(self, announced: Announced) -> Iterator[Folded]:
        fold = self._fold_of(announced.partition)
        while fold.position.log_offset + 1 < announced.end_offset:
            before = fold.position
            done = fold.fold_next(self._job.micro_batch, announced.looked_us)
            if done:
                self._job.report(done)
                self._deliver(done)
                yield done
            elif fold.position == before:
                return  # the log's end was an append that a crash had torn: there is nothing more to read
        if fold.position.as_of_us < announced.looked_us:
            fold.advance(announced.looked_us)

    def _deliver(self, done: Folded) -> None:
        """Finish what a commit has changed; here and not further on, because a process may open an LMDB store once."""
        job = self._job
        if job.subscriber and self._finisher and self._store and done.entity_ids:
            changed = finish_entities(self._store, self._finisher, job.catalog, job.view, done.entity_ids, job.now_us())
            job.subscriber.deliver(changed)

    def _fold_of(self, partition: int) -> ShardFold:
        if partition not in self._folds:
            job, log, store = self._job, self._log, self._store
            if log is None or store is None:
                raise RuntimeError("setup() was not called")
            self._folds[partition] = ShardFold(log, store, job.catalog, job.view, partition, job.history)
        return self._folds[partition]
