"""A product in small whose answers can be audited: log, stream, profiles, a model with random weights, served rows.

Everything is the code that serves: events go through the live log and ``ShardFold`` into LMDB, rows are looked up, scored by
the exported SavedModel and logged by ``PredictionLog``. Time is the events' own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from parity.adversarial import DAY_US, HOUR_US, SPAN_US, START_US, draw_events, to_table

from components.served_rows import Selection
from components.skew_audit import SkewAudit, audit_skew
from features.catalogs import load_catalog
from features.declarations import Catalog, View
from features.event_log.compaction import BatchHistory, compact, open_live_log
from features.event_log.files import FileLog
from features.event_log.port import STAMPED
from features.importing import import_files, prepare_import
from features.layout import US_PER_S
from features.online.addresses import ViewVersion, open_store
from features.online.store import OnlineStore
from features.point_in_time import states_as_known
from features.profiles import append_profiles
from features.rows import event_schema, profile_schema, training_schema
from features.stream_fold import ShardFold
from features.workspace import Workspace
from inference.artifact import read_artifact
from inference.lookup import look_up
from inference.prediction_log import PredictionLog, Server, finish_by
from inference.predictor import Predictor
from inference.replies import Answer
from inference.requests import ScoreRequest
from models.versions import NewVersion, register
from transforms.export import export_model
from transforms.fit import fit_graph
from transforms.materialize import materialize

MODEL = "churn"
CATALOG = load_catalog("subscription")
VIEW = CATALOG.view("subscriber")
ENTITY = VIEW.entity
PLATFORMS = ("ios", "android", "web", "an unseen one")
PARTS = 4
MEASURED_US = 1_790_000_000_000_000
FILL_LAG_US = (VIEW.lag_s + 1) * US_PER_S


def make_model(folder: Path, catalog: Catalog = CATALOG, view: View = VIEW, *, users: int = 30) -> Path:
    """A SavedModel of the view with random weights, its graph fitted on awkward events."""
    table = to_table(draw_events(users, 3, partitions=catalog.log_partitions), event_schema(catalog.attributes_of(ENTITY)))
    rng = np.random.default_rng(5)
    count = 600
    ids = pa.array([f"user-{number}" for number in rng.integers(users, size=count)], pa.string())
    now_us = START_US + rng.integers(SPAN_US, size=count)
    known = {
        "entity_id": ids,
        "now": pa.array(now_us, pa.timestamp("us", tz="UTC")),
        "state": states_as_known(table, catalog, view, ids, now_us),
        "plan": pa.array([("free", "pro")[number % 2] for number in range(count)]),
        "country": pa.array([("de", "us", "fr")[number % 3] for number in range(count)]),
        "utc_offset_minutes": pa.array([number % 5 * 60 for number in range(count)]),
        "platform": pa.array([PLATFORMS[number % 4] for number in range(count)]),
        "label": pa.array([number % 2 for number in range(count)], pa.int8()),
        "matured": pa.array([True] * count),
        "observed_until": pa.array(now_us, pa.timestamp("us", tz="UTC")),
        "split": pa.array([("train", "validation", "test")[number % 3] for number in range(count)]),
    }
    schema = training_schema(catalog, view)
    columns = [known.get(entry.name, pa.nulls(count, entry.type)) for entry in schema]
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns, schema=schema), folder / "rows.parquet")
    fit_graph(folder / "rows.parquet", catalog, view, folder / "graph")
    width = pq.read_schema(folder / "graph" / "features.parquet").field("transformed").type.list_size
    keras.utils.set_random_seed(11)
    layers = [keras.Input((width,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(1, "sigmoid")]
    keras.Sequential(layers).save(folder / "network.keras")
    export_model(folder / "graph", folder / "network.keras", folder / "model")
    return folder / "model"


def register_model(
    workspace: Workspace, artifacts: Path, model: str = MODEL, view: View = VIEW, catalog: Catalog = CATALOG
) -> int:
    """Register the artifacts as the next version; its number."""
    new = NewVersion(model, START_US, "audit-run", True, "random weights", view.key, catalog.view_hash(view), "any", {})
    return register(workspace, new, artifacts).version


@dataclass
class Site:
    """One product: where its events, stores and served rows are."""

    workspace: Workspace
    users: int = 15
    seed: int = 1
    whole_rate: float = 1.0
    rows_a_part: int = 100
    rng: random.Random = field(default_factory=lambda: random.Random(1))

    @contextmanager
    def open_store(self) -> Iterator[OnlineStore]:
        address = str(self.workspace.online(VIEW.key))
        with open_store(address, ViewVersion.of(CATALOG, VIEW), create=True) as store:
            yield store

    def names(self) -> list[str]:
        return [f"user-{number}" for number in range(self.users)]


def append_profile_values(site: Site, at_us: int, source: str) -> None:
    """Other values for two users in three, known from a time on."""
    moment = pa.scalar(at_us, pa.int64()).cast(pa.timestamp("us", tz="UTC")).as_py()
    rows = [
        {
            "entity_id": name, "valid_from": moment, "created_time": moment, "plan": site.rng.choice(("free", "pro", None)),
            "country": site.rng.choice(("de", "us", "fr")), "utc_offset_minutes": 60 * site.rng.randrange(1, 9),
        }
        for name in site.names()
        if site.rng.random() < 2 / 3
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=profile_schema(CATALOG, "account"))
    append_profiles(site.workspace, CATALOG, "account", table, source=source)


def run(site: Site, version: int) -> None:
    """Events arrive in parts, late and repeated ones among them; after each part the store is fresh and users are scored.

    The stream is started anew for every part; before the third the profiles change and the store is filled again.
    """
    events = to_table(draw_events(site.users, site.seed, admissible=False), event_schema(CATALOG.attributes_of(ENTITY)))
    append_profile_values(site, START_US - DAY_US, "first profiles")
    materialize(site.workspace, CATALOG, VIEW, as_of_us=START_US - DAY_US)
    share = -(-events.num_rows // PARTS)
    artifact = read_artifact(site.workspace.model(MODEL, version))
    predictor = Predictor(artifact)
    server = Server(MODEL, version, "stable", artifact)
    folder = site.workspace.predictions(MODEL)
    with (
        open_live_log(site.workspace, CATALOG, ENTITY, durability="process") as log,
        PredictionLog(folder, server, finish_by(predictor), whole_rate=site.whole_rate) as prediction_log,
    ):
        for part in range(PARTS):
            some = events.slice(part * share, share)
            append_as_they_came(log, some)
            reached_us = int(some["ingest_time"].cast(pa.int64())[-1].as_py())
            if part == PARTS // 2:
                append_profile_values(site, reached_us - HOUR_US, "second profiles")
                compact(log, site.workspace, CATALOG, ENTITY, now_us=reached_us)
                materialize(site.workspace, CATALOG, VIEW, as_of_us=reached_us + FILL_LAG_US)
            with site.open_store() as store:
                fold_all(site, log, store, reached_us)
                serve_some(site, store, predictor, server, prediction_log, reached_us)


IMPORTED = """
catalog: subscription
time_zone: UTC
event_id: id
entity_id: user
event_time: at
ingest_time: {delay_s: 60}
region: {constant: eu}
events:
  - type: session
    attributes:
      duration_ms: {column: seconds, scale: SCALE, round: half_away_from_zero}
"""


def import_sessions(site: Site, scale: int) -> None:
    """Three sessions a user from a file in seconds, by a mapping that multiplies them by ``scale``."""
    source, mapping = site.workspace.root / "sessions.csv", site.workspace.root / "mapping.yaml"
    mapping.write_text(IMPORTED.replace("SCALE", str(scale)))
    lines = [f"{name}/{hour},{name},2026-01-05T{hour:02d}:00:00Z,{hour}.5" for name in site.names() for hour in (1, 2, 3)]
    source.write_text("\n".join(["id,user,at,seconds", *lines]) + "\n")
    import_files(prepare_import(site.workspace, str(mapping), catalog=None, now_us=START_US), [source])


def serve_imported(site: Site, version: int) -> None:
    """Fill the store from the batch log and score users."""
    reached_us = START_US + DAY_US
    materialize(site.workspace, CATALOG, VIEW, as_of_us=reached_us)
    artifact = read_artifact(site.workspace.model(MODEL, version))
    predictor, server = Predictor(artifact), Server(MODEL, version, "stable", artifact)
    with site.open_store() as store, PredictionLog(
        site.workspace.predictions(MODEL), server, finish_by(predictor), whole_rate=site.whole_rate
    ) as log:  # fmt: skip
        serve_some(site, store, predictor, server, log, reached_us)


def append_as_they_came(log: FileLog, events: pa.Table) -> None:
    """Append events at their own ingest times."""
    ingest_us, places = events["ingest_time"].cast(pa.int64()).to_pylist(), events["log_partition"].to_pylist()
    sent = events.drop_columns([*STAMPED, "log_partition", "ingest_day"])
    for (at_us, partition), rows in groupby(range(events.num_rows), key=lambda row: (ingest_us[row], places[row])):
        chosen = list(rows)
        log.append(partition, sent.slice(chosen[0], len(chosen)), now_us=at_us)


def fold_all(site: Site, log: FileLog, store: OnlineStore, now_us: int) -> None:
    """A stream's life: claims every shard, catches up, ends."""
    history = BatchHistory(site.workspace.root, CATALOG, ENTITY)
    for partition in range(CATALOG.log_partitions):
        shard = ShardFold(log, store, CATALOG, VIEW, partition, history)
        while shard.fold_next(100, now_us):
            pass
        shard.advance(now_us)


def serve_some(
    site: Site, store: OnlineStore, predictor: Predictor, server: Server, log: PredictionLog, reached_us: int
) -> None:  # fmt: skip
    """Score random users, some unknown, within an hour after what the store has reached."""
    names = [*site.names(), "nobody"]
    for number in range(0, site.rows_a_part, 20):
        ids = site.rng.choices(names, k=20)
        now_us = [reached_us + site.rng.randrange(HOUR_US) for _ in ids]
        request = ScoreRequest(ids, now_us, {"platform": site.rng.choices(PLATFORMS, k=20)}, with_features=False)
        inputs = look_up(store, request, server.artifact.profile_fields, VIEW.freshness_sla_s)
        answer = Answer(request, inputs, predictor.predict(inputs.tensors, with_features=False))
        assert log.offer(answer, request_id=f"{reached_us}-{number}", answered_at_us=now_us[0])


def make_site(folder: Path, artifacts: Path, **settings: object) -> tuple[Site, int]:
    """A site with one registered version, and its number."""
    site = Site(Workspace(folder / "workspace"), **settings)  # type: ignore[arg-type]
    return site, register_model(site.workspace, artifacts)


def audit(site: Site, **selection: object) -> SkewAudit:
    """The audit of all that the site has served, or of a selection."""
    return audit_skew(site.workspace, MODEL, Selection(**selection), measured_at_us=MEASURED_US)  # type: ignore[arg-type]
