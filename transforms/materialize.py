"""Fill the online store from the log: a Beam job with one element a log partition, folded by the same tiles as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import apache_beam as beam
import orjson
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from features.declarations import Catalog, View
from features.errors import StoreError, explain
from features.events import find_markers, log_position, read_events
from features.layout import US_PER_S
from features.online.addresses import ViewVersion, open_store
from features.online.records import check_position
from features.online.store import NO_OFFSET, OnlineStore, Watermark
from features.partitions import partition_of
from features.profiles import profiles_current
from features.snapshots import read_snapshot, require_after
from features.workspace import Workspace

DEFAULT_RUNNER: Final = "FnApiRunner"
COMMIT_ENTITIES: Final = 4_000
"""Most entities in one commit of a fill: a Redis server answers nobody else meanwhile, for about 2 ms at 400 bytes each."""


@dataclass(frozen=True)
class Materialized:
    """What one shard was filled with: events folded, entities with state, bytes of state."""

    shard: int
    events: int
    entities: int
    state_bytes: int


def materialize(
    workspace: Workspace,
    catalog: Catalog,
    view: View,
    *,
    as_of_us: int,
    runner: str = DEFAULT_RUNNER,
    store: str | Path | None = None,
) -> tuple[Materialized, ...]:
    """Fill a view's online store with the states and profile values known at a time.

    Args:
        as_of_us: UTC microseconds; events with ingest_time + the view's lag <= as_of_us are folded.
        runner: name of the Beam runner.
        store: address of the store to fill (a folder, or a Redis URL); the workspace's own folder for this view where
            None. An existing store moves forward only; filling it again with the same is allowed and changes nothing.

    Returns:
        One entry a shard, in shard order.

    Raises:
        StoreError: the store belongs to another view, or already stands at a later offset.
    """
    address = str(store or workspace.online(view.key))
    open_store(address, ViewVersion.of(catalog, view), create=True).close()
    job = FillJob(workspace.root, catalog, view, as_of_us, address)
    options = PipelineOptions(flags=[], runner=runner, save_main_session=False)
    with TemporaryDirectory(prefix="plumb-materialize-") as folder:
        results = Path(folder)
        with beam.Pipeline(options=options) as pipeline:
            shards = pipeline | "Shards" >> beam.Create(range(catalog.log_partitions))
            _ = shards | "Fold" >> beam.ParDo(_FillShard(job, results))
        rows = [orjson.loads((results / f"{shard}.json").read_bytes()) for shard in range(catalog.log_partitions)]
    return tuple(Materialized(**row) for row in rows)


@dataclass(frozen=True)
class FillJob:
    """One fill; pickled to the workers."""

    root: Path
    catalog: Catalog
    view: View
    as_of_us: int
    store: str


class _FillShard(beam.DoFn):
    """Fold one log partition and commit it as one shard."""

    def __init__(self, job: FillJob, results: Path) -> None:
        self._job = job
        self._results = results

    def process(self, shard: int) -> Iterator[None]:
        done = fill_shard(self._job, shard)
        (self._results / f"{shard}.json").write_bytes(orjson.dumps(done.__dict__))
        return iter(())


def fill_shard(job: FillJob, shard: int) -> Materialized:
    """Fold one partition of the log as known at the job's time and commit its states, profiles and position at once."""
    catalog, view = job.catalog, job.view
    workspace = Workspace(job.root)
    known_by_us, lag_s = job.as_of_us, view.lag_s
    base = read_snapshot(workspace, catalog, view, shard)
    require_after(base, known_by_us - lag_s * US_PER_S, f"shard {shard} of {view.key}")
    found = log_position(workspace, catalog, view.entity, shard, known_by_us=known_by_us, lag_s=lag_s)
    last, ingest_us = max(found, (base.log_offset, base.ingest_us))
    log = read_events(workspace, catalog, view.entity, known_by_us=known_by_us, lag_s=lag_s, partition=shard)
    # What came between the two reads is left to whoever goes on from the position.
    events = base.after(log.filter(pa.array(log["log_offset"].to_numpy() <= last)))
    names, encoded = base.fold_after(events, catalog, view, shard)
    ids = names.to_pylist()
    states = dict(zip(ids, encoded.to_pylist(), strict=True))
    profiles = _profiles_of(workspace, catalog, view, job.as_of_us, shard)
    erased = dict.fromkeys(find_markers(workspace, catalog, view.entity, partition=shard).entity_ids, b"")
    states, profiles = erased | states, erased | profiles
    with open_store(job.store, ViewVersion.of(catalog, view)) as store:
        commit_all(store, shard, states, profiles, Watermark(last, ingest_us, job.as_of_us, profiles_as_of_us=job.as_of_us))
    return Materialized(shard, events.num_rows, len(ids), sum(map(len, states.values())))


def commit_all(
    store: OnlineStore, shard: int, states: dict[str, bytes], profiles: dict[str, bytes], reached: Watermark
) -> None:
    """Take a shard over and bring it to ``reached`` by commits of bounded size.

    While that goes on the shard stays at its old position and says where it is being filled to: a stream that started
    from there would count some events twice, so the store lets nobody go on but this fill, or one that is repeated.

    Raises:
        CommitConflict: another writer took the shard over meanwhile.
        StoreError: the shard stands, or is being filled to, a later position.
    """
    start = store.claim(shard)
    final = replace(reached, epoch=start.epoch)
    which = f"shard {shard} of {store.view_key}"
    check_position(replace(start, filling_to=NO_OFFSET), final, start.log_offset, which)
    if final.log_offset < start.filling_to:
        raise StoreError(
            explain("shard is half filled", which=which, expected=f"a fill to log offset {start.filling_to} or beyond",
                    got=f"log offset {final.log_offset}", next_step="materialize as of the same time again, or later")
        )  # fmt: skip
    ids = list(dict.fromkeys([*states, *profiles]))
    pieces = [set(ids[first : first + COMMIT_ENTITIES]) for first in range(0, len(ids), COMMIT_ENTITIES)] or [set()]
    if start.filling_to != NO_OFFSET:
        pieces.insert(0, set())
    for number, piece in enumerate(pieces, start=1):
        mark = final if number == len(pieces) else replace(start, filling_to=final.log_offset)
        store.commit(shard, _only(states, piece), _only(profiles, piece), mark, expected_previous=start.log_offset)


def _only(values: dict[str, bytes], names: set[str]) -> dict[str, bytes]:
    return {name: values[name] for name in names if name in values}


def _profiles_of(workspace: Workspace, catalog: Catalog, view: View, as_of_us: int, shard: int) -> dict[str, bytes]:
    """Profile values by entity as known at a time, all the view's profiles in one JSON object."""
    values: dict[str, dict[str, object]] = {}
    for profile in catalog.profiles_of(view):
        table = profiles_current(workspace, catalog, profile.name, as_of_us=as_of_us)
        mine = partition_of(table["entity_id"], catalog.log_partitions) == shard
        for row in table.filter(pa.array(mine)).to_pylist():
            entity_id = row.pop("entity_id")
            values.setdefault(entity_id, {}).update({name: value for name, value in row.items() if value is not None})
    return {entity_id: orjson.dumps(row) for entity_id, row in values.items()}
