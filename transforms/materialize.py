"""Fill the online store from the log: a Beam job with one element a log partition, folded by the same tiles as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import apache_beam as beam
import numpy as np
import orjson
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from features.codec import encode_states
from features.declarations import Catalog, View
from features.events import DEDUPLICATION_HORIZON_S, deduplicate, read_events
from features.online.lmdb import LmdbStore
from features.partitions import partition_of
from features.profiles import profiles_current
from features.tiles import fold, no_tiles, plan_fold
from features.workspace import Workspace

DEFAULT_RUNNER: Final = "FnApiRunner"


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
    store: Path | None = None,
) -> tuple[Materialized, ...]:
    """Fill a view's online store with the states and profile values known at a time.

    Args:
        as_of_us: UTC microseconds; events with ingest_time + the view's lag <= as_of_us are folded.
        runner: name of the Beam runner.
        store: folder to fill; the workspace's own for this view where None. An existing store moves forward only.

    Returns:
        One entry a shard, in shard order.

    Raises:
        StoreError: the store belongs to another view, or already stands at a later offset.
    """
    path = store or workspace.online(view.key)
    LmdbStore.open(
        path, view_key=view.key, view_hash=catalog.view_hash(view), partitions=catalog.log_partitions, create=True
    ).close()
    job = _Job(workspace.root, catalog, view, as_of_us, path)
    results = path.parent / f"{path.name}.results"
    results.mkdir(parents=True, exist_ok=True)
    options = PipelineOptions(flags=[], runner=runner, save_main_session=False)
    with beam.Pipeline(options=options) as pipeline:
        shards = pipeline | "Shards" >> beam.Create(range(catalog.log_partitions))
        _ = shards | "Fold" >> beam.ParDo(_FillShard(job, results))
    done = tuple(
        Materialized(**orjson.loads((results / f"{shard}.json").read_bytes())) for shard in range(catalog.log_partitions)
    )
    for shard in range(catalog.log_partitions):
        (results / f"{shard}.json").unlink()
    results.rmdir()
    return done


@dataclass(frozen=True)
class _Job:
    root: Path
    catalog: Catalog
    view: View
    as_of_us: int
    store: Path


class _FillShard(beam.DoFn):
    """Fold one log partition and commit it as one shard."""

    def __init__(self, job: _Job, results: Path) -> None:
        self._job = job
        self._results = results

    def process(self, shard: int) -> Iterator[None]:
        done = fill_shard(self._job, shard)
        (self._results / f"{shard}.json").write_bytes(orjson.dumps(done.__dict__))
        return iter(())


def fill_shard(job: _Job, shard: int) -> Materialized:
    """Fold one partition of the log as known at the job's time and commit its states, profiles and position at once."""
    catalog, view = job.catalog, job.view
    workspace = Workspace(job.root)
    log = read_events(workspace, catalog, view.entity, known_by_us=job.as_of_us, lag_s=view.lag_s, partition=shard)
    events = deduplicate(log, horizon_s=DEDUPLICATION_HORIZON_S)
    encoded = events["entity_id"].combine_chunks().dictionary_encode()
    ids, owner = encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    offsets = np.full(len(ids), -1, dtype=np.int64)
    np.maximum.at(offsets, owner, events["log_offset"].to_numpy())
    tiles = fold(no_tiles(), events, owner, plan_fold(catalog.signals_of(view)))
    states = dict(zip(ids, encode_states(tiles, np.full(len(ids), shard), offsets).to_pylist(), strict=True))
    profiles = _profiles_of(workspace, catalog, view, job.as_of_us, shard)
    with LmdbStore.open(
        job.store, view_key=view.key, view_hash=catalog.view_hash(view), partitions=catalog.log_partitions
    ) as store:
        claimed = store.claim(shard)
        last = int(log["log_offset"].to_numpy().max(initial=-1))
        ingest_us = int(log["ingest_time"].cast(pa.int64()).to_numpy().max(initial=0))
        watermark = replace(claimed, log_offset=last, ingest_time_us=ingest_us, as_of_us=job.as_of_us)
        store.commit(shard, states, profiles, watermark, expected_previous=claimed.log_offset)
    return Materialized(shard, events.num_rows, len(ids), sum(map(len, states.values())))


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
