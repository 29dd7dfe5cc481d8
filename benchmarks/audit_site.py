"""A workspace for a long audited run: events that arrive late, twice or wrong, profiles, and the processes of ``plumb``."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from audit.two_views import CATALOG
from parity.adversarial import ATTRIBUTES, CARRIED

from features.event_log.compaction import open_live_log
from features.event_log.port import append_by_entity
from features.events import append_events
from features.layout import DAY_S, HOUR_S, US_PER_S
from features.profiles import append_profiles
from features.rows import TIME, event_schema, profile_schema
from features.workspace import Workspace

ENTITY: Final = "user"
TYPES: Final = ("session", "offer_shown", "offer_clicked", "message_sent", "message_opened", "payment", "refund", "signup")
WEIGHTS: Final = (0.35, 0.15, 0.08, 0.15, 0.12, 0.08, 0.04, 0.03)
HISTORY_DAYS: Final = 40
LATE_SHARE: Final = 0.05
REPEATED_SHARE: Final = 0.02
REFUSED_SHARE: Final = 0.002
PLUMB: Final = [sys.executable, "-c", "from plumb.app import main; main()"]


def clock_us() -> int:
    """The wall clock, UTC microseconds."""
    return time.time_ns() // 1_000


class Producer:
    """Draws events of random users and appends them to the live log until it is stopped."""

    def __init__(self, workspace: Workspace, users: int, *, rate: int, seed: int = 1) -> None:
        self.appended = self.late = self.repeated = 0
        self._workspace, self._users, self._rate = workspace, users, rate
        self._rng = np.random.default_rng(seed)
        self._before: pa.Table | None = None
        self._drawn = 0
        self._stopping = threading.Event()
        self._appending = threading.Lock()
        self._thread = threading.Thread(target=self._append_on, daemon=True)

    def __enter__(self) -> Producer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def draw(self, count: int, event_us: np.ndarray) -> pa.Table:
        """Events of random users at these times, without the log's own columns."""
        rng, first = self._rng, self._drawn
        self._drawn += count
        kinds = rng.choice(len(TYPES), count, p=WEIGHTS)
        names = np.array(TYPES)[kinds]
        columns: dict[str, Any] = {
            "event_id": [f"e{number}" for number in range(first, first + count)],
            "entity_id": [f"user-{number}" for number in rng.integers(self._users, size=count).tolist()],
            "event_type": names.tolist(),
            "region": np.array(("eu", "us"))[rng.integers(2, size=count)].tolist(),
        }
        for name, choices in ATTRIBUTES.items():
            picked = rng.integers(len(choices), size=count).tolist()
            columns[name] = [
                choices[pick] if name in CARRIED[kind] else None
                for pick, kind in zip(picked, columns["event_type"], strict=True)
            ]
        schema = event_schema(CATALOG.attributes_of(ENTITY))
        arrays = {name: pa.array(values, schema.field(name).type) for name, values in columns.items()}
        return pa.table({**arrays, "event_time": pa.array(event_us).cast(TIME)})

    def import_history(self, events: int) -> None:
        """Events of the last weeks into the batch log."""
        end_us = clock_us() - HOUR_S * US_PER_S
        ingest_us = np.sort(end_us - self._rng.integers(HISTORY_DAYS * DAY_S * US_PER_S, size=events))
        late_us = np.where(self._rng.random(events) < LATE_SHARE, self._rng.integers(20 * DAY_S * US_PER_S, size=events), 0)
        table = self.draw(events, ingest_us - late_us).append_column("ingest_time", pa.array(ingest_us).cast(TIME))
        append_events(self._workspace, CATALOG, ENTITY, table, source="history")

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the log's files to another producer meanwhile."""
        with self._appending:
            yield

    def _append_on(self) -> None:
        while not self._stopping.wait(0.5):
            batch = self._next()
            # Opened anew each time: a log has one producer at a time, and a deletion is one too.
            with self._appending, open_live_log(self._workspace, CATALOG, ENTITY, durability="process") as log:
                append_by_entity(log, batch, now_us=clock_us())
            self.appended += batch.num_rows

    def _next(self) -> pa.Table:
        rng, count, now_us = self._rng, self._rate // 2, clock_us()
        late = rng.random(count) < LATE_SHARE
        ahead = rng.random(count) < REFUSED_SHARE
        behind_us = np.where(
            late, rng.integers(HOUR_S * US_PER_S, 20 * DAY_S * US_PER_S, size=count), rng.integers(5 * US_PER_S, size=count)
        )
        fresh = self.draw(count, np.where(ahead, now_us + HOUR_S * US_PER_S, now_us - behind_us))
        self.late += int(late.sum())
        again = rng.random(count) < REPEATED_SHARE
        batch = fresh
        if self._before is not None:
            repeated = self._before.filter(pa.array(again))
            self.repeated += repeated.num_rows
            batch = pa.concat_tables([fresh, repeated])
        self._before = fresh
        return batch


def append_profile_values(workspace: Workspace, users: int, source: str, seed: int) -> None:
    """New values of four users in five, known from now on."""
    rng, now_us = np.random.default_rng(seed), clock_us()
    chosen = np.flatnonzero(rng.random(users) < 0.8).tolist()
    moment = pa.array([now_us] * len(chosen)).cast(TIME)
    columns = {
        "entity_id": pa.array([f"user-{number}" for number in chosen]), "valid_from": moment, "created_time": moment,
        "plan": pa.array(np.array(("free", "basic", "pro"))[rng.integers(3, size=len(chosen))].tolist()),
        "country": pa.array(np.array(("de", "us", "fr"))[rng.integers(3, size=len(chosen))].tolist()),
        "utc_offset_minutes": pa.array(rng.integers(-12, 12, size=len(chosen)) * 60),
    }  # fmt: skip
    table = pa.table(columns).cast(profile_schema(CATALOG, "account"))
    append_profiles(workspace, CATALOG, "account", table, source=source)


def plumb(workspace: Workspace, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command of ``plumb`` to its end."""
    command = [*PLUMB, "--workspace", str(workspace.root), *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"plumb {' '.join(words)} ended with {done.returncode}: {done.stderr[-1500:]}")
    return done


class Stream:
    """One ``plumb stream`` process, which can be killed and started again."""

    def __init__(self, workspace: Workspace, view: str, log: Path) -> None:
        self._words = ["--workspace", str(workspace.root), "stream", "--catalog", CATALOG.name, "--view", view]
        self._log = log
        self.kills = 0
        self.start()

    def start(self) -> None:
        with self._log.open("a") as errors:
            self._process = subprocess.Popen([*PLUMB, *self._words], env=environment(), stderr=errors)

    def kill(self) -> None:
        """With signal 9, at whatever it is doing."""
        self._require_alive()
        self._process.kill()
        self._process.wait()
        self.kills += 1

    def stop(self) -> None:
        """With SIGTERM: it folds what it has read and ends."""
        self._require_alive()
        self._process.terminate()
        self._process.wait(120)

    def end(self) -> None:
        """Whatever it does."""
        self._process.kill()
        self._process.wait()

    def _require_alive(self) -> None:
        if self._process.poll() is not None:
            raise RuntimeError(f"the stream ended by itself with {self._process.returncode}: {self._log.read_text()[-1500:]}")


@contextlib.contextmanager
def streaming(workspace: Workspace, view: str, log: Path) -> Iterator[Stream]:
    """A stream that is killed at the end, however that comes."""
    stream = Stream(workspace, view, log)
    try:
        yield stream
    finally:
        stream.end()


def environment() -> dict[str, str]:
    """What a ``plumb`` process needs to find the catalog."""
    root = Path(__file__).resolve().parents[1]
    return {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}"}
