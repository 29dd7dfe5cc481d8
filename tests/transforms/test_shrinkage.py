"""Ratios of few events are drawn towards their segment's prior in what the model sees, by numbers derived by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from features.catalogs import load_catalog
from features.checks import check_catalog
from features.codec import encode_states
from features.declarations import Catalog, EventType, Field, Profile, Ratio, Shrinkage, Signal, View
from features.errors import DeclarationError
from features.layout import LIFETIME, LIFETIME_TILES, US_PER_S, pack_key
from features.rows import TIME
from features.tiles import Tiles
from transforms.export import export_model, graph_inputs, load_finisher
from transforms.fit import fit_graph
from transforms.plan import plan_graph

RATE = Ratio("click_rate", "clicks_count_lifetime", "shows_count_lifetime", Shrinkage(10, by="country"))
GLOBAL_RATE = Ratio("global_rate", "clicks_count_lifetime", "shows_count_lifetime", Shrinkage(10))
RAW_RATE = Ratio("raw_rate", "clicks_count_lifetime", "shows_count_lifetime")
VIEW = View("v", 1, "user", ("clicks", "shows"), profiles=("account",), ratios=(RAW_RATE, RATE, GLOBAL_RATE))
CATALOG = Catalog(
    name="test",
    attributes=(),
    event_types=(EventType("click", "user"), EventType("show", "user")),
    signals=(
        Signal(1, "clicks", "user", ("click",), ("count",), (LIFETIME,)),
        Signal(2, "shows", "user", ("show",), ("count",), (LIFETIME,)),
    ),
    profiles=(Profile("account", "user", (Field("country", "string", "none", "", 2), Field("age", "int64", 0, "years"))),),
    views=(VIEW,),
)
PLAN = plan_graph(CATALOG, VIEW)

TRAINING = [(3, 10, "a"), (1, 10, "a"), (0, 20, "b"), (0, 0, "a")]
"""(clicks, shows, country). Of all 40 shows 4 were clicked: 0.1. With strength 10 the prior of a is (4 + 10 * 0.1) /
(20 + 10) = 1/6, of b (0 + 1) / (20 + 10) = 1/30, of a country never seen 1 / 10."""

BY_COUNTRY = [(3 + 10 / 6) / 20, (1 + 10 / 6) / 20, (0 + 10 / 30) / 30, 1 / 6]
OVERALL = [(3 + 1) / 20, (1 + 1) / 20, (0 + 1) / 30, 0.1]


def rows_of(given: list[tuple[int, int, str]]) -> pa.Table:
    count = len(given)
    owner = np.repeat(np.arange(count), 2)
    key = np.tile([pack_key(signal, "count", LIFETIME_TILES, 0, 0) for signal in (1, 2)], count)
    value = np.array([number for clicks, shows, _ in given for number in (clicks, shows)])
    some = value > 0
    return pa.table(
        {
            "entity_id": [f"u{number}" for number in range(count)],
            "now": pa.array([1_736_121_600 * US_PER_S] * count, TIME),
            "state": encode_states(Tiles(owner[some], key[some], value[some]), np.zeros(count, int), np.zeros(count, int)),
            "country": [country for *_, country in given],
            "age": pa.array([0] * count, pa.int64()),
        }
    )


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fit")
    # Rows of another split have no say in the priors.
    rows = rows_of([*TRAINING, (9, 9, "b")]).append_column("split", pa.array(["train"] * 4 + ["test"]))
    pq.write_table(rows, path / "rows.parquet")
    fit_graph(path / "rows.parquet", CATALOG, VIEW, path / "graph")
    return path / "graph"


def column(outputs: dict[str, np.ndarray], name: str, block: str = "transformed") -> list[float]:
    names = PLAN.transformed_names if block == "transformed" else PLAN.finished_names
    return outputs[block][:, names.index(name)].tolist()


def scaled(values: list[float], training: list[float]) -> list[float]:
    """Logarithms as the graph scales them: less the training mean, over the training deviation."""
    logs = np.log1p(training)
    return ((np.log1p(values) - logs.mean()) / logs.std()).tolist()


def test_the_model_sees_ratios_drawn_towards_their_segment(graph: Path) -> None:
    outputs = load_finisher(graph / "transform_fn", PLAN)(rows_of(TRAINING))
    assert column(outputs, "click_rate") == pytest.approx(scaled(BY_COUNTRY, BY_COUNTRY), abs=1e-5)
    assert column(outputs, "global_rate") == pytest.approx(scaled(OVERALL, OVERALL), abs=1e-5)
    assert column(outputs, "raw_rate") == pytest.approx(scaled([0.3, 0.1, 0, 0], [0.3, 0.1, 0, 0]), abs=1e-5)


def test_cold_users_get_the_prior_of_their_segment_and_unseen_segments_the_overall_one(graph: Path) -> None:
    outputs = load_finisher(graph / "transform_fn", PLAN)(rows_of([(0, 0, "b"), (0, 0, "c"), (5, 10, "c")]))
    expected = [1 / 30, 0.1, (5 + 10 * 0.1) / 20]
    assert column(outputs, "click_rate") == pytest.approx(scaled(expected, BY_COUNTRY), abs=1e-5)


def test_finished_values_stay_raw_and_missing_ones_stay_marked(graph: Path) -> None:
    outputs = load_finisher(graph / "transform_fn", PLAN)(rows_of(TRAINING))
    assert column(outputs, "click_rate", "finished") == pytest.approx([0.3, 0.1, 0, 0])
    assert column(outputs, "click_rate_missing") == column(outputs, "raw_rate_missing") == [0, 0, 0, 1]


def test_shrunken_ratios_are_equal_to_the_bit_at_any_batch_size_and_in_the_tf1_loader(graph: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    shows = rng.integers(0, 40, 100)
    given = list(zip(rng.binomial(shows, 0.3).tolist(), shows.tolist(), rng.choice(["a", "b", "c"], 100).tolist(), strict=True))
    rows = rows_of(given)
    network = keras.Sequential([keras.Input((len(PLAN.transformed_names),)), keras.layers.Dense(1, activation="sigmoid")])
    network.save(tmp_path / "network.keras")
    export_model(graph, tmp_path / "network.keras", tmp_path)
    at_once = load_finisher(graph / "transform_fn", PLAN)(rows)["transformed"]
    finisher = load_finisher(tmp_path / "saved_model", PLAN)
    for size in (1, 3, 17):
        parts = [finisher(rows.slice(start, size))["transformed"] for start in range(0, 100, size)]
        assert np.concatenate(parts).tobytes() == at_once.tobytes()
    inputs = graph_inputs(rows, PLAN)
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        path = str(tmp_path / "saved_model")
        signature = tf.compat.v1.saved_model.load(session, ["serve"], path).signature_def["features"]
        feed = {signature.inputs[name].name: values for name, values in inputs.items()}
        transformed = session.run(signature.outputs["transformed"].name, feed)
    assert transformed.tobytes() == at_once.tobytes()


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (replace(RATE, shrink=Shrinkage(0)), "a positive strength"),
        (replace(RATE, shrink=Shrinkage(1, by="age")), "string fields country"),
        (replace(RATE, denominator="raw_rate"), "a count as denominator; got 'raw_rate'"),
    ],
)
def test_a_shrinkage_that_makes_no_sense_is_refused(ratio: Ratio, expected: str) -> None:
    view = replace(VIEW, ratios=(RAW_RATE, ratio))
    with pytest.raises(DeclarationError, match=expected):
        check_catalog(replace(CATALOG, views=(view,)))


def test_rates_of_the_shipped_catalogs_are_drawn_towards_their_segments() -> None:
    view = load_catalog("subscription").view("subscriber")
    shrunken = {ratio.name: shrink for ratio, shrink in plan_graph(load_catalog("subscription"), view).shrunken_ratios}
    assert shrunken["offer_click_rate_30d"].by == "country"
