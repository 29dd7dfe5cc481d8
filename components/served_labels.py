"""Labels of served predictions, once they have matured: what logs, specs and the labels' own table make together.

The rooms that take part do not know each other. The features room has the prediction log, the event log and the table, the
models room the kernel that training's labels come from. A prediction is labelled as known at one instant, the earlier of
``now`` and the end of the event log (silence after that is no evidence), and not before its horizon and label delay have
passed by then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.declarations import declarations_of
from features import served_labels
from features.declarations import Catalog, View
from features.erasure import Markers
from features.event_log.compaction import has_live_history
from features.event_log.complete import CompletePartition, read_complete
from features.events import log_heads
from features.layout import US_PER_S
from features.partitions import partition_of
from features.predictions import count_frames, list_segments, reaches, read_segment
from features.rows import SERVED_LABEL, TIME
from features.served_labels import Progress, Seen
from features.workspace import Workspace
from models.labels import label_rows
from models.spec_checks import require_probability
from models.specs import LabelSpec, load_spec

Ints = NDArray[np.int64]

LABELLED: Final = "labelled"
ERASED: Final = "erased"
"""The user was deleted since; the row is on its way out of the prediction log."""
EXPIRED: Final = "expired"
"""The event log has dropped events that the label would need."""
UNTOUCHED: Final = "untouched"
"""The label is credited to a touch, and the log has not exactly one of the user's at the prediction's ``now``."""
STATUSES: Final = (LABELLED, ERASED, EXPIRED, UNTOUCHED)

ROWS_A_COMMIT: Final = 500_000
"""About so many rows are held in memory and committed at once."""
NEVER_US: Final = -1
FAR_US: Final = 2**62
COLUMNS: Final = ["request_id", "entity_id", "answered_at", "now", "model", "model_version", "revision", "score"]
"""What a label row takes over from its prediction."""


@dataclass(frozen=True)
class Labelled:
    """What one run did.

    Attributes:
        known_at_us: the instant as of which labels are known, UTC microseconds; 0 where the event log is empty.
        statuses: predictions whose time had come, by ``STATUSES``; all but the labelled never get a label.
        positives: of the labelled.
        open: predictions of the segments looked at that mature later.
    """

    model: str
    known_at_us: int
    statuses: Mapping[str, int]
    positives: int
    open: int

    def describe(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "statuses": dict(self.statuses)}


def label_served(
    workspace: Workspace, model: str, *, now_us: int, since_us: int | None = None, rows_a_commit: int = ROWS_A_COMMIT
) -> Labelled:
    """Append the labels that have matured since the last run, each once, whenever a run ends.

    Args:
        now_us: what is known later does not count, UTC microseconds.
        since_us: segments of the prediction log that end before it are not looked at.
        rows_a_commit: about how many rows are labelled at a time.

    Raises:
        TemporaryError: another process labels the model.
        PlumblineError: the model is unknown, or its score is no probability of its label, or a log or the table is damaged.
    """
    spec = load_spec(model)
    require_probability(spec, "judging served predictions")
    label = spec.label
    catalog, view = declarations_of(model)
    folder, statuses = workspace.served_labels(model), Counter(dict.fromkeys(STATUSES, 0))
    known_at_us = known_until(workspace, catalog, view.entity, now_us)
    positives = still_open = 0
    with served_labels.writing(folder) as before:
        progress = dict(before)
        for batch in _gather(workspace.predictions(model), before, label, known_at_us, since_us, rows_a_commit):
            # Read under the lock: a deletion that is under way waits for it, and what it has marked already is seen.
            rows = _label(workspace, catalog, view, batch.due, label, known_at_us, statuses)
            progress.update(batch.seen)
            served_labels.append(folder, rows, {name: progress[name] for name in batch.present if name in progress})
            positives += int(pc.sum(rows["label"]).as_py() or 0)
            still_open += batch.open
    return Labelled(model, max(known_at_us, 0), dict(statuses), positives, still_open)


def known_until(workspace: Workspace, catalog: Catalog, entity: str, now_us: int) -> int:
    """The instant up to which the event log surely holds what was known, at most ``now_us``; negative where it is empty.

    A log on Kafka is compacted partition by partition, and its tail is not at hand: there the partition that is furthest
    behind decides. Otherwise the tail is read, or every import brought all partitions at once.
    """
    _, last_us = log_heads(workspace, catalog, entity)
    begun = last_us[last_us > np.iinfo(np.int64).min]
    if not len(begun):
        return NEVER_US
    remote = has_live_history(workspace, catalog, entity) and not workspace.live_log(entity).exists()
    return min(now_us, int(begun.min() if remote else begun.max()))


class Batch(NamedTuple):
    """Rows whose time has come, how far their segments are with them, names of all segments, and rows still open."""

    due: pa.Table
    seen: Progress
    present: list[str]
    open: int


def _gather(
    folder: Path, progress: Progress, label: LabelSpec, known_at_us: int, since_us: int | None, most: int
) -> Iterator[Batch]:  # fmt: skip
    """Rows whose time has come, some segments at a time."""
    paths = list_segments(folder)
    present = [path.name for path in paths]
    tables: list[pa.Table] = []
    seen: dict[str, Seen] = {}
    still_open = 0
    for path in paths:
        before = progress.get(path.name, Seen(0, NEVER_US, FAR_US))
        # An instant no later than the last one has nothing to add; the next later one finds whatever has come since.
        if before.known_at_us >= known_at_us or (before.due_us > known_at_us and count_frames(path) == before.frames):
            continue
        if since_us is not None and not reaches(path, since_us):
            continue
        due, seen[path.name], later = survey_segment(path, before, wait_us(label), known_at_us)
        tables.append(due)
        still_open += later
        if sum(table.num_rows for table in tables) >= most:
            yield Batch(pa.concat_tables(tables), seen, present, still_open)
            tables, seen, still_open = [], {}, 0
    if seen:
        yield Batch(pa.concat_tables(tables), seen, present, still_open)


def wait_us(label: LabelSpec) -> int:
    """From a prediction's ``now`` until its label has matured."""
    return (label.horizon_s + label.label_delay_s) * US_PER_S


def survey_segment(path: Path, before: Seen, wait: int, known_at_us: int) -> tuple[pa.Table, Seen, int]:
    """Rows of a segment that have matured and were not asked for before, how far it is with them, and how many mature later."""
    tables, frames, due_us, later = [], 0, FAR_US, 0
    for number, rows in read_segment(path, COLUMNS):
        matured_us = rows["now"].cast(pa.int64()).to_numpy() + wait
        asked = (matured_us <= before.known_at_us) & (number < before.frames)
        ripe = matured_us <= known_at_us
        tables.append(rows.filter(pa.array(ripe & ~asked)))
        frames, later = number + 1, later + int((~ripe).sum())
        if not ripe.all():
            due_us = min(due_us, int(matured_us[~ripe].min()))
    empty = SERVED_LABEL.empty_table().select(COLUMNS)
    return pa.concat_tables([empty, *(table.cast(empty.schema) for table in tables)]), Seen(frames, known_at_us, due_us), later


def _label(  # noqa: PLR0913 - where, of which log, what, how, as of when, and a tally
    workspace: Workspace, catalog: Catalog, view: View, due: pa.Table, label: LabelSpec, known_at_us: int,
    statuses: Counter[str],
) -> pa.Table:  # fmt: skip
    """Rows of ``SERVED_LABEL`` for those that can be labelled; the others are counted by the reason."""
    parts = [SERVED_LABEL.empty_table()]
    places = partition_of(due["entity_id"], catalog.log_partitions) if due.num_rows else np.zeros(0, np.int64)
    for partition in np.unique(places).tolist():
        rows = due.filter(pa.array(places == partition))
        log = read_complete(workspace, catalog, view, partition, entity_ids=rows["entity_id"].combine_chunks().unique())
        status, touch = judge_rows(rows, log, label)
        for name in STATUSES:
            statuses[name] += int((status == name).sum())
        fit = status == LABELLED
        rows, touch = rows.filter(pa.array(fit)), touch[fit]
        now_us = rows["now"].cast(pa.int64()).to_numpy()
        ids = rows["entity_id"].combine_chunks()
        found = label_rows(log.events, label, ids, now_us, known_at_us=known_at_us, touch=touch)
        columns = {name: rows[name] for name in COLUMNS} | {
            "label": found["label"],
            "matured_at": pa.array(now_us + wait_us(label)).cast(TIME),
            "known_at": pa.array(np.full(rows.num_rows, known_at_us)).cast(TIME),
        }
        parts.append(pa.table([columns[field.name] for field in SERVED_LABEL], schema=SERVED_LABEL))
    return pa.concat_tables(parts)


def judge_rows(rows: pa.Table, log: CompletePartition, label: LabelSpec) -> tuple[NDArray[np.str_], Ints]:
    """(n,) status of each prediction of one partition, and its touch's number among the events where the label is credited to
    touches."""
    now_us, answered_us = (rows[name].cast(pa.int64()).to_numpy() for name in ("now", "answered_at"))
    status = np.full(rows.num_rows, LABELLED, dtype=f"<U{max(map(len, STATUSES))}")
    touch = np.full(rows.num_rows, -1)
    if label.attribution is not None:
        touch = find_touches(log.events, label.attribution.touches, rows["entity_id"], now_us)
        status[touch < 0] = UNTOUCHED
    if log.base is not None:
        status[now_us < log.base.known_from_us] = EXPIRED
    status[np.minimum(now_us, answered_us) <= _erased_at_us(rows["entity_id"], log.markers)] = ERASED
    return status, touch


def find_touches(events: pa.Table, touches: tuple[str, ...], entity_ids: pa.ChunkedArray, now_us: Ints) -> Ints:
    """(n,) number in ``events`` of the one touch of each entity that became known at ``now``, as training draws its rows;
    -1 where there is none or more than one: nothing says which one was asked about."""
    chosen = pc.is_in(events["event_type"], value_set=pa.array(touches)).to_numpy(zero_copy_only=False)
    numbers = np.flatnonzero(chosen)
    own = events.take(pa.array(numbers))
    known_us = own["ingest_time"].cast(pa.int64()).to_numpy()
    at: dict[tuple[str, int], int] = {}
    for number, key in zip(numbers.tolist(), zip(own["entity_id"].to_pylist(), known_us.tolist(), strict=True), strict=True):
        at[key] = -1 if key in at else number
    keys = zip(entity_ids.to_pylist(), now_us.tolist(), strict=True)
    return np.array([at.get(key, -1) for key in keys], np.int64)


def _erased_at_us(entity_ids: pa.ChunkedArray, markers: Markers) -> Ints:
    """(n,) moment to which each entity was erased, UTC microseconds; below any time where it was not."""
    last = markers.last.to_arrow()
    found = pc.index_in(entity_ids, value_set=last["entity_id"].combine_chunks().cast(pa.string())).combine_chunks()
    at_us: Ints = pc.fill_null(last["erased_at_us"].combine_chunks().take(found), np.iinfo(np.int64).min).to_numpy()
    return at_us
