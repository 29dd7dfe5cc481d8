"""What the serving benchmark serves: simulated users in a Redis of our own, and a registered model of the usual size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.catalogs import load_catalog
from features.declarations import Catalog, View
from features.events import read_events
from features.importing import import_files, prepare_import
from features.layout import DAY_S, US_PER_S
from features.point_in_time import states_as_known
from features.profiles import profiles_as_of
from features.rows import training_schema
from features.workspace import Workspace
from models.versions import NewVersion, register
from simulation import simulate
from transforms.export import export_model
from transforms.fit import fit_graph
from transforms.materialize import materialize

MODEL: Final = "churn"
USERS: Final = 2_000
DAYS: Final = 200
SEED: Final = 7
LAYERS: Final = (128, 64)
PLATFORMS: Final = ("ios", "android", "web")


@dataclass(frozen=True)
class Site:
    """A workspace with one registered model whose store is filled.

    Attributes:
        as_of_us: the time as of which the store is filled, UTC microseconds; requests are scored then.
        entity_ids: every user with a state.
        tiles: mean number of tiles in a user's state.
    """

    workspace: Workspace
    catalog: Catalog
    view: View
    store: str
    as_of_us: int
    entity_ids: list[str]
    tiles: float

    @property
    def model_path(self) -> Path:
        """Folder of the registered version."""
        return self.workspace.model(MODEL, 1)


def build_site(folder: Path, store: str) -> Site:
    """Simulate, import, fit, register and fill; the network's weights are random, its size is what counts here.

    Args:
        folder: an empty one.
        store: address of an empty online store.
    """
    catalog = load_catalog("subscription")
    view = catalog.view("subscriber")
    workspace = Workspace(folder / "workspace")
    played = simulate(users=USERS, days=DAYS, seed=SEED, out_dir=folder / "simulated")
    for path, mapping in ((played.events_path, "subscription"), (played.accounts_path, "subscription_accounts")):
        import_files(prepare_import(workspace, mapping, catalog=None, now_us=0), [path])
    log = read_events(workspace, catalog, view.entity)
    end_us = int(np.quantile(log["ingest_time"].cast(pa.int64()).to_numpy(), 0.95))
    entity_ids = sorted(log["entity_id"].unique().to_pylist())
    rows = draw_rows(workspace, catalog, view, log, entity_ids, end_us)
    pq.write_table(rows, folder / "rows.parquet")
    fit_graph(folder / "rows.parquet", catalog, view, folder / "graph")
    save_network(folder)
    export_model(folder / "graph", folder / "network.keras", folder / "model")
    version = NewVersion(MODEL, end_us, "benchmark", True, "random weights", view.key, catalog.view_hash(view), "any", {})
    register(workspace, version, folder / "model")
    as_of_us = end_us + view.lag_s * US_PER_S
    filled = materialize(workspace, catalog, view, as_of_us=as_of_us, store=store)
    tiles = sum(shard.state_bytes for shard in filled) / 16 / max(sum(shard.entities for shard in filled), 1) - 1
    return Site(workspace, catalog, view, store, as_of_us, entity_ids, tiles)


def draw_rows(
    workspace: Workspace, catalog: Catalog, view: View, log: pa.Table, entity_ids: list[str], end_us: int
) -> pa.Table:
    """One training row a user, as known at a random time of the last 60 days."""
    rng = np.random.default_rng(SEED)
    ids, count = pa.array(entity_ids, pa.string()), len(entity_ids)
    now_us = end_us - rng.integers(0, 60 * DAY_S * US_PER_S, count)
    profile = profiles_as_of(workspace, catalog, "account", ids, now_us)
    times = pa.array(now_us, pa.timestamp("us", tz="UTC"))
    columns: dict[str, Any] = {name: profile[name] for name in profile.column_names} | {
        "entity_id": ids,
        "now": times,
        "state": states_as_known(log, catalog, view, ids, now_us),
        "platform": pa.array(rng.choice(PLATFORMS, count)),
        "label": pa.array(rng.integers(0, 2, count), pa.int8()),
        "matured": pa.array([True] * count),
        "observed_until": times,
        "split": pa.array(["train"] * count),
    }
    schema = training_schema(catalog, view)
    return pa.table([columns.get(field.name, pa.nulls(count, field.type)) for field in schema], schema=schema)


def save_network(folder: Path) -> None:
    """A dense network with random weights on the fitted graph's columns."""
    width = pq.read_schema(folder / "graph" / "features.parquet").field("transformed").type.list_size
    keras.utils.set_random_seed(SEED)
    layers = [keras.Input((width,)), *(keras.layers.Dense(units, "relu") for units in LAYERS)]
    keras.Sequential([*layers, keras.layers.Dense(1, "sigmoid")]).save(folder / "network.keras")
