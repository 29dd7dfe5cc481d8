"""Two worker processes over one site: how much they fold, and how soon after its append an event can be read."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from benchmarks.stream_site import APPEND_EVERY_S, PROCESSES, Site, append_live, job_of, now_us
from features.stream_fold import Folded
from transforms.stream import run_stream

WORKERS: Final = 2


@dataclass(frozen=True)
class Caught:
    """What all workers took together; ``cpu_s`` is processor time, the kernel's included, ``wall_s`` that of the slowest."""

    events: int
    commits: int
    wall_s: float
    cpu_s: float

    @property
    def rate(self) -> float:
        """Events a second of two cores, by processor time."""
        return 2 * self.events / self.cpu_s


@dataclass(frozen=True)
class Fresh:
    """Seconds from append to readable, at most: every event of a commit counts as its oldest one."""

    events: int
    rate: float
    p50_s: float
    p99_s: float
    cpu_s: float


class Commits:
    """Commits of one worker, kept where it runs: (events, at most this late in seconds)."""

    made: list[tuple[int, float]] = []  # noqa: RUF012 - one for the process: the job is pickled, this is not

    def __call__(self, done: Folded) -> None:
        self.made.append((done.events, (now_us() - done.oldest_us) / 1e6))


class Until:
    """Stops a stream when it is told to from another process."""

    told: Any = None

    def __call__(self) -> bool:
        return Until.told is not None and Until.told.is_set()


def catch_up(site: Site) -> Caught:
    """Fold all that is in the log."""
    done = _run_workers(site, None)
    walls, cpus, made = zip(*done, strict=True)
    events = sum(count for commits in made for count, _ in commits)
    return Caught(events, sum(map(len, made)), max(walls), sum(cpus))


def stay_fresh(site: Site, rate: int, seconds: float) -> Fresh:
    """Append ``rate`` events a second while the stream runs."""
    told = PROCESSES.Event()
    done = _run_workers(site, told, lambda: append_live(site, rate, seconds))
    _, cpus, made = zip(*done, strict=True)
    counts, late_s = (np.array(column) for column in zip(*(commit for commits in made for commit in commits), strict=True))
    late_s = np.repeat(late_s, counts.astype(int))
    return Fresh(len(late_s), rate, float(np.percentile(late_s, 50)), float(np.percentile(late_s, 99)), sum(cpus))


def _run_workers(site: Site, told: Any, meanwhile: Any = None) -> list[tuple[float, float, list[tuple[int, float]]]]:
    partitions = range(site.catalog.log_partitions)
    barrier, results = PROCESSES.Barrier(WORKERS + 1), PROCESSES.Queue()
    shares = [tuple(partitions[index::WORKERS]) for index in range(WORKERS)]
    workers = [PROCESSES.Process(target=_work, args=(site, share, barrier, results, told)) for share in shares]
    for worker in workers:
        worker.start()
    barrier.wait()
    if meanwhile:
        meanwhile()
        time.sleep(20 * APPEND_EVERY_S)
        told.set()
    done = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    return done


def _work(site: Site, partitions: tuple[int, ...], barrier: Any, results: Any, told: Any) -> None:
    """One worker's process."""
    Until.told = told
    barrier.wait()
    wall, cpu = time.perf_counter(), time.process_time()
    run_stream(job_of(site, Commits(), Until()), partitions, until_caught_up=told is None)
    results.put((time.perf_counter() - wall, time.process_time() - cpu, Commits.made))
