"""A small model that is really exported and served: its score is a smooth function of a user's records, plan and clock.

records     = state bytes / 16, from 1 to 50; missing (NaN, then taken as 25) where there is no state
hours       = utc_offset_minutes / 60, from -8 to 9
level       = -1, 0 or 1 for the plans free, monthly and yearly; 0 for others
finished    = [records, letters of platform, hours, level]
score       = 1 / (1 + exp(-((records - 25) / 10 + hours / 10 + level))), from 0.01 to 0.99
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import tensorflow as tf

from features import layout
from features.catalogs import load_catalog
from features.online.lmdb import LmdbStore
from features.online.store import Watermark
from features.partitions import partition_of
from features.workspace import Workspace
from models.versions import ModelVersion, NewVersion, register

CATALOG = load_catalog("subscription")
VIEW = CATALOG.view("subscriber")
MODEL = "churn"
AS_OF_US = 1_740_830_340_000_000
PLANS = ("free", "monthly", "yearly")
PLAN_OF_USER = (0,) * 4 + (1,) * 13 + (2,) * 3
"""Of twenty users, four pay nothing, thirteen by the month, three by the year."""
OFFSETS_MINUTES = (-480, -300, 0, 60, 120, 330, 540)
INPUTS = [
    tf.TensorSpec([None], tf.string, name="state"),
    tf.TensorSpec([None], tf.int64, name="now"),
    tf.TensorSpec([None], tf.string, name="plan"),
    tf.TensorSpec([None], tf.string, name="country"),
    tf.TensorSpec([None], tf.int64, name="utc_offset_minutes"),
    tf.TensorSpec([None], tf.string, name="platform"),
]


class SmallModel(tf.Module):
    """The graph that this module's docstring describes."""

    @tf.function(input_signature=INPUTS)
    def features(self, state: Any, now: Any, plan: Any, country: Any, utc_offset_minutes: Any, platform: Any) -> dict[str, Any]:
        count = tf.strings.length(state) // layout.RECORD_BYTES
        records = tf.where(count > 0, tf.cast(count, tf.float32), np.nan)
        letters = tf.cast(tf.strings.length(platform) + 0 * tf.strings.length(country), tf.float32)
        hours = tf.cast(utc_offset_minutes, tf.float32) / 60
        level = tf.cast(tf.equal(plan, PLANS[2]), tf.float32) - tf.cast(tf.equal(plan, PLANS[0]), tf.float32)
        finished = tf.stack([records, letters, hours, level], axis=1)
        known = tf.where(count > 0, records, 25.0)
        score = tf.sigmoid((known - 25) / 10 + hours / 10 + level)
        integers = tf.stack([tf.cast(count, tf.int64), now, utc_offset_minutes], axis=1)
        transformed = tf.stack([known, letters, hours, level], axis=1) / 8
        within = tf.stack([score / 4, score], axis=1)
        return {"integers": integers, "finished": finished, "transformed": transformed, "score": score, "within": within}

    @tf.function(input_signature=INPUTS)
    def score(self, state: Any, now: Any, plan: Any, country: Any, utc_offset_minutes: Any, platform: Any) -> dict[str, Any]:
        outputs = self.features(state, now, plan, country, utc_offset_minutes, platform)
        return {"score": outputs["score"], "within": outputs["within"]}

    @tf.function(input_signature=INPUTS)
    def explain(self, state: Any, now: Any, plan: Any, country: Any, utc_offset_minutes: Any, platform: Any) -> dict[str, Any]:
        score = self.features(state, now, plan, country, utc_offset_minutes, platform)["score"]
        return {"contributions": tf.stack([score - 0.5, 0 * score, 0 * score], axis=1), "base": 0 * score + 0.5}


def make_workspace(root: Path, *, users: int = 2_000, versions: int = 2, as_of_us: int = AS_OF_US) -> Workspace:
    """A workspace with a filled store and so many equal, blessed versions; the first is champion."""
    workspace = Workspace(root)
    workspace.online(VIEW.key).parent.mkdir(parents=True)
    fill_store(workspace.online(VIEW.key), users, as_of_us)
    artifacts = root / "artifacts"
    write_model(artifacts)
    for _ in range(versions):
        register_version(workspace, artifacts)
    return workspace


def register_version(workspace: Workspace, artifacts: Path) -> ModelVersion:
    """The next blessed version with these artifacts."""
    facts = (VIEW.key, CATALOG.view_hash(VIEW), "small", {"network_auc": 0.8})
    return register(workspace, NewVersion(MODEL, AS_OF_US, "run-1", True, "beats every baseline", *facts), artifacts)


def write_model(folder: Path) -> None:
    """SavedModel and description."""
    module = SmallModel()
    signatures = {"serving_default": module.score, "features": module.features, "explain": module.explain}
    folder.mkdir(parents=True)
    tf.saved_model.save(module, str(folder / "saved_model"), signatures=signatures)

    def describe(fields: Any) -> list[dict[str, object]]:
        return [{"name": field.name, "dtype": field.dtype, "default": field.default} for field in fields]

    description = {
        "catalog": CATALOG.name,
        "view": {"name": VIEW.name, "version": VIEW.version, "key": VIEW.key},
        "view_hash": CATALOG.view_hash(VIEW),
        "graph_hash": "small",
        "integer_names": ["records", "now", "offset"],
        "finished_names": ["records", "letters", "hours", "level"],
        "transformed_names": ["records/8", "letters/8", "hours/8", "level/8"],
        "finished_groups": ["sessions"] * 4,
        "groups": ["sessions", "offers_shown", "platform"],
        "delay_buckets_s": [7 * layout.DAY_S, 30 * layout.DAY_S],
        "profile_fields": describe(CATALOG.profile_fields_of(VIEW)),
        "request_fields": describe(VIEW.request),
    }
    (folder / "model.json").write_bytes(orjson.dumps(description))


def fill_store(path: Path, users: int, as_of_us: int = AS_OF_US) -> None:
    """User i has i % 50 + 1 records, the plan ``PLAN_OF_USER`` [i % 20] and the clock i % 7."""
    names = [f"u{number:06d}" for number in range(users)]
    shards = partition_of(names, CATALOG.log_partitions)
    facts: dict[str, Any] = {"view_key": VIEW.key, "view_hash": CATALOG.view_hash(VIEW)}
    with LmdbStore.open(path, **facts, partitions=CATALOG.log_partitions, create=True) as store:
        for shard in range(CATALOG.log_partitions):
            states = {
                name: state_of(shard, number % 50 + 1)
                for number, name in enumerate(names)
                if shards[number] == shard
            }  # fmt: skip
            profiles = {name: profile_of(int(name[1:])) for name in states}
            store.commit(shard, states, profiles, Watermark(500, as_of_us - 1_000_000, as_of_us, 0), expected_previous=-1)


def profile_of(number: int) -> bytes:
    """As a store keeps it."""
    plan, offset_minutes = PLANS[PLAN_OF_USER[number % 20]], OFFSETS_MINUTES[number % 7]
    return orjson.dumps({"plan": plan, "country": "de", "utc_offset_minutes": offset_minutes})


def state_of(shard: int, records: int) -> bytes:
    """A header and ``records`` - 1 tiles, zero but sorted: the model only counts them."""
    keys = [layout.pack_key(1, "count", layout.DAY_TILES, 0, day) for day in range(1, records)]
    tiles = b"".join(key.to_bytes(8, "little") + bytes(8) for key in keys)
    return layout.header_key(shard).to_bytes(8, "little") + bytes(8) + tiles
