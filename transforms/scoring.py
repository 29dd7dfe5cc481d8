"""All users by many campaigns: states from the online store through the exported SavedModel, one matrix product a page.

The job reads no event and computes no feature. A user's vector is made once, by the graph that a server runs; the campaigns'
are made once for all. Pairs that a judge calls below their threshold leave nothing behind but their share of the mean.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import apache_beam as beam
import numpy as np
import orjson
import pyarrow as pa
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions
from numpy.typing import NDArray

from features.declarations import Catalog, View
from features.errors import explain
from features.online.addresses import ViewVersion, open_store
from features.online.store import Lookup, OnlineStore
from features.profile_values import profile_column, read_profiles
from transforms.errors import GraphError
from transforms.plan import plan_graph
from transforms.two_towers import CAMPAIGNS, MATCH, USERS, VECTOR

DEFAULT_RUNNER: Final = "FnApiRunner"
PAGE: Final = 8_192
"""Users scored together: scores of 100 campaigns take 3 MB."""
BELOW: Final = 1
"""A judge's code for a pair that is not kept."""

Floats = NDArray[np.float32]
Codes = NDArray[np.int8]
Judge = Callable[[Sequence[str], Floats, Floats], Codes]
"""Takes n ids, their finished features (n, F) and their scores (n, C); gives (n, C) codes, one of which is ``BELOW``."""

NAMES: Final = pa.dictionary(pa.int32(), pa.string())
KEPT: Final = pa.schema([("campaign", pa.int16()), ("entity_id", NAMES), ("score", pa.float32()), ("code", pa.int8())])
"""A kept pair: number of the campaign, user, score, and the judge's code."""


@dataclass(frozen=True)
class ScoringJob:
    """What to score; pickled to the workers.

    Attributes:
        saved_model: of a model with two towers.
        catalog, view: whose states it reads.
        store: address of the view's online store, opened for reading.
        campaigns: (C,) values of every request field.
        now_us: when, UTC microseconds.
        judge_of: makes the judge of a shard's users.
    """

    saved_model: Path
    catalog: Catalog
    view: View
    store: str
    campaigns: Mapping[str, Sequence[str | int]]
    now_us: int
    judge_of: Callable[[int], Judge]


@dataclass(frozen=True)
class Scored:
    """Some users: the pairs that are kept, how many users there were, and (C,) sums of all their scores."""

    kept: pa.Table
    users: int
    sums: NDArray[np.float64]


class TowerScorer:
    """A SavedModel of two towers with the vectors of its campaigns; safe to call from several threads."""

    def __init__(self, job: ScoringJob) -> None:
        """Load the model, once in a process, and make the campaigns' vectors.

        Raises:
            GraphError: it has no towers.
        """
        self._signatures = load_signatures(job.saved_model)
        if MATCH not in self._signatures:
            raise GraphError(
                explain("model cannot score audiences", which=str(job.saved_model), expected=f"a signature {MATCH}",
                        got=", ".join(self._signatures), next_step="name a model of two towers: NetworkSpec(vector=...)")
            )  # fmt: skip
        plan = plan_graph(job.catalog, job.view)
        requested = {entry.name for entry in job.view.request}
        self.finished_names = tuple(plan.finished_names)
        self._fields = tuple(entry for entry in plan.fields if entry.name not in requested)
        columns = {entry.name: tf.constant(list(job.campaigns[entry.name]), _DTYPES[entry.dtype]) for entry in job.view.request}
        self._campaigns = self._signatures[CAMPAIGNS](**columns)[VECTOR]
        self._now_us = job.now_us

    def score(self, states: Sequence[bytes], profiles: Sequence[bytes | None]) -> tuple[Floats, Floats]:
        """Scores (n, C) and finished features (n, F) of n users, given their states and profile values as a store has them."""
        rows = read_profiles(profiles) if self._fields else []
        columns = {entry.name: tf.constant(profile_column(rows, entry), _DTYPES[entry.dtype]) for entry in self._fields}
        state, now = tf.constant(states, tf.string), tf.fill([len(states)], tf.constant(self._now_us, tf.int64))
        users = self._signatures[USERS](state=state, now=now, **columns)
        scores = self._signatures[MATCH](**{USERS: users[VECTOR], CAMPAIGNS: self._campaigns})["score"]
        return scores.numpy(), users["finished"].numpy()


def score_users(scorer: TowerScorer, judge: Judge, entity_ids: Sequence[str], found: Lookup) -> Scored:
    """Score some users as they were found in the store."""
    scores, finished = scorer.score(found.states, found.profiles)
    codes = judge(entity_ids, finished, scores)
    user, campaign = np.nonzero(codes != BELOW)
    names = pa.DictionaryArray.from_arrays(pa.array(user.astype(np.int32)), pa.array(entity_ids, pa.string()))
    columns = [pa.array(campaign.astype(np.int16)), names, pa.array(scores[user, campaign]), pa.array(codes[user, campaign])]
    return Scored(pa.table(columns, schema=KEPT), len(entity_ids), scores.sum(axis=0, dtype=np.float64))


def score_all(job: ScoringJob, folder: Path, *, runner: str = DEFAULT_RUNNER, workers: int = 2) -> list[Path]:
    """Score all users of the store; a file a shard, which ``read_scored`` reads.

    Args:
        folder: empty; gets the files.
        runner: name of the Beam runner.
        workers: threads among which a local runner divides the shards.
    """
    options = PipelineOptions(
        flags=[], runner=runner, save_main_session=False, direct_num_workers=workers, direct_running_mode="multi_threading"
    )
    with beam.Pipeline(options=options) as pipeline:
        shards = pipeline | "Shards" >> beam.Create(range(job.catalog.log_partitions)) | "Spread" >> beam.Reshuffle()
        _ = shards | "Score" >> beam.ParDo(_ScoreShard(job, folder))
    return [folder / f"{shard:05d}.arrow" for shard in range(job.catalog.log_partitions)]


def read_scored(path: Path) -> Scored:
    """What was kept of one shard."""
    with pa.memory_map(str(path)) as source:
        kept = pa.ipc.open_stream(source).read_all()
    facts = orjson.loads(path.with_suffix(".json").read_bytes())
    return Scored(kept, facts["users"], np.array(facts["sums"]))


class _ScoreShard(beam.DoFn):
    def __init__(self, job: ScoringJob, folder: Path) -> None:
        self._job, self._folder = job, folder

    def process(self, shard: int) -> Iterator[None]:
        job, path = self._job, self._folder / f"{shard:05d}.arrow"
        scorer, judge = TowerScorer(job), job.judge_of(shard)
        store = shared_store(job.store, ViewVersion.of(job.catalog, job.view))
        users, sums = 0, np.zeros(len(next(iter(job.campaigns.values()))))
        partial = path.with_name(f"{path.name}.partial")
        with pa.OSFile(str(partial), "wb") as file, pa.ipc.new_stream(file, KEPT) as writer:
            for page in store.entities(shard, PAGE):
                if page:
                    scored = score_users(scorer, judge, page, store.get_many(page))
                    users, sums = users + scored.users, sums + scored.sums
                    writer.write_table(scored.kept)
        path.with_suffix(".json").write_bytes(orjson.dumps({"users": users, "sums": sums.tolist()}))
        partial.replace(path)
        return iter(())


_STORES: dict[tuple[str, str], OnlineStore] = {}
_OPENING = threading.Lock()


def shared_store(address: str, version: ViewVersion) -> OnlineStore:
    """A store open for reading, one for all of this process: an LMDB environment may be open once in a process."""
    with _OPENING:
        key = (address, version.view_hash)
        if key not in _STORES:
            _STORES[key] = open_store(address, version, readonly=True)
        return _STORES[key]


def close_stores() -> None:
    """Close what ``shared_store`` has opened in this process."""
    with _OPENING:
        while _STORES:
            _STORES.popitem()[1].close()


_MODELS: dict[Path, Any] = {}
"""Models loaded in this process: a signature does not keep the model alive that its variables belong to."""


def load_signatures(saved_model: Path) -> Mapping[str, Any]:
    """A model's signatures by name; it is loaded once in a process."""
    with _OPENING:
        if saved_model not in _MODELS:
            _MODELS[saved_model] = tf.saved_model.load(str(saved_model))
        signatures: Mapping[str, Any] = _MODELS[saved_model].signatures
        return signatures


_DTYPES: Final = {"string": tf.string, "int64": tf.int64}
