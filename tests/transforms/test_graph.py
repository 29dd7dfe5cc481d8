"""The graph against numbers derived by hand, and the artifact in every loader."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from features.codec import encode_states
from features.declarations import Attribute, By, Catalog, Elapsed, EventType, Field, Profile, Ratio, Signal, View
from features.layout import (
    DAY_S,
    DAY_TILES,
    HOUR_S,
    HOUR_TILES,
    LIFETIME,
    LIFETIME_TILES,
    MINUTE_S,
    MINUTE_TILES,
    US_PER_S,
    Resolution,
    pack_key,
)
from features.rows import TIME
from features.tiles import Tiles
from transforms.errors import GraphError
from transforms.export import export_model, export_window_graph, graph_inputs, load_finisher
from transforms.fit import fit_graph
from transforms.plan import plan_graph

VIEW = View(
    "v",
    1,
    "user",
    ("hits", "money", "channels", "times"),
    profiles=("account",),
    request=(Field("platform", "string", "unknown", vocabulary_size=2),),
    elapsed=(
        Elapsed("since_last_s", since="times_last_lifetime"),
        Elapsed("span_s", since="times_first_lifetime", until="times_last_lifetime"),
    ),
    ratios=(Ratio("hour_share", "hits_count_1h", "hits_count_1d"),),
    bucketed=("since_last_s",),
    utc_offset="offset_minutes",
)
CATALOG = Catalog(
    name="test",
    attributes=(Attribute("cents", "int64", unit="cents"), Attribute("channel", "string")),
    event_types=(EventType("hit", "user", ("cents", "channel")),),
    signals=(
        Signal(1, "hits", "user", ("hit",), ("count",), (10 * MINUTE_S, HOUR_S, DAY_S, 30 * DAY_S, LIFETIME)),
        Signal(2, "money", "user", ("hit",), ("sum", "max"), (7 * DAY_S,), value="cents"),
        Signal(3, "channels", "user", ("hit",), ("count",), (HOUR_S,), by=By("channel", ("email", "push"))),
        Signal(4, "times", "user", ("hit",), ("last", "first"), (LIFETIME,)),
    ),
    profiles=(Profile("account", "user", (Field("offset_minutes", "int64", 0, "minutes"),)),),
    views=(VIEW,),
)
PLAN = plan_graph(CATALOG, VIEW)
T0 = 1_736_121_600  # 2025-01-06 00:00:00 UTC
NOW_S = T0 + 10 * HOUR_S + 30 * MINUTE_S + 30  # 10:30:30

Record = tuple[int, str, Resolution, int, int, int]


def state_of(records: list[Record]) -> bytes:
    """Bytes of hand-written tiles (signal, operation, resolution, by, start of the tile in s, value)."""
    rows = sorted(
        (pack_key(signal, operation, resolution, by, at // resolution.period_s if resolution.period_s else 0), value)
        for signal, operation, resolution, by, at, value in records
    )
    key, value = np.array(rows, dtype=np.int64).T
    return encode_states(Tiles(np.zeros(len(key), np.int64), key, value), np.array([0]), np.array([5]))[0].as_py()


WARM = state_of(
    [
        # Minute tiles. now is in minute 10:30; the last 10 minutes are 10:21 to 10:30, the last hour 9:31 to 10:30.
        (1, "count", MINUTE_TILES, 0, NOW_S + 60, 100),  # 10:31, still to come: in no window
        (1, "count", MINUTE_TILES, 0, NOW_S, 1),  # 10:30
        (1, "count", MINUTE_TILES, 0, NOW_S - 9 * 60, 2),  # 10:21, the oldest of ten
        (1, "count", MINUTE_TILES, 0, NOW_S - 10 * 60, 4),  # 10:20, just out of 10 minutes
        (1, "count", MINUTE_TILES, 0, NOW_S - 59 * 60, 8),  # 9:31, the oldest of sixty
        (1, "count", MINUTE_TILES, 0, NOW_S - 60 * 60, 16),  # 9:30, out
        # Hour tiles. now is in hour 10; the last day is yesterday 11 to today 10.
        (1, "count", HOUR_TILES, 0, NOW_S, 20),
        (1, "count", HOUR_TILES, 0, NOW_S - 23 * HOUR_S, 40),
        (1, "count", HOUR_TILES, 0, NOW_S - 24 * HOUR_S, 80),  # yesterday 10: out
        # Day tiles: 30 days are today and the 29 before.
        (1, "count", DAY_TILES, 0, NOW_S, 3),
        (1, "count", DAY_TILES, 0, NOW_S - 29 * DAY_S, 5),
        (1, "count", DAY_TILES, 0, NOW_S - 30 * DAY_S, 7),  # out
        (1, "count", LIFETIME_TILES, 0, 0, 999),
        (2, "sum", HOUR_TILES, 0, NOW_S, -250),
        (2, "sum", HOUR_TILES, 0, NOW_S - 167 * HOUR_S, 1000),
        (2, "sum", HOUR_TILES, 0, NOW_S - 168 * HOUR_S, 50_000),  # out of 7 days of 24 hours
        (2, "max", HOUR_TILES, 0, NOW_S, -250),
        (2, "max", HOUR_TILES, 0, NOW_S - HOUR_S, -300),
        (3, "count", MINUTE_TILES, 0, NOW_S, 6),
        (3, "count", MINUTE_TILES, 2, NOW_S, 1),
        (3, "count", MINUTE_TILES, 2, NOW_S - 600, 1),
        (4, "last", LIFETIME_TILES, 0, 0, (NOW_S - 90) * US_PER_S + 500_000),
        (4, "first", LIFETIME_TILES, 0, 0, (NOW_S - 3690) * US_PER_S),
        (77, "count", MINUTE_TILES, 0, NOW_S, 12345),  # a signal that this graph does not know
    ]
)

INTEGERS = {
    "hits_count_10m": 3,
    "hits_count_1h": 15,
    "hits_count_1d": 60,
    "hits_count_30d": 8,
    "hits_count_lifetime": 999,
    "money_sum_7d": 750,
    "money_max_7d": -250,
    "channels_count_1h_other": 6,
    "channels_count_1h_email": 0,
    "channels_count_1h_push": 2,
    "times_last_lifetime": (NOW_S - 90) * US_PER_S + 500_000,
    "times_first_lifetime": (NOW_S - 3690) * US_PER_S,
}
# since_last: 89.5 s, of which whole seconds count; span: 3600.5 s. 10:30 UTC + 330 minutes is 16:00 local.
FINISHED = {
    **{name: value for name, value in INTEGERS.items() if not name.startswith("times")},
    "since_last_s": 89,
    "span_s": 3600,
    "hour_share": 0.25,
    "offset_minutes": 330,
    "local_hour": 16,
}


def rows(states: list[bytes], *, offset_minutes: int = 330, platforms: list[str] | None = None) -> pa.Table:
    count = len(states)
    return pa.table(
        {
            "entity_id": [f"u{number}" for number in range(count)],
            "now": pa.array([NOW_S * US_PER_S] * count, TIME),
            "state": pa.array(states, pa.large_binary()),
            "offset_minutes": pa.array([offset_minutes] * count, pa.int64()),
            "platform": platforms or ["ios"] * count,
        }
    )


@pytest.fixture(scope="module")
def window_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("window") / "graph"
    export_window_graph(CATALOG, VIEW, path)
    return path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of two kinds, fitted on Beam: warm ones and cold ones, platforms a, b and c by falling frequency."""
    path = tmp_path_factory.mktemp("fit")
    table = rows([WARM, b""] * 30, platforms=["a"] * 30 + ["b"] * 20 + ["c"] * 10)
    split = pa.array(["train"] * 40 + ["test"] * 20)
    label = pa.array([0, 1] * 30, pa.int8())
    pq.write_table(table.append_column("split", split).append_column("label", label), path / "rows.parquet")
    fit_graph(path / "rows.parquet", CATALOG, VIEW, path / "graph", runner="FnApiRunner")
    network = keras.Sequential([keras.Input((len(PLAN.transformed_names),)), keras.layers.Dense(1, activation="sigmoid")])
    network.save(path / "network.keras")
    (path / "model").mkdir()
    export_model(path / "graph", path / "network.keras", path / "model")
    return path


def test_finished_integers_are_those_derived_by_hand(window_graph: Path) -> None:
    outputs = load_finisher(window_graph, PLAN)(rows([WARM]))
    assert dict(zip(PLAN.integer_names, outputs["integers"][0].tolist(), strict=True)) == INTEGERS


def test_finished_floats_are_those_derived_by_hand(window_graph: Path) -> None:
    outputs = load_finisher(window_graph, PLAN)(rows([WARM]))
    assert dict(zip(PLAN.finished_names, outputs["finished"][0].tolist(), strict=True)) == FINISHED


def test_every_column_belongs_to_the_signal_or_field_that_it_comes_from() -> None:
    finished = dict(zip(PLAN.finished_names, PLAN.finished_groups, strict=True))
    assert finished["channels_count_1h_push"] == "channels"
    assert (finished["since_last_s"], finished["span_s"], finished["hour_share"]) == ("times", "times", "hits")
    assert (finished["offset_minutes"], finished["local_hour"]) == ("offset_minutes", "local_hour")
    transformed = dict(zip(PLAN.transformed_names, PLAN.transformed_groups, strict=True))
    assert (transformed["money_max_7d"], transformed["hour_share_missing"]) == ("money", "hits")
    assert (transformed["since_last_s_quantile"], transformed["local_hour_07"]) == ("times", "local_hour")
    assert (transformed["platform_0"], transformed["platform_other"]) == ("platform", "platform")


def test_a_cold_entity_is_all_zeros_between_warm_ones(window_graph: Path) -> None:
    outputs = load_finisher(window_graph, PLAN)(rows([b"", WARM, b"", b"", WARM, b""], offset_minutes=0))
    assert outputs["integers"][[0, 2, 3, 5]].tolist() == [[0] * len(INTEGERS)] * 4
    assert outputs["integers"][1].tolist() == outputs["integers"][4].tolist() == list(INTEGERS.values())


def test_transformed_columns_are_scaled_by_the_train_split_alone(fitted: Path) -> None:
    """20 warm and 20 cold rows: a column that is x and 0 has mean x/2 and deviation x/2, so it scales to +1 and -1."""
    outputs = load_finisher(fitted / "model" / "saved_model", PLAN)(rows([WARM, b""], platforms=["b", "never seen"]))
    warm, cold = (dict(zip(PLAN.transformed_names, row, strict=True)) for row in outputs["transformed"].tolist())
    assert (warm["hits_count_1h"], cold["hits_count_1h"]) == pytest.approx((1, -1), abs=1e-5)
    # A negative amount has a negative logarithm: the warm row is now the lower one.
    assert (warm["money_max_7d"], cold["money_max_7d"]) == pytest.approx((-1, 1), abs=1e-5)
    assert (warm["since_last_s_missing"], cold["since_last_s_missing"]) == (0, 1)
    assert (warm["hour_share_missing"], cold["hour_share_missing"]) == (0, 1)
    assert warm["local_hour_16"] == 1
    # Platforms of the train split: 30 a, 10 b; the rest was never seen in training.
    assert [warm[f"platform_{rank}"] for rank in ("0", "1", "other")] == [0, 1, 0]
    assert [cold[f"platform_{rank}"] for rank in ("0", "1", "other")] == [0, 0, 1]


def test_a_column_that_never_varied_in_training_cannot_outweigh_the_others(fitted: Path) -> None:
    """The offset was the same in every row; a billion minutes lie ln(1e9) - ln(331) = 14.9 from it: more than 8."""
    outputs = load_finisher(fitted / "model" / "saved_model", PLAN)(rows([WARM], offset_minutes=10**9))
    assert dict(zip(PLAN.transformed_names, outputs["transformed"][0].tolist(), strict=True))["offset_minutes"] == 8


def test_batch_and_serving_agree_to_the_bit_at_any_batch_size(fitted: Path) -> None:
    written = pq.read_table(fitted / "graph" / "features.parquet")
    batch = np.array(written["transformed"].combine_chunks().values).reshape(len(written), -1)
    finisher = load_finisher(fitted / "model" / "saved_model", PLAN)
    table = pq.read_table(fitted / "rows.parquet")
    for size in (1, 3, 17, 60):
        served = np.concatenate([finisher(table.slice(start, size))["transformed"] for start in range(0, len(table), size)])
        assert served.tobytes() == batch.astype(np.float32).tobytes()


def test_the_saved_model_loads_by_name_in_the_tf1_loader_that_tf_serving_uses(fitted: Path) -> None:
    path = str(fitted / "model" / "saved_model")
    table = rows([WARM, b"", WARM])
    inputs = graph_inputs(table, PLAN)
    expected = load_finisher(fitted / "model" / "saved_model", PLAN)(table)
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signatures = tf.compat.v1.saved_model.load(session, ["serve"], path).signature_def
        feed = {signatures["features"].inputs[name].name: values for name, values in inputs.items()}
        transformed = session.run(signatures["features"].outputs["transformed"].name, feed)
        feed = {signatures["serving_default"].inputs[name].name: values for name, values in inputs.items()}
        score = session.run(signatures["serving_default"].outputs["score"].name, feed)
    assert set(signatures["serving_default"].inputs) == {"state", "now", "offset_minutes", "platform"}
    assert transformed.tobytes() == expected["transformed"].tobytes()
    assert score == pytest.approx(expected["score"], abs=1e-6)


def test_names_and_groups_stand_with_graph_features_and_model(fitted: Path) -> None:
    stored = pq.read_schema(fitted / "graph" / "features.parquet").metadata
    for name in ("finished_names", "finished_groups", "transformed_names", "transformed_groups"):
        expected = getattr(PLAN, name)
        assert json.loads(stored[name.encode()]) == expected
        assert json.loads((fitted / "graph" / "graph.json").read_text())[name] == expected
        assert json.loads((fitted / "model" / "model.json").read_text())[name] == expected


def test_a_graph_is_not_fitted_without_training_rows(tmp_path: Path) -> None:
    pq.write_table(rows([WARM]).append_column("split", pa.array(["test"])), tmp_path / "rows.parquet")
    with pytest.raises(GraphError, match="no training rows"):
        fit_graph(tmp_path / "rows.parquet", CATALOG, VIEW, tmp_path / "graph")
    assert not (tmp_path / "graph").exists()


def test_a_network_of_another_graph_is_refused(fitted: Path, tmp_path: Path) -> None:
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]).save(tmp_path / "network.keras")
    with pytest.raises(GraphError, match="network does not fit its graph"):
        export_model(fitted / "graph", tmp_path / "network.keras", tmp_path)
