"""Deleting entities: markers into the log, values out of the stores, rows out of every table, a record of it all.

The order is what makes it safe to end anywhere. The request is recorded first; the markers come next, and from then on no
fold, fill or training row brings anybody back; whatever else holds something is emptied after that. Every step finds
nothing to do where it has been done, so the same command, run again, completes what a crash or a store that was down left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from features import audiences, predictions, served_labels
from features.declarations import Catalog
from features.deletion_records import DeletionRecords, Request
from features.errors import TemporaryError
from features.event_log.compaction import compact, compacted_to
from features.event_log.files import FileLog
from features.event_log.port import EventLog
from features.events import find_markers
from features.marking import mark_batch_log, mark_live_log
from features.online.store import OnlineStore
from features.partitions import partition_of
from features.purging import purge_dead_letters, purge_events, purge_profiles, purge_runs
from features.snapshots import purge_snapshots
from features.workspace import Workspace


@dataclass(frozen=True)
class Deletion:
    """Where entities of one type are to be deleted.

    Attributes:
        open_log: opens the live log; None where events reach the batch log by import alone.
        stores: opens each online store that may hold them, by a name for the record.
        former: the same for stores of earlier view versions, which streams of today do not follow.
    """

    workspace: Workspace
    catalog: Catalog
    entity: str
    open_log: Callable[[], EventLog] | None = None
    stores: Mapping[str, Callable[[], OnlineStore]] = field(default_factory=dict)
    former: Mapping[str, Callable[[], OnlineStore]] = field(default_factory=dict)


def delete_entities(task: Deletion, entity_ids: list[str], *, who: str, reason: str, now_us: int) -> Request:
    """Delete entities everywhere; see the module.

    Args:
        who, reason: for the record.
        now_us: the time of asking, UTC microseconds.

    Returns:
        The request as recorded. It is complete, or says in ``waiting`` what could not be done yet; then ask again.

    Raises:
        EventLogError: a log or table is damaged.
    """
    records = DeletionRecords(task.workspace.deletions)
    request = records.open_request(task.entity, entity_ids, who=who, reason=reason, now_us=now_us)
    steps = _Steps(records, replace(request, waiting=[]))
    steps.attempt("event log", partial(_mark, task, entity_ids, request.id, now_us), counted_as="markers")
    marked = not steps.request.waiting
    for name, open_store in {**task.stores, **task.former}.items():
        steps.attempt(f"online store {name}", partial(_erase_online, open_store, entity_ids))
    if not marked:
        # What serves is empty. The rest must wait for the marker: without it a log could bring everything back.
        return steps.finish(now_us)
    if task.open_log is not None:
        steps.attempt("compaction", partial(_compact, task, now_us))
    for place, purge in _purges(task, entity_ids).items():
        steps.attempt(place, purge)
    if task.open_log is not None:
        steps.attempt("live log files", partial(_drop_live, task, task.open_log, entity_ids, steps.wait_for))
    return steps.finish(now_us)


class _Steps:
    """What has been done of a request, recorded as it goes."""

    def __init__(self, records: DeletionRecords, request: Request) -> None:
        self._records, self.request = records, request

    def count(self, place: str, removed: int) -> None:
        self.request = self.request.counted(place, removed)
        self._records.write(self.request)

    def attempt(self, place: str, act: Callable[[], int], *, counted_as: str = "") -> None:
        """One thing that is down or locked does not keep the others from being emptied."""
        try:
            self.count(counted_as or place, act())
        except TemporaryError as error:
            self.wait_for(f"{place}: {error}")

    def wait_for(self, what: str) -> None:
        self.request = replace(self.request, waiting=[*self.request.waiting, what])

    def finish(self, now_us: int) -> Request:
        if not self.request.waiting:
            self.request = replace(self.request, completed_us=now_us)
        self._records.write(self.request)
        return self.request


def _mark(task: Deletion, entity_ids: list[str], request_id: str, now_us: int) -> int:
    if task.open_log is None:
        return mark_batch_log(task.workspace, task.catalog, task.entity, entity_ids, request_id, now_us=now_us)
    with task.open_log() as log:
        # Standing is read from the batch log, so the live tail that is left to look through is short.
        compact(log, task.workspace, task.catalog, task.entity, now_us=now_us)
        return mark_live_log(log, task.workspace, task.catalog, task.entity, entity_ids, request_id, now_us=now_us)


def _erase_online(open_store: Callable[[], OnlineStore], entity_ids: list[str]) -> int:
    with open_store() as store:
        return store.erase(entity_ids)


def _compact(task: Deletion, now_us: int) -> int:
    """Bring the markers into the batch log, by which purging and training go; nothing is removed."""
    if task.open_log is not None:
        with task.open_log() as log:
            compact(log, task.workspace, task.catalog, task.entity, now_us=now_us)
    return 0


def _purges(task: Deletion, entity_ids: list[str]) -> dict[str, Callable[[], int]]:
    """What empties each table and file, by a name for the record."""
    workspace, catalog, entity = task.workspace, task.catalog, task.entity
    steps: dict[str, Callable[[], int]] = {
        "event log": partial(purge_events, workspace, catalog, entity),
        "snapshots": partial(purge_snapshots, workspace, catalog, entity),
        "rows of past runs": partial(purge_runs, workspace, entity_ids),
        "dead letters": partial(purge_dead_letters, workspace, entity, entity_ids),
    }
    for profile in (each.name for each in catalog.profiles if each.entity == entity):
        steps[f"profile {profile}"] = partial(purge_profiles, workspace, catalog, profile)
    folder = workspace.predictions("any").parent
    for model in sorted(path.name for path in folder.iterdir()) if folder.is_dir() else ():
        steps[f"predictions of {model}"] = partial(predictions.erase, workspace.predictions(model), entity_ids)
    folder = workspace.served_labels("any").parent
    for model in sorted(path.name for path in folder.iterdir()) if folder.is_dir() else ():
        steps[f"labels of {model}"] = partial(served_labels.erase, workspace.served_labels(model), entity_ids)
    folder = workspace.audiences("any").parent
    for model in sorted(path.name for path in folder.iterdir()) if folder.is_dir() else ():
        steps[f"audiences of {model}"] = partial(audiences.erase, workspace.audiences(model), entity_ids)
    return steps


def _drop_live(
    task: Deletion, open_log: Callable[[], EventLog], entity_ids: list[str], wait_for: Callable[[str], None]
) -> int:  # fmt: skip
    """Drop the live log's files up to the markers, once every stream has read so far and the batch log has the rest.

    Until then a stream may hold a state of before the deletion and write it back, also one that reads a topic, whose events
    go by its own retention.
    """
    dropped = 0
    with open_log() as log:
        markers = find_markers(task.workspace, task.catalog, task.entity).of(entity_ids)
        names, offsets = markers.entity_ids, markers.last["erased_to"].to_list()
        for partition, before in _furthest(partition_of(names, log.partitions).tolist(), offsets).items():
            if isinstance(log, FileLog) and log.start_offset(partition) >= before:
                continue
            behind = [] if compacted_to(log, task.workspace, task.catalog, task.entity, partition) > before else ["compaction"]
            behind += [name for name, open_store in task.stores.items() if _reached(open_store, partition) < before]
            if behind:
                wait_for(f"live log, partition {partition}: {', '.join(behind)} must read to offset {before} first")
            elif isinstance(log, FileLog):
                dropped += log.drop_segments(partition, before)
    return dropped


def _furthest(partitions: list[int], offsets: list[int]) -> dict[int, int]:
    furthest: dict[int, int] = {}
    for partition, offset in zip(partitions, offsets, strict=True):
        furthest[partition] = max(offset, furthest.get(partition, 0))
    return furthest


def _reached(open_store: Callable[[], OnlineStore], partition: int) -> int:
    with open_store() as store:
        return store.watermark(partition).log_offset
