"""Candidates of one user, scored with its state finished once, are the rows that the whole graph would make of them."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from features.codec import encode_states
from features.declarations import Catalog, Elapsed, EventType, Field, Profile, Ratio, Shrinkage, Signal, View
from features.layout import DAY_S, DAY_TILES, LIFETIME, LIFETIME_TILES, US_PER_S, pack_key
from features.rows import TIME
from features.tiles import Tiles
from transforms.candidates import SplitGraph
from transforms.errors import GraphError
from transforms.export import export_model
from transforms.fit import fit_graph

NOW_US = 1_736_121_600 * US_PER_S
OFFERS = ("a", "b", "c", "never seen in training")
VIEW = View(
    "v", 1, "user", ("clicks", "shows", "clicked"), profiles=("account",), utc_offset="offset_minutes",
    request=(Field("offer", "string", "none", "", 3), Field("price", "int64", 0, "cents")),
    elapsed=(Elapsed("since_click_s", since="clicked_last_lifetime"),),
    ratios=(Ratio("click_rate", "clicks_count_7d", "shows_count_lifetime", Shrinkage(10, by="offer")),),
    bucketed=("since_click_s",),
)  # fmt: skip
CATALOG = Catalog(
    name="test",
    attributes=(),
    event_types=(EventType("click", "user"), EventType("show", "user")),
    signals=(
        Signal(1, "clicks", "user", ("click",), ("count",), (7 * DAY_S,)),
        Signal(2, "shows", "user", ("show",), ("count",), (LIFETIME,)),
        Signal(3, "clicked", "user", ("click",), ("last",), (LIFETIME,)),
    ),
    profiles=(Profile("account", "user", (Field("country", "string", "none", "", 2),
                                          Field("offset_minutes", "int64", 0, "minutes"))),),
    views=(VIEW,),
)  # fmt: skip
USERS = 40


def draw_rows() -> dict[str, np.ndarray]:
    """One row a user: up to nine clicks among up to twenty shows; every fifth user is cold."""
    rng = np.random.default_rng(5)
    owner, key, value = [], [], []
    for user in range(USERS):
        if user % 5 == 0:
            continue
        clicks, shows = int(rng.integers(1, 10)), int(rng.integers(10, 20))
        day = NOW_US // (DAY_S * US_PER_S)
        records = [
            (pack_key(1, "count", DAY_TILES, 0, day - int(rng.integers(0, 9))), clicks),
            (pack_key(2, "count", LIFETIME_TILES, 0, 0), shows),
            (pack_key(3, "last", LIFETIME_TILES, 0, 0), NOW_US - int(rng.integers(0, 10**12))),
        ]
        for packed, amount in sorted(records):
            owner.append(user)
            key.append(packed)
            value.append(amount)
    tiles = Tiles(np.array(owner), np.array(key), np.array(value))
    return {
        "state": np.array(encode_states(tiles, np.zeros(USERS, int), np.zeros(USERS, int)).to_pylist(), dtype=object),
        "now": np.full(USERS, NOW_US),
        "country": np.array([("de", "fr", "us")[user % 3] for user in range(USERS)], dtype=object),
        "offset_minutes": np.arange(USERS) * 17 - 300,
        "offer": np.array([OFFERS[user % 3] for user in range(USERS)], dtype=object),
        "price": np.arange(USERS) * 111,
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``graph/`` and ``model/`` of the view above, with a network that answers for two horizons."""
    path = tmp_path_factory.mktemp("exported")
    columns = draw_rows()
    rows = pa.table({name: pa.array(values.tolist()) for name, values in columns.items() if name not in ("state", "now")})
    rows = rows.append_column("state", pa.array(columns["state"].tolist(), pa.large_binary()))
    rows = rows.append_column("now", pa.array(columns["now"], TIME))
    rows = rows.append_column("entity_id", pa.array([f"u{user}" for user in range(USERS)]))
    pq.write_table(rows.append_column("split", pa.array(["train"] * USERS)), path / "rows.parquet")
    fit_graph(path / "rows.parquet", CATALOG, VIEW, path / "graph")
    width = pq.read_schema(path / "graph" / "features.parquet").field("transformed").type.list_size
    keras.utils.set_random_seed(3)
    keras.Sequential([keras.Input((width,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "sigmoid")]).save(
        path / "network.keras"
    )
    export_model(path / "graph", path / "network.keras", path / "model", delay_buckets_s=(DAY_S, 7 * DAY_S))
    return path


def draw_candidates(users: int, count: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Users with their profiles, and candidates with the fields of a request and their owners."""
    rows, rng = draw_rows(), np.random.default_rng(count)
    chosen = {name: rows[name][:users] for name in ("state", "now", "country", "offset_minutes")}
    return chosen, {
        "owner": rng.integers(0, users, count),
        "offer": rng.choice(np.array(OFFERS, dtype=object), count),
        "price": rng.integers(0, 10_000, count),
    }


def whole(users: dict[str, np.ndarray], candidates: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    """The same as one row a candidate, state and profile repeated."""
    rows = {name: values[candidates["owner"]] for name, values in users.items()}
    return {name: tf.constant(values) for name, values in {**rows, **candidates}.items() if name != "owner"}


SIZES = [(1, 1), (1, 100), (3, 17), (16, 16), (USERS, 500), (USERS, 7)]


@pytest.mark.parametrize(("users", "count"), SIZES)
def test_features_of_candidates_are_those_of_the_whole_graph_bit_for_bit(exported: Path, users: int, count: int) -> None:
    graph = tf.saved_model.load(str(exported / "graph" / "transform_fn"))
    given, candidates = draw_candidates(users, count)
    split = SplitGraph(graph.transform_fn)
    cut = tf.function(split.transform)(*({name: tf.constant(v) for name, v in part.items()} for part in (given, candidates)))
    expected = graph.transform_fn(whole(given, candidates))["transformed"]
    assert cut.shape == expected.shape == (count, len(expected[0]))
    assert cut.numpy().tobytes() == expected.numpy().tobytes()


@pytest.mark.parametrize(("users", "count"), SIZES)
def test_scores_of_candidates_are_those_of_the_plain_signature_bit_for_bit(exported: Path, users: int, count: int) -> None:
    """Equal batches give equal matrix products, so nothing but the features could differ."""
    signatures = tf.saved_model.load(str(exported / "model" / "saved_model")).signatures
    given, candidates = draw_candidates(users, count)
    answers = signatures["candidates"](**{name: tf.constant(values) for name, values in {**given, **candidates}.items()})
    expected = signatures["serving_default"](**whole(given, candidates))
    for name in ("score", "within"):
        assert answers[name].numpy().tobytes() == expected[name].numpy().tobytes()
    assert count < 100 or answers["score"].numpy().std() > 0, "a network that answers one number proves nothing"


def test_candidates_are_scored_in_the_tf1_loader_that_tf_serving_uses(exported: Path) -> None:
    given, candidates = draw_candidates(3, 17)
    signatures = tf.saved_model.load(str(exported / "model" / "saved_model")).signatures
    expected = signatures["serving_default"](**whole(given, candidates))["score"].numpy()
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(exported / "model" / "saved_model"))
        signature = loaded.signature_def["candidates"]
        feed = {signature.inputs[name].name: values for name, values in {**given, **candidates}.items()}
        score = session.run(signature.outputs["score"].name, feed)
    assert score == pytest.approx(expected, abs=1e-6)


def test_a_graph_without_padded_integers_cannot_be_cut() -> None:
    @tf.function(input_signature=[{"state": tf.TensorSpec([None], tf.string), "now": tf.TensorSpec([None], tf.int64)}])
    def other(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"integers": inputs["now"][:, None] + 1}

    with pytest.raises(GraphError, match="cannot be cut at its integers"):
        SplitGraph(other.get_concrete_function())
