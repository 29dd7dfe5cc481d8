"""What was served, on its way to disk: a bounded queue, one writer thread, and a request that never waits for either.

Every entity of an answered request becomes a row that names its inputs by position and hash. A sample of them, drawn by a
hash of request and entity, is logged whole: the writer thread finishes their features then, so that no request pays for it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from zlib import crc32

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from features.errors import PlumblineError, StateError, explain
from features.fingerprints import hash_inputs, hash_states, hash_values
from features.online.store import MIXED, NO_OFFSET, Watermark
from features.predictions import SegmentWriter
from features.rows import PREDICTION
from inference.artifact import ModelArtifact

if TYPE_CHECKING:
    from inference.predictor import Predictor
    from inference.replies import Answer

QUEUE_FULL: Final = "queue_full"
"""Rows came faster than the writer thread could write."""
DISK: Final = "disk"
"""The disk was full or failed."""
FAULTY: Final = "faulty"
"""An answer could not be made into rows."""
REASONS: Final = (QUEUE_FULL, DISK, FAULTY)

UNLOGGABLE: Final = (
    PlumblineError, pa.ArrowException, ValueError, TypeError, RuntimeError, LookupError, ArithmeticError, MemoryError,
)  # fmt: skip
"""What an answer may raise that cannot be made into rows."""

WHOLE_RATE: Final = 0.01
MAX_QUEUED_ROWS: Final = 200_000
FRAME_ROWS: Final = 65_536
FLUSH_S: Final = 1.0
CLOSE_TIMEOUT_S: Final = 10.0
OUTPUTS: Final = ("integers", "finished", "transformed")

Finish = Callable[[Mapping[str, Any]], Mapping[str, NDArray[Any]]]
"""Inputs of the graph by name -> ``integers``, ``finished``, ``transformed``: the model's own features signature."""


@dataclass(frozen=True)
class Server:
    """Who answers: what every row of a log says."""

    model: str
    model_version: int
    revision: str
    artifact: ModelArtifact


@dataclass(frozen=True)
class Offered:
    """One answered request on its way."""

    answer: Answer
    request_id: str
    answered_at_us: int


class PredictionLog:
    """The log of one serving process; ``offer`` may be called from any thread."""

    def __init__(
        self,
        folder: Path,
        server: Server,
        finish: Finish,
        *,
        whole_rate: float = WHOLE_RATE,
        max_queued_rows: int = MAX_QUEUED_ROWS,
        count_dropped: Callable[[str, int], None] = lambda reason, rows: None,
    ) -> None:
        """Start the writer thread.

        Args:
            folder: ``Workspace.predictions`` of the model; made when the first rows come.
            finish: finishes features of sampled rows, in the writer thread.
            whole_rate: share of rows logged whole, 0 to 1.
            max_queued_rows: rows beyond this that wait for the writer are dropped.
            count_dropped: told one of ``REASONS`` and how many rows were lost; called from any thread.
        """
        self._writer = SegmentWriter(folder)
        self._server = server
        self._finish = finish
        self._whole_rate = whole_rate
        self._max_queued_rows = max_queued_rows
        self._count_dropped = count_dropped
        self._queue: deque[Offered] = deque()
        self._queued_rows = 0
        self._closing = False
        self._lock = threading.Lock()
        self._ready = threading.Condition(self._lock)
        self._thread = threading.Thread(target=self._write_on, name="prediction-log", daemon=True)
        self._thread.start()

    def offer(self, answer: Answer, *, request_id: str, answered_at_us: int) -> bool:
        """Queue one answered request and return at once.

        The answer must not change any more.

        Args:
            request_id: the caller's, or one made for it; draws the sample together with each entity.
            answered_at_us: UTC microseconds.

        Returns:
            False where its rows were dropped.
        """
        rows = answer.request.rows
        with self._lock:
            fits = self._queued_rows + rows <= self._max_queued_rows and not self._closing
            if fits:
                self._queue.append(Offered(answer, request_id, answered_at_us))
                self._queued_rows += rows
                if self._queued_rows >= FRAME_ROWS:
                    self._ready.notify()
        if not fits:
            self._count_dropped(QUEUE_FULL, rows)
        return fits

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Write what is queued and end the thread; a disk that hangs gets so many seconds."""
        with self._lock:
            self._closing = True
            self._ready.notify()
        self._thread.join(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _write_on(self) -> None:
        closing = False
        while not closing or self._queued_rows:
            with self._lock:
                if not self._closing and self._queued_rows < FRAME_ROWS:
                    self._ready.wait(FLUSH_S)
                closing, batch, rows = self._closing, [], 0
                while self._queue and rows < FRAME_ROWS:
                    batch.append(self._queue.popleft())
                    rows += batch[-1].answer.request.rows
            if batch:
                self._write(batch, rows)
            with self._lock:
                # Until here they count against the bound: a writer that hangs on its disk must not gather more and more.
                self._queued_rows -= rows
        self._writer.close()

    def _write(self, batch: list[Offered], rows: int) -> None:
        try:
            self._writer.append(tabulate(batch, self._server, self._finish, self._whole_rate))
        except OSError:
            self._count_dropped(DISK, rows)
        except UNLOGGABLE:
            if len(batch) == 1:
                # It must not end the log; it is counted, and an alert stands on the count.
                self._count_dropped(FAULTY, rows)
                return
            # One of them is at fault, and the others must not be lost for it: it is found by halving.
            for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                self._write(half, sum(each.answer.request.rows for each in half))


def finish_by(predictor: Predictor) -> Finish:
    """The predictor's features signature for ``PredictionLog``."""
    from tensorflow import errors

    def finish(tensors: Mapping[str, Any]) -> Mapping[str, NDArray[Any]]:
        try:
            return predictor.predict(tensors, with_features=True).features
        except errors.OpError as error:
            raise StateError(
                explain("sampled rows cannot be finished", which="prediction log", expected="features", got=str(error)[:200],
                        next_step="look at the model and the store")
            ) from error  # fmt: skip

    return finish


def tabulate(batch: Sequence[Offered], server: Server, finish: Finish, whole_rate: float) -> pa.Table:
    """Rows of ``rows.PREDICTION`` for answered requests, one a score, in their order: an entity's candidates follow each other.

    What an entity's candidates share is made once and copied by Arrow.
    """
    artifact = server.artifact
    entity_ids = [entity_id for each in batch for entity_id in each.answer.request.entity_ids]
    counts = [len(each.answer.request.entity_ids) for each in batch]
    tensors = {name: _join(batch, name) for name in batch[0].answer.inputs.tensors}
    profile = [tensors[field.name] for field in artifact.profile_fields]
    request = [tensors[field.name] for field in artifact.request_fields]
    state_hash = hash_states(tensors["state"])
    profile_hash = hash_values(profile, len(entity_ids))
    partitions = [shard for each in batch for shard in each.answer.inputs.log_partition]
    shard_offset, profiles_as_of = _marks(batch)
    count = len(entity_ids)
    owner = np.repeat(np.arange(count), [number for each in batch for number in each.answer.request.counts])
    drawn = draw_whole([each.request_id for each in batch], [each.answer.request.entity_ids for each in batch], whole_rate)
    shared: dict[str, Any] = {
        "request_id": _spread([each.request_id for each in batch], counts),
        "answered_at": np.repeat([each.answered_at_us for each in batch], counts),
        "model": repeat(server.model, count),
        "model_version": np.full(count, server.model_version),
        "view_key": repeat(artifact.view.key, count),
        "revision": repeat(server.revision, count),
        "entity_id": entity_ids,
        "now": tensors["now"],
        "log_partition": partitions,
        "log_offset": [offset for each in batch for offset in each.answer.inputs.log_offset],
        "shard_offset": shard_offset,
        "profiles_as_of": profiles_as_of,
        "state_hash": state_hash,
        "profile_hash": profile_hash,
        "cold": [cold for each in batch for cold in each.answer.inputs.cold],
        "degraded": [reason for each in batch for reason in each.answer.inputs.degraded],
    }
    own = {
        "inputs_hash": hash_inputs(state_hash[owner], profile_hash[owner], request),
        "score": np.concatenate([each.answer.scores.score for each in batch]),
        **_whole_columns(tensors, owner, np.flatnonzero(np.isin(owner, drawn)), artifact, finish),
    }
    arrays = {name: _array(values, PREDICTION.field(name).type) for name, values in (shared | own).items()}
    if len(owner) > count:
        taken = pa.array(owner)
        arrays |= {name: arrays[name].take(taken) for name in shared}
    return pa.table([arrays[field.name] for field in PREDICTION], schema=PREDICTION)


def draw_whole(request_ids: Sequence[str], entity_ids: Sequence[Sequence[str]], rate: float) -> NDArray[np.int64]:
    """Numbers of the rows to log whole: the same request and entity are drawn alike wherever and whenever they are asked."""
    if rate <= 0:
        return np.empty(0, np.int64)
    hashes = [
        crc32(entity_id.encode(), start)
        for request_id, ids in zip(request_ids, entity_ids, strict=True)
        for start in (crc32(request_id.encode(errors="surrogateescape")),)
        for entity_id in ids
    ]
    # CRC-32 is linear, so ids that differ in one letter would be drawn in step; a multiplication breaks that.
    mixed = np.array(hashes, np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)
    return np.flatnonzero(mixed < rate * 2**32)


def _whole_columns(
    tensors: Mapping[str, Any], owner: NDArray[np.int64], whole: NDArray[np.int64], artifact: ModelArtifact, finish: Finish
) -> dict[str, pa.Array]:
    """The columns that only sampled rows fill, null elsewhere."""
    names, count = ("state", "fields", *OUTPUTS), len(owner)
    if not len(whole):
        return {name: pa.nulls(count, PREDICTION.field(name).type) for name in names}
    asked = {field.name for field in artifact.request_fields}
    rows_of = {True: whole.tolist(), False: owner[whole].tolist()}
    sampled = {name: [values[row] for row in rows_of[name in asked]] for name, values in tensors.items()}
    outputs = finish(sampled | {"now": np.array(sampled["now"], np.int64)})
    fields = (*artifact.profile_fields, *artifact.request_fields)
    rows = zip(*(sampled[field.name] for field in fields), strict=True) if fields else repeat((), len(whole))
    names_of = [field.name for field in fields]
    values: dict[str, Any] = {
        "state": sampled["state"],
        "fields": [orjson.dumps(dict(zip(names_of, row, strict=True))).decode() for row in rows],
        **{name: list(outputs[name]) for name in OUTPUTS},
    }
    place = np.full(count, -1)
    place[whole] = np.arange(len(whole))
    taken = pa.array(place, pa.int64(), mask=place < 0)
    return {name: pa.array(values[name], PREDICTION.field(name).type).take(taken) for name in names}


def _marks(batch: Sequence[Offered]) -> tuple[list[int], list[int | None]]:
    """Each row's shard position and the time as of which its profile values stood, None where they are of no single one."""
    nothing = Watermark()
    offsets: list[int] = []
    as_of: list[int | None] = []
    for each in batch:
        inputs = each.answer.inputs
        known = {
            shard: (mark.log_offset, None if mark.filling_to != NO_OFFSET or mark.profiles_as_of_us == MIXED
                    else mark.profiles_as_of_us)
            for shard, mark in ((shard, inputs.watermarks.get(shard, nothing)) for shard in set(inputs.log_partition))
        }  # fmt: skip
        for shard in inputs.log_partition:
            offset, time_us = known[shard]
            offsets.append(offset)
            as_of.append(time_us)
    return offsets, as_of


def _join(batch: Sequence[Offered], name: str) -> Any:
    if isinstance(batch[0].answer.inputs.tensors[name], np.ndarray):
        return np.concatenate([each.answer.inputs.tensors[name] for each in batch])
    return [value for each in batch for value in each.answer.inputs.tensors[name]]


def _spread(values: Sequence[str], counts: Sequence[int]) -> list[str]:
    return [value for value, count in zip(values, counts, strict=True) for _ in range(count)]


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    if pa.types.is_timestamp(kind):
        return pa.array(values, pa.int64()).cast(kind)
    return pa.array(values, kind)
