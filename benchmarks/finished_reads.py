"""100 finished features of 100 entities: states and the window graph beside stock Feast with ready values in the same Redis."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import redis
import tensorflow as tf
from numpy.typing import NDArray

from benchmarks.graph import NOW_S, WINDOWS_S, make_states
from benchmarks.state_reads import Reads, measure_together
from features import layout
from features.declarations import Catalog, EventType, Signal, View
from features.online.addresses import ViewVersion, open_store
from features.online.records import group_by_shard
from features.online.store import NO_OFFSET, OnlineStore, Watermark
from transforms.graph import finish, input_specs
from transforms.plan import GraphPlan, plan_graph

SIGNALS: Final = 20
TILES: Final = (20, 60)
USERS: Final = [f"user-{number:09d}" for number in range(2_000)]
BATCHES: Final = (1, 100)
NOW_US: Final = NOW_S * layout.US_PER_S


def declare() -> tuple[GraphPlan, ViewVersion]:
    """20 counters over five windows each: 100 finished features."""
    signals = tuple(Signal(number + 1, f"s{number}", "user", ("hit",), ("count",), WINDOWS_S) for number in range(SIGNALS))
    view = View("bench", 1, "user", tuple(signal.name for signal in signals))
    catalog = Catalog("bench", (), (EventType("hit", "user"),), signals, views=(view,))
    return plan_graph(catalog, view), ViewVersion.of(catalog, view)


def save_window_graph(plan: GraphPlan, folder: Path) -> Callable[..., dict[str, tf.Tensor]]:
    """The plan's window graph as a SavedModel, loaded again: what a serving process has."""
    specs = input_specs(plan)
    module = tf.Module()
    module.finish = tf.function(
        lambda state, now: {"finished": finish(plan, {"state": state, "now": now})["finished"]},
        input_signature=[specs["state"], specs["now"]],
    )
    tf.saved_model.save(module, str(folder), signatures={"finish": module.finish})
    loaded = tf.saved_model.load(str(folder))
    signature: Callable[..., dict[str, tf.Tensor]] = loaded.signatures["finish"]
    return signature


class Ours:
    """A batch lookup of states, finished by the window graph."""

    def __init__(self, plan: GraphPlan, store: OnlineStore, folder: Path) -> None:
        self._names = list(plan.finished_names)
        self._store = store
        self._finish = save_window_graph(plan, folder)

    def read(self, names: list[str]) -> NDArray[np.float32]:
        """(n, F) finished values: what a model takes."""
        found = self._store.get_many(names, profiles=False)
        now = tf.constant(np.full(len(names), NOW_US))
        finished: NDArray[np.float32] = self._finish(state=tf.constant(found.states), now=now)["finished"].numpy()
        return finished

    def read_by_name(self, names: list[str]) -> dict[str, list[float]]:
        """The same as lists by feature name: what Feast gives."""
        return dict(zip(self._names, self.read(names).T.tolist(), strict=True))


class Feast:
    """Stock Feast on the same Redis, database 1: one feature view with the finished values, written by Feast itself."""

    def __init__(self, url: str, names: list[str], values: pd.DataFrame, folder: Path) -> None:
        from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
        from feast.types import Float32
        from feast.value_type import ValueType

        host = url.removeprefix("redis://").rpartition("/")[0]
        folder.mkdir()
        config = RepoConfig(
            project="bench", registry=str(folder / "registry.db"), provider="local", entity_key_serialization_version=3,
            online_store={"type": "redis", "connection_string": f"{host},db=1"}, offline_store={"type": "file"},
        )  # fmt: skip
        values.head(1).to_parquet(folder / "source.parquet")
        source = FileSource(path=str(folder / "source.parquet"), timestamp_field="event_timestamp")
        user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
        schema = [Field(name=name, dtype=Float32) for name in names]
        view = FeatureView(name="bench", entities=[user], ttl=timedelta(days=3_650), schema=schema, source=source)
        self._store = FeatureStore(config=config)
        self._store.apply([user, view])
        self._store.write_to_online_store("bench", values)
        self._features = [f"bench:{name}" for name in names]

    def read(self, names: list[str]) -> dict[str, list[Any]]:
        rows = [{"user_id": name} for name in names]
        answer: dict[str, list[Any]] = self._store.get_online_features(self._features, entity_rows=rows).to_dict()
        return answer


def run(url: str, folder: Path) -> Iterator[tuple[int, int, dict[str, Reads]]]:
    """Tiles a user, batch size and timings of ``ours`` (an array), ``by name`` (lists, as Feast gives) and ``Feast``.

    Raises:
        AssertionError: a value differs.
    """
    # One core a prediction, as the server does it: a pool of threads for 100 rows costs more than it brings.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    plan, version = declare()
    with redis.Redis.from_url(url) as server:
        for tiles in TILES:
            server.flushall()
            place = folder / f"finished-{tiles}"
            place.mkdir()
            with open_store(url, version, create=True) as store:
                states = dict(zip(USERS, make_states(len(USERS), tiles, seed=1).tolist(), strict=True))
                for shard, keys in group_by_shard(USERS, version.partitions).items():
                    own = {key.decode(): states[key.decode()] for key in keys}
                    store.commit(shard, own, {}, Watermark(1, 1, 1, 0), expected_previous=NO_OFFSET)
                for batch, timings in _compare(Ours(plan, store, place / "graph"), url, list(plan.finished_names), place):
                    yield tiles, batch, timings


def _compare(ours: Ours, url: str, features: list[str], folder: Path) -> Iterator[tuple[int, dict[str, Reads]]]:
    """Let Feast hold what ours gives for every user, then read some by both."""
    values = pd.DataFrame(ours.read_by_name(USERS)).astype(np.float32)
    values["user_id"], values["event_timestamp"] = USERS, datetime.fromtimestamp(NOW_S, UTC)
    rng = np.random.default_rng(3)
    with redis.Redis.from_url(url) as server, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast's own, about its dependencies
        feast = Feast(url, features, values, folder / "feast")
        for batch in BATCHES:
            chosen = [USERS[number] for number in rng.integers(0, len(USERS), batch)]
            mine, theirs = ours.read_by_name(chosen), feast.read(chosen)
            assert theirs.pop("user_id") == chosen
            assert mine == theirs, "a value differs between Feast and the window graph"
            calls: dict[str, Callable[[], object]] = {
                "ours": lambda ids=chosen: ours.read(ids),
                "by name": lambda ids=chosen: ours.read_by_name(ids),
                "Feast": lambda ids=chosen: feast.read(ids),
            }
            yield batch, measure_together(calls, server)
