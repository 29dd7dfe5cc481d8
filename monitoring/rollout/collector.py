"""What the gates see: events of requests, gathered as they come and handed over once a tick.

Memory is bounded: rows beyond ``most_rows`` a tick are dropped and counted, and of requests the last that name up to
``most_waiting`` entities are known. A tick says how much was lost, here or by who sends the events, and a loss is evidence that
something is wrong: ``check_collection``.

A reply that names nobody (a failure, V2) is about whom its request named, and events of both come in any order: it waits for
its request until the second tick. Only then does it count as somebody of its own, because a user who fails again and again
must count once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

import numpy as np

from monitoring.rollout.events import Answered, Asked, UnreadableEvent, hash_entity, read_event, read_losses
from monitoring.rollout.observations import Observations
from monitoring.verdicts import Outcome, Severity, Verdict

MOST_ROWS: Final = 200_000
MOST_WAITING: Final = 50_000
SETTLING_LOOKS: Final = 2
"""What a sender had lost before so many looks at what it sends was lost before anybody watched: events that it was about to
send while nobody did say how it was then."""
MOST_LOST: Final = 0.05
"""Share of events that may be lost before a rollout is judged blind."""
Row = tuple[int, int, bool, float, bool, float, int]
"""Arm, entity, failed, latency in seconds, degraded, score, which request."""


@dataclass(frozen=True)
class Losses:
    """Events since watching began: ``kept`` for the gates, lost because there were too many, because they were unreadable, or
    because they were never sent."""

    kept: int = 0
    dropped: int = 0
    unreadable: int = 0
    unsent: int = 0

    @property
    def lost(self) -> int:
        return self.dropped + self.unreadable + self.unsent

    @property
    def lost_share(self) -> float:
        return self.lost / (self.kept + self.lost) if self.lost else 0.0


@dataclass
class _Sender:
    """Who sends a service's events, and how many answers it had lost when that began to count, and by now."""

    name: str
    before: int
    lost: int
    looks: int = 0


@dataclass
class _Watch:
    """One service: which revision is which arm, since when a request counts, and replies that wait for their requests."""

    arms: Mapping[str, int]
    since_us: int
    rows: list[Row] = field(default_factory=list)
    kept: int = 0
    dropped: int = 0
    unreadable: int = 0
    early: dict[str, Answered] = field(default_factory=dict)
    """Since the last tick."""
    earlier: dict[str, Answered] = field(default_factory=dict)
    """Since the tick before."""
    waiting: int = 0
    """Rows of both."""
    sender: _Sender | None = None
    unsent: int = 0
    """By senders that are gone."""

    def hear(self, name: str, lost: int) -> None:
        """What a sender says of itself."""
        if self.sender is None or self.sender.name != name:
            self.unsent = self.lost_unsent
            self.sender = _Sender(name, lost, lost)
        self.sender.lost = max(self.sender.lost, lost)

    def settle(self) -> None:
        """At every look."""
        if self.sender is not None and self.sender.looks < SETTLING_LOOKS:
            self.sender.looks += 1
            self.sender.before = self.sender.lost

    @property
    def lost_unsent(self) -> int:
        return self.unsent + (self.sender.lost - self.sender.before if self.sender else 0)


class Collector:
    """Gathers events of the services that are watched; ``receive`` may be called from any thread."""

    def __init__(self, *, most_rows: int = MOST_ROWS, most_waiting: int = MOST_WAITING) -> None:
        self._most_rows = most_rows
        self._most_waiting = most_waiting
        self._lock = threading.Lock()
        self._watched: dict[str, _Watch] = {}
        self._asked: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._asked_entities = 0
        self._received = 0

    def receive(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Take in one event; False where it cannot be read."""
        try:
            event = read_event(headers, body)
        except UnreadableEvent:
            with self._lock:
                self._received += 1
                self._count_unreadable(headers.get("ce-inferenceservicename"))
            return False
        with self._lock:
            self._received += 1
            watch = self._watched.get(event.service)
            if watch is None:
                return True
            losses = read_losses(headers)
            if losses is not None:
                watch.hear(*losses)
            if isinstance(event, Asked):
                self._remember(event)
                early = watch.early.pop(event.id, None) or watch.earlier.pop(event.id, None)
                if early is not None:
                    watch.waiting -= _rows_of(early)
                    self._keep(watch, early, event.entities)
            else:
                self._take_answer(watch, event)
        return True

    def watch(self, service: str, arms: Mapping[str, int], since_us: int) -> None:
        """Count requests of these revisions from now on, if they were routed at ``since_us`` (UTC microseconds) or later.

        Args:
            arms: 0 for stable or 1 for canary, by revision.
        """
        with self._lock:
            present = self._watched.get(service)
            if present is None or (present.arms, present.since_us) != (arms, since_us):
                self._watched[service] = _Watch(dict(arms), since_us)

    def forget(self, service: str) -> None:
        """Watch it no longer."""
        with self._lock:
            self._watched.pop(service, None)
            if not self._watched:
                self._asked.clear()
                self._asked_entities = 0

    def drain(self, service: str, at_us: int) -> tuple[Observations, Losses]:
        """The rows that have come since the last call, and what was lost since watching began."""
        with self._lock:
            watch = self._watched.get(service) or _Watch({}, 0)
            for event in watch.earlier.values():
                watch.waiting -= _rows_of(event)
                self._keep(watch, event, (event.id,))
            watch.settle()
            watch.earlier, watch.early = watch.early, {}
            rows, watch.rows = watch.rows, []
            losses = Losses(watch.kept, watch.dropped, watch.unreadable, watch.lost_unsent)
        columns = list(zip(*rows, strict=True)) if rows else [()] * 7
        return (
            Observations(
                at_us=at_us,
                arm=np.array(columns[0], np.int8),
                entity=np.array(columns[1], np.int64),
                failed=np.array(columns[2], np.bool_),
                latency_s=np.array(columns[3], np.float64),
                degraded=np.array(columns[4], np.bool_),
                score=np.array(columns[5], np.float32),
                slice_code=np.zeros(len(rows), np.int16),
                request=np.array(columns[6], np.int64),
            ),
            losses,
        )

    @property
    def received(self) -> int:
        """Events that have come in, readable or not, since the process began."""
        return self._received

    def _count_unreadable(self, service: str | None) -> None:
        """Against the service that it names; against all where it names none."""
        for name, watch in self._watched.items():
            watch.unreadable += service is None or service == name

    def _remember(self, event: Asked) -> None:
        """Whom a request is about; the oldest requests make room."""
        self._asked_entities += len(event.entities) - len(self._asked.pop(event.id, ()))
        self._asked[event.id] = event.entities
        while self._asked_entities > self._most_waiting or len(self._asked) > self._most_waiting:
            self._asked_entities -= len(self._asked.popitem(last=False)[1])

    def _take_answer(self, watch: _Watch, event: Answered) -> None:
        counts = event.failed or event.scores
        if event.revision not in watch.arms or event.routed_us < watch.since_us or not counts:
            return
        entities = event.entities or self._asked.get(event.id, ())
        full = watch.waiting + _rows_of(event) > self._most_waiting
        if entities or full or event.id in watch.early:
            self._keep(watch, event, entities or (event.id,))
        else:
            watch.early[event.id] = event
            watch.waiting += _rows_of(event)

    def _keep(self, watch: _Watch, event: Answered, entities: tuple[str, ...]) -> None:
        arm = watch.arms[event.revision]
        if len(watch.rows) + len(entities) > self._most_rows:
            watch.dropped += 1
            return
        watch.kept += 1
        scores = event.scores if len(event.scores) == len(entities) else (float("nan"),) * len(entities)
        degraded = event.degraded if len(event.degraded) == len(entities) else (False,) * len(entities)
        watch.rows += [
            (arm, hash_entity(entity), event.failed, event.latency_s, is_degraded, score, watch.kept)
            for entity, score, is_degraded in zip(entities, scores, degraded, strict=True)
        ]


def _rows_of(event: Answered) -> int:
    """What an answer that waits takes of the room."""
    return max(1, len(event.scores))


def check_collection(subject: str, losses: Losses, now_us: int) -> Verdict:
    """Whether enough of what happened has been seen; a collector that loses events can promote nothing."""
    share = losses.lost_share
    passes = share <= MOST_LOST
    why = f"{losses.dropped} too many, {losses.unreadable} unreadable, {losses.unsent} never sent"
    text = f"{losses.lost} of {losses.kept + losses.lost} events lost ({why})"
    evidence = {**asdict(losses), "lost_share": share}
    return Verdict("collection", subject, Outcome.PASS if passes else Outcome.FAIL, Severity.PAGE, evidence, text, now_us)
