"""The champion on a new run's test rows: the right network, the right rows, and a reason where it cannot be compared.

Its graph is simple enough to check by eye: r records of state give the one transformed feature r / 64. The served network
is that feature; the evaluated one is 1 - r / 64.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from components.champion import read_test_rows, rebuild_inputs, score_champion
from components.training_rows import build_training_rows
from features import layout
from features.catalogs import load_catalog
from features.events import append_events
from features.layout import DAY_S, HOUR_S, US_PER_S
from features.profiles import append_profiles
from features.rows import TIME, profile_schema
from features.workspace import Workspace
from models.evaluation import Champion
from models.lineage import Lineage, jsonable
from models.specs import load_spec
from models.train import EVALUATED_FILE
from models.versions import NewVersion, register

RETAIL = load_catalog("retail")
VIEW = RETAIL.view("customer")
SPEC = load_spec("churn_retail")
START_US = int(dt.datetime(2024, 1, 1, tzinfo=dt.UTC).timestamp()) * US_PER_S
DAY_US = DAY_S * US_PER_S


class Tiny(tf.Module):
    """The graph and served network that this module's docstring describes."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="state"),
            tf.TensorSpec([None], tf.int64, name="now"),
            tf.TensorSpec([None], tf.string, name="country"),
        ]
    )
    def features(self, state: tf.Tensor, now: tf.Tensor, country: tf.Tensor) -> dict[str, tf.Tensor]:
        unused = tf.cast(tf.strings.length(country), tf.int64) * now * 0
        records = tf.cast(tf.strings.length(state) // layout.RECORD_BYTES, tf.int64) + unused
        transformed = tf.cast(records, tf.float32)[:, None] / 64
        return {"transformed": transformed, "score": transformed[:, 0]}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts")
    module = Tiny()
    tf.saved_model.save(module, str(folder / "saved_model"), signatures={"features": module.features})
    inputs = keras.Input((1,))
    evaluated = keras.layers.Dense(1)
    network = keras.Model(inputs, evaluated(inputs))
    evaluated.set_weights([np.array([[-1.0]], np.float32), np.array([1.0], np.float32)])
    network.save(folder / EVALUATED_FILE)
    return folder


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path]:
    """Customer number k orders every 20 + k days for a year; the training rows of a run as known on its last day."""
    rows = [
        (f"order-{customer}-{day}", f"c{customer}", START_US + day * DAY_US)
        for customer in range(60)
        for day in range(customer % 20, 360, 20 + customer)
    ]
    event_id, entity_id, event_us = zip(*rows, strict=True)
    times = pa.array(event_us, pa.int64())
    table = pa.table(
        {
            "event_id": pa.array(event_id), "entity_id": pa.array(entity_id), "event_type": pa.repeat("order", len(rows)),
            "event_time": times.cast(TIME), "ingest_time": pc.add(times, HOUR_S * US_PER_S).cast(TIME),
            "region": pa.repeat("eu", len(rows)), "amount_cents": pa.repeat(100, len(rows)),
        }
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("history")
    workspace = Workspace(folder / "workspace")
    append_events(workspace, RETAIL, "customer", table, source="orders")
    at = pa.array([START_US]).cast(TIME)
    address = pa.table([pa.array(["c1"]), at, at, pa.array(["France"])], schema=profile_schema(RETAIL, "address"))
    append_profiles(workspace, RETAIL, "address", address, source="addresses")
    build_training_rows(workspace, "churn_retail", 0, folder / "rows.parquet")
    return workspace, folder / "rows.parquet"


@pytest.fixture
def run(history: tuple[Workspace, Path], tmp_path: Path) -> tuple[Workspace, Path]:
    """The same log, without versions."""
    workspace = Workspace(tmp_path / "workspace")
    workspace.root.mkdir()
    for name in ("events", "profiles"):
        (workspace.root / name).symlink_to(history[0].root / name)
    return workspace, history[1]


def begin_of_test(rows_path: Path) -> int:
    return int(pc.min(read_test_rows(rows_path)["now"].cast(pa.int64())).as_py())


def crown(workspace: Workspace, artifacts: Path, *, known_at_us: int, began_us: int, **changes: Any) -> None:
    """Register a champion that knew outcomes up to ``known_at_us`` and whose own test began at ``began_us``."""
    lineage = Lineage(
        "retail", {}, 0, known_at_us, began_us, {}, {}, jsonable(SPEC.label), {}, {}, {}, {}, 0, parent_champion=None
    )  # fmt: skip
    new = NewVersion(
        "churn_retail", 1, "run-1", True, "beats recency", VIEW.key, RETAIL.view_hash(VIEW), "g", {}, lineage=lineage
    )
    register(workspace, replace(new, **changes), artifacts)


def expected_records(rows_path: Path) -> np.ndarray:
    rows = pq.read_table(rows_path)
    test = rows.filter(pc.and_(pc.equal(rows["split"], "test"), rows["matured"]))
    return np.array([len(state) // layout.RECORD_BYTES for state in test["state"].to_pylist()])


def score(run: tuple[Workspace, Path]) -> Champion:
    scored = score_champion(run[0], "churn_retail", run[1])
    assert scored is not None
    return scored


def test_without_a_champion_there_is_nothing_to_compare(run: tuple[Workspace, Path]) -> None:
    assert score_champion(run[0], "churn_retail", run[1]) is None


def test_a_champion_from_before_the_test_is_asked_by_its_served_network(run: tuple[Workspace, Path], artifacts: Path) -> None:
    begins = begin_of_test(run[1])
    crown(run[0], artifacts, known_at_us=begins, began_us=begins - 90 * DAY_US)
    scored = score(run)
    records = expected_records(run[1])
    assert len(set(records.tolist())) > 1
    np.testing.assert_array_equal(scored.scores, records / 64)
    assert scored.about == {
        "version": 1, "network": "served", "overlaps": False, "view": "customer@1", "rebuilt": False, "run_id": "run-1",
        "note": "its served network, trained before the test rows begin",
    }  # fmt: skip


def test_a_champion_that_knows_test_outcomes_is_asked_by_its_evaluated_network(
    run: tuple[Workspace, Path], artifacts: Path
) -> None:
    begins = begin_of_test(run[1])
    crown(run[0], artifacts, known_at_us=begins + 1, began_us=begins)
    scored = score(run)
    np.testing.assert_allclose(scored.scores, 1 - expected_records(run[1]) / 64, rtol=1e-6)
    assert (scored.about["network"], scored.about["overlaps"]) == ("evaluated", False)
    until = np.datetime64(begins + 1, "us").astype("datetime64[s]")
    assert scored.about["note"] == f"its evaluated network, because its served one has learned from outcomes up to {until}Z"


def test_an_overlap_that_cannot_be_avoided_is_said(run: tuple[Workspace, Path], artifacts: Path) -> None:
    begins = begin_of_test(run[1])
    crown(run[0], artifacts, known_at_us=begins + 9, began_us=begins + 1)
    scored = score(run)
    assert (scored.about["network"], scored.about["overlaps"]) == ("evaluated", True)
    assert "may know outcomes of the test rows in its favour" in scored.about["note"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lineage": None}, "it was registered before lineage was kept, so nobody knows what it has learned from"),
        ({"view_hash": "changed since"}, "its view customer@1 is no longer declared as it was"),
        ({"view_key": "customer@0"}, "its view customer@0 is no longer declared as it was"),
        (
            {"lineage": Lineage("retail", {}, 0, 0, 0, {}, {}, {"horizon_s": 1}, {}, {}, {}, {}, 0, parent_champion=None)},
            "it predicts another label than the spec names now",
        ),
    ],
)
def test_a_champion_that_cannot_be_compared_has_no_scores_but_a_reason(
    run: tuple[Workspace, Path], artifacts: Path, changes: dict[str, Any], reason: str
) -> None:
    crown(run[0], artifacts, known_at_us=0, began_us=0, **changes)
    scored = score(run)
    assert scored.scores is None
    assert scored.about == {"version": 1, "network": None, "note": f"cannot be compared: {reason}"}


def test_inputs_that_are_rebuilt_from_the_log_are_those_that_training_saw(run: tuple[Workspace, Path]) -> None:
    rows = read_test_rows(run[1])
    rebuilt = rebuild_inputs(run[0], RETAIL, VIEW, rows.select(["entity_id", "now"]))
    assert rebuilt["state"].to_pylist() == rows["state"].to_pylist()
    assert rebuilt["country"].to_pylist() == rows["country"].to_pylist()
    assert "France" in rebuilt["country"].to_pylist()


def test_a_champion_of_the_same_label_is_compared_whatever_reports_show_besides(
    run: tuple[Workspace, Path], artifacts: Path
) -> None:
    older = {name: value for name, value in jsonable(SPEC.label).items() if name not in ("closing", "exclusion")}
    label = {**older, "earlier_horizons_s": [30 * DAY_S]}
    lineage = Lineage("retail", {}, 0, 0, 0, {}, {}, label, {}, {}, {}, {}, 0, parent_champion=None)
    crown(run[0], artifacts, known_at_us=0, began_us=0, lineage=lineage)
    assert score(run).scores is not None
