"""The sample that drift is measured from is what the exported model itself makes of its training rows."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from components import drift_reference
from components.drift_reference import divide_importance, write_drift_reference
from features import layout
from features.catalogs import load_catalog
from features.reference import REFERENCE_FILE, read_reference
from features.rows import training_schema
from transforms.graph import finish, input_specs
from transforms.plan import plan_graph

CATALOG = load_catalog("subscription")
VIEW = CATALOG.view("subscriber")
PLAN = plan_graph(CATALOG, VIEW)
NOON_US = 1_740_830_400_000_000
NOBODY = layout.header_key(0).to_bytes(8, "little") + bytes(8)
"""The state of a user of whom no tile is left: every count 0, every elapsed time missing."""


class Exported(tf.Module):
    """Finished features and masks of the real window graph; the score is the user's UTC offset over 1,000."""

    @tf.function(input_signature=[input_specs(PLAN)])
    def features(self, inputs):
        outputs = finish(PLAN, inputs)
        score = tf.cast(inputs["utc_offset_minutes"], tf.float32) / 1_000
        return {"finished": outputs["finished"], "transformed": outputs["missing"], "score": score}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    module = Exported()
    tf.saved_model.save(module, str(folder / "saved_model"), signatures={"features": module.features})
    record = {
        "finished_names": PLAN.finished_names,
        "transformed_names": [f"{name}_missing" for name in PLAN.optional_names],
        "profile_fields": [{"name": e.name, "dtype": e.dtype, "default": e.default} for e in CATALOG.profile_fields_of(VIEW)],
        "request_fields": [{"name": e.name, "dtype": e.dtype, "default": e.default} for e in VIEW.request],
    }
    (folder / "model.json").write_text(json.dumps(record))
    rows = [
        row("a", "train", offset=60, plan="pro", matured=True, label=1),
        row("b", "test", offset=120, plan=None, matured=True, label=0),
        row("c", "censored", offset=180, plan="pro", matured=False, label=None),
        row("d", "train", offset=240, plan="pro", matured=True, label=1, state=b""),
        row("e", "cold", offset=300, plan="pro", matured=True, label=1),
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=training_schema(CATALOG, VIEW)), folder / "rows.parquet")
    evaluation = {"importance": {"groups": [{"group": "plan", "log_loss": {"value": 0.5}}]}}
    write_drift_reference("churn", folder / "rows.parquet", folder, evaluation, seed=0)
    return folder


def row(entity, split, *, offset, plan, matured, label, state=NOBODY):
    nothing = {field.name: None for field in training_schema(CATALOG, VIEW)}
    known = {"entity_id": entity, "now": NOON_US, "state": state, "split": split, "matured": matured, "label": label}
    fields = {"utc_offset_minutes": offset, "plan": plan, "country": "DE", "platform": VIEW.request[0].default}
    return nothing | known | fields | {"observed_until": NOON_US}


def test_rows_of_known_users_are_kept_with_their_scores_and_matured_labels(folder: Path) -> None:
    table, _ = read_reference(folder / REFERENCE_FILE)
    # d has no state and e is a copy for unknown users: serving calls such rows cold, and drift leaves them out.
    assert table["score"].to_pylist() == pytest.approx([0.06, 0.12, 0.18])
    assert table["label"].to_pylist() == [1, 0, None]


def test_matured_labels_of_all_known_users_are_counted(folder: Path) -> None:
    _, facts = read_reference(folder / REFERENCE_FILE)
    assert (facts.labels, facts.positives) == (2, 1)


def test_rows_are_the_newest_part_but_enough_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift_reference, "LEAST_ROWS", 2)
    monkeypatch.setattr(drift_reference, "NEWEST_PART", 3)
    for rows, newest in ((9, [9, 8, 7]), (5, [5, 4]), (1, [1])):
        now = pa.array(range(1, rows + 1))
        assert sorted(drift_reference._take_newest(pa.table({"now": now}))["now"].to_pylist(), reverse=True) == newest


def test_features_are_named_and_what_the_graph_calls_missing_is_null(folder: Path) -> None:
    table, facts = read_reference(folder / REFERENCE_FILE)
    assert table["feature:utc_offset_minutes"].to_pylist() == [60, 120, 180]
    assert table["feature:since_last_session_s"].to_pylist() == [None] * 3
    assert table["feature:sessions_count_7d"].to_pylist() == [0] * 3
    default = next(entry.default for entry in CATALOG.profile_fields_of(VIEW) if entry.name == "plan")
    assert table["feature:plan"].to_pylist() == ["pro", default, "pro"]
    assert "feature:local_hour" not in table.column_names
    # No event says what a caller would have sent, so every request would differ from the default in all rows.
    assert facts.unobserved == ("platform",)
    assert "feature:platform" not in table.column_names


def test_rows_name_no_user(folder: Path) -> None:
    assert not {"entity_id", "state"} & set(pq.read_schema(folder / REFERENCE_FILE).names)


def test_a_groups_importance_is_divided_among_its_features() -> None:
    evaluation = {
        "importance": {
            "groups": [{"group": "orders", "log_loss": {"value": 0.3}}, {"group": "noise", "log_loss": {"value": -0.1}}]
        }
    }
    groups = {"orders_1d": "orders", "orders_7d": "orders", "noise": "noise", "plan": "plan"}
    shares = divide_importance(evaluation, groups)
    assert shares == pytest.approx({"orders_1d": 0.15, "orders_7d": 0.15, "noise": 0.0, "plan": 0.0})
    assert divide_importance({"importance": None}, {"a": "a"}) == {"a": 0.0}
