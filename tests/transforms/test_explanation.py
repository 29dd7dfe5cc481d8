"""Why this score: Shapley values by hand, and the signature that gives them in every loader, for every kind of model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.codec import encode_states
from features.declarations import Catalog, EventType, Field, Profile, Signal, View
from features.layout import DAY_S, LIFETIME, LIFETIME_TILES, US_PER_S, pack_key
from features.rows import TIME
from features.tiles import Tiles
from models.trees import build_trees
from transforms.errors import GraphError
from transforms.explanation import EXACT_GROUPS, ORDER_PAIRS, explain_rows, plan_coalitions
from transforms.export import export_model, graph_inputs
from transforms.fit import fit_graph
from transforms.plan import plan_graph

Floats = NDArray[np.float32]


def explain(groups: list[str], reference: list[float], rows: list[list[float]], score: Any) -> tuple[Floats, Floats]:
    outputs = explain_rows(plan_coalitions(groups), tf.constant(reference, tf.float32), tf.constant(rows, tf.float32), score)
    return outputs["contributions"].numpy(), outputs["base"].numpy()


def score_abc(x: tf.Tensor) -> tf.Tensor:
    """0.5 + 0.1 a + 0.2 b + 0.4 b c; a is the sum of two columns."""
    a, b, c = x[:, 0] + x[:, 3], x[:, 1], x[:, 2]
    return 0.5 + 0.1 * a + 0.2 * b + 0.4 * b * c


def test_contributions_are_those_derived_by_hand() -> None:
    """Reference a = 0, b = 0, c = 0.5; row a = 1 + 1, b = 1, c = 1.

    a adds 0.1 * 2 whenever it joins. b joins before c (half of the orders): 0.2 + 0.4 * 0.5 = 0.4; after c: 0.2 + 0.4 = 0.6;
    mean 0.5. c joins before b: 0, as b is 0; after b: 0.4 * (1 - 0.5) = 0.2; mean 0.1. In all 0.8 = 1.3 - 0.5.
    """
    contributions, base = explain(["a", "b", "c", "a"], [0, 0, 0.5, 0], [[1, 1, 1, 1], [0, 0, 0.5, 0]], score_abc)
    assert base == pytest.approx([0.5, 0.5])
    assert contributions[0] == pytest.approx([0.2, 0.5, 0.1], abs=1e-7)
    assert contributions[1] == pytest.approx([0, 0, 0], abs=1e-12)


def test_orders_and_their_reverses_are_exact_for_pairs_of_signals_however_many_there_are() -> None:
    """A product x_i x_j against a reference of zeros is shared half and half: in one of two reversed orders i comes first."""
    count = EXACT_GROUPS + 4
    groups = [f"s{number}" for number in range(count)]
    assert len(plan_coalitions(groups).own) <= 2 * ORDER_PAIRS * (count - 1) + 2

    def score(x: tf.Tensor) -> tf.Tensor:
        return x[:, 0] * x[:, 1] + 3 * x[:, 2] + x[:, 3] * x[:, count - 1]

    contributions, _ = explain(groups, [0] * count, [[2, 3, 1, 1, *[7] * (count - 5), 5]], score)
    assert contributions[0] == pytest.approx([3, 3, 3, 2.5, *[0] * (count - 5), 2.5], abs=1e-6)


@settings(max_examples=20)
@given(groups=st.integers(1, EXACT_GROUPS + 6), seed=st.integers(0, 10**6))
def test_contributions_sum_to_score_less_base_whatever_the_network(groups: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns = [f"s{number}" for number in rng.integers(0, groups, groups + 5)]
    first, second = (rng.standard_normal(shape).astype(np.float32) for shape in ((len(columns), 8), (8, 1)))

    def score(x: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(tf.tanh(x @ first) @ second)[:, 0]

    rows = rng.standard_normal((3, len(columns))).astype(np.float32)
    contributions, base = explain(columns, [0.0] * len(columns), rows.tolist(), score)
    assert contributions.sum(axis=1) == pytest.approx(score(tf.constant(rows)).numpy() - base, abs=1e-6)


VIEW = View("v", 1, "user", ("hits", "visits"), profiles=("account",), request=(Field("platform", "string", "none", "", 2),))
CATALOG = Catalog(
    name="test",
    attributes=(),
    event_types=(EventType("hit", "user"), EventType("visit", "user")),
    signals=(
        Signal(1, "hits", "user", ("hit",), ("count",), (DAY_S, LIFETIME)),
        Signal(2, "visits", "user", ("visit",), ("count",), (LIFETIME,)),
    ),
    profiles=(Profile("account", "user", (Field("age", "int64", 0, "years"),)),),
    views=(VIEW,),
)
PLAN = plan_graph(CATALOG, VIEW)
ROWS = 64


def make_rows() -> pa.Table:
    number = np.arange(ROWS)
    owner = np.repeat(number, 2)
    key = np.tile([pack_key(signal, "count", LIFETIME_TILES, 0, 0) for signal in (1, 2)], ROWS)
    value = np.stack([number % 5, number % 3], axis=1).reshape(-1)
    return pa.table(
        {
            "entity_id": [f"u{each}" for each in number],
            "now": pa.array([1_736_121_600 * US_PER_S] * ROWS, TIME),
            "state": encode_states(Tiles(owner, key, value), np.zeros(ROWS, np.int64), np.zeros(ROWS, np.int64)),
            "age": pa.array(number % 7, pa.int64()),
            "platform": [("ios", "web", "tv")[each % 3] for each in number],
            "split": ["train" if each < ROWS // 2 else "test" for each in number],
            "label": pa.array(number % 2, pa.int8()),
        }
    )


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fit")
    pq.write_table(make_rows(), path / "rows.parquet")
    fit_graph(path / "rows.parquet", CATALOG, VIEW, path / "graph")
    return path / "graph"


def read_transformed(graph: Path) -> tuple[Floats, Any]:
    table = pq.read_table(graph / "features.parquet")
    values: Floats = table["transformed"].combine_chunks().flatten().to_numpy().reshape(ROWS, -1)
    return values, np.array(table["split"].to_pylist())


def make_network(outputs: int) -> keras.Model:
    keras.utils.set_random_seed(1)
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((len(PLAN.transformed_names),)), layers.Dense(8, "tanh"), layers.Dense(outputs, "sigmoid")]
    )


def make_trees(graph: Path) -> keras.Model:
    transformed, _ = read_transformed(graph)
    hits, visits = (transformed[:, PLAN.transformed_names.index(f"{name}_count_lifetime")] for name in ("hits", "visits"))
    label = (hits * visits > 0).astype(int)
    parameters = {"objective": "binary", "min_data_in_leaf": 5, "num_threads": 1, "verbose": -1}
    logits = build_trees(lightgbm.train(parameters, lightgbm.Dataset(transformed, label), 20))
    return keras.Model(logits.input, keras.layers.Activation("sigmoid")(logits.output))


def export(graph: Path, network: keras.Model, out: Path, **extra: Any) -> Path:
    out.mkdir()
    network.save(out / "network.keras")
    export_model(graph, out / "network.keras", out, **extra)
    return out


def test_the_reference_is_the_mean_row_of_the_train_split(fitted: Path) -> None:
    transformed, split = read_transformed(fitted)
    reference = json.loads((fitted / "graph.json").read_text())["reference"]
    assert reference == pytest.approx(transformed[split == "train"].mean(axis=0, dtype=np.float64), abs=1e-6)
    # A one-hot column's mean is a frequency: of 32 rows 11 are ios, the first value by frequency then order.
    assert max(reference[PLAN.transformed_names.index(f"platform_{rank}")] for rank in ("0", "1")) == pytest.approx(11 / 32)


@pytest.mark.parametrize("kind", ["network", "trees", "hazard"])
def test_a_saved_model_explains_alike_in_python_and_in_the_tf1_loader(fitted: Path, tmp_path: Path, kind: str) -> None:
    edges = (DAY_S, 7 * DAY_S) if kind == "hazard" else ()
    network = make_trees(fitted) if kind == "trees" else make_network(1 + len(edges))
    out = export(fitted, network, tmp_path / "model", delay_buckets_s=edges)
    record = json.loads((out / "model.json").read_text())
    assert record["groups"] == ["hits", "visits", "age", "platform"]
    assert record["delay_buckets_s"] == list(edges)
    inputs = {name: tf.constant(values) for name, values in graph_inputs(make_rows().slice(0, 20), PLAN).items()}
    signatures = tf.saved_model.load(str(out / "saved_model")).signatures
    outputs = {name: value.numpy() for name, value in signatures["explain"](**inputs).items()}
    served = {name: value.numpy() for name, value in signatures["serving_default"](**inputs).items()}
    expected = np.asarray(network(read_transformed(fitted)[0][:20]))
    assert served["score"] == pytest.approx(expected[:, 0], abs=1e-6)
    assert ("within" in served) == bool(edges)
    if edges:
        assert served["within"] == pytest.approx(expected[:, 1:], abs=1e-6)
    assert outputs["contributions"].shape == (20, 4)
    assert outputs["contributions"].sum(axis=1) == pytest.approx(served["score"] - outputs["base"], abs=1e-6)
    assert np.abs(outputs["contributions"]).max() > 0.01

    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        definitions = tf.compat.v1.saved_model.load(session, ["serve"], str(out / "saved_model")).signature_def
        names = definitions["explain"]
        feed = {names.inputs[name].name: value.numpy() for name, value in inputs.items()}
        contributions = session.run(names.outputs["contributions"].name, feed)
    assert contributions == pytest.approx(outputs["contributions"], abs=1e-6)


def test_a_hazard_network_without_its_edges_is_refused(fitted: Path, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"expected \(None, \d+\) -> \(None, 1\); got \(None, \d+\) -> \(None, 3\)"):
        export(fitted, make_network(3), tmp_path / "model")
