"""Send time through every room: simulated, finished, fitted, judged, exported, and served as batch would answer."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kserve import InferInput, InferRequest
from prometheus_client import REGISTRY

from components.declarations import declarations_of
from components.training_rows import build_training_rows
from features.events import read_events
from features.importing import import_files, prepare_import
from features.online.addresses import ViewVersion, open_store
from features.point_in_time import states_as_known
from features.profiles import profiles_as_of
from features.rows import TIME
from features.slots import OUTPUT_NAMES
from features.workspace import Workspace
from inference.artifact import read_artifact
from inference.predictor import Predictor
from inference.replies import Answer, Sender, reply_v1, reply_v2
from inference.requests import ScoreRequest
from inference.scoring import Scorer
from inference.tally import Tally
from models.evaluate import evaluate
from models.gate import decide
from models.report import render_report
from models.specs import load_spec
from models.train import NETWORK_FILE, train
from simulation import simulate
from transforms.export import export_model, load_finisher
from transforms.fit import fit_graph
from transforms.materialize import materialize
from transforms.plan import plan_graph

SPEC = load_spec("send_time")
CATALOG, VIEW = declarations_of("send_time")
USERS = 300


class Site(NamedTuple):
    """A workspace with a log, the folder of what was made from it, and the end of the log."""

    workspace: Workspace
    folder: Path
    known_at_us: int


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The steps of the pipeline one after another, as they are called there."""
    folder = tmp_path_factory.mktemp("send_time")
    made = simulate(users=USERS, days=105, seed=3, out_dir=folder / "out", sending_hours="biased", truth_users=0)
    workspace = Workspace(folder / "workspace")
    for path, mapping in ((made.events_path, "subscription"), (made.accounts_path, "subscription_accounts")):
        import_files(prepare_import(workspace, mapping, catalog=None, now_us=0), [path])
    facts = build_training_rows(workspace, "send_time", 0, folder / "rows.parquet")
    fit_graph(folder / "rows.parquet", CATALOG, VIEW, folder / "graph")
    train(SPEC, folder / "graph" / "features.parquet", folder / "network", seed=0)
    export_model(folder / "graph", folder / "network" / NETWORK_FILE, folder, slot_names=OUTPUT_NAMES)
    materialize(workspace, CATALOG, VIEW, as_of_us=facts["known_at_us"])
    return Site(workspace, folder, facts["known_at_us"])


def answer(site: Site, ids: list[str], now_us: int, **options: Any) -> tuple[Answer, Sender]:
    artifact = read_artifact(site.folder)
    store = site.workspace.online(VIEW.key)
    version = ViewVersion(VIEW.key, CATALOG.view_hash(VIEW), CATALOG.log_partitions)
    with open_store(str(store), version, readonly=True) as opened:
        request = ScoreRequest(ids, [now_us] * len(ids), {}, with_features=False, **options)
        (found,) = Scorer(artifact, Predictor(artifact), opened).score([request])
    return found, Sender("send_time", "1", "stable", artifact)


def batch_answers(site: Site, ids: list[str], now_us: int) -> dict[str, np.ndarray]:
    """The same users by the batch path, without store and server."""
    entity_ids, moments = pa.array(ids, pa.string()), np.full(len(ids), now_us)
    events = read_events(site.workspace, CATALOG, VIEW.entity, known_by_us=site.known_at_us, lag_s=VIEW.lag_s)
    known = np.full(len(ids), site.known_at_us)
    rows = pa.table({"now": pa.array(moments, TIME), "state": states_as_known(events, CATALOG, VIEW, entity_ids, known)})
    for profile in VIEW.profiles:
        values = profiles_as_of(site.workspace, CATALOG, profile, entity_ids, known)
        for name in values.column_names:
            rows = rows.append_column(name, values[name])
    return load_finisher(site.folder / "saved_model", plan_graph(CATALOG, VIEW))(rows)


def test_the_rows_hold_the_local_hour_of_every_open_that_followed(site: Site) -> None:
    rows = pq.read_table(site.folder / "rows.parquet")
    test = rows.filter(pa.compute.equal(rows["split"], "test"))
    assert sum(map(len, test["outcome_slots"].to_pylist())) > USERS
    first = next(row for row in test.to_pylist() if row["outcome_time"] is not None)
    events = read_events(site.workspace, CATALOG, "user").filter(pa.compute.field("entity_id") == first["entity_id"])
    opened = events.filter(pa.compute.field("event_time") == pa.scalar(first["outcome_time"], TIME)).to_pylist()[0]
    local = opened["event_time"].timestamp() + 60 * opened["utc_offset_minutes"]
    at = datetime.fromtimestamp(local, UTC)
    assert first["outcome_slots"][0] == at.weekday() * 24 + at.hour


def test_the_evaluation_the_gate_and_the_report_speak_of_hours(site: Site) -> None:
    path = site.folder / "evaluation.json"
    headline = evaluate(SPEC, site.folder / "graph" / "features.parquet", site.folder / "network", path, seed=0)
    found = json.loads(path.read_text())
    assert headline["uniform_nll"] == pytest.approx(np.log(168))
    assert headline["network_nll"] < headline["uniform_nll"] - 0.1
    assert found["kind"] == "slots"
    assert set(found["slices"]) > {"fewer than 5 opens", "west of UTC", "UTC and east of it", "cold (state unknown)"}
    decision = decide(found, SPEC.gate)
    assert any("global_histogram" in reason for reason in decision.reasons)
    html = render_report(SPEC, found, decision, "run-1", {"Run": {"name": "run-1"}})
    assert "NLL an action" in html
    assert all(title in html for title in ("Everybody&#x27;s week", "The shape of a day", "Importance by signal"))
    ranked = [entry["group"] for entry in found["importance"]["groups"]]
    assert ranked[0] == "opens_by_local_hour"
    assert set(ranked) == {"opens_by_local_hour", "sends_by_local_hour", "country"}
    assert sum(found["week"]) == pytest.approx(1, abs=1e-4)
    assert "effective sample size" in html
    worse = replace(SPEC.gate, must_beat=("user_histogram",), slice_margin=0.0)
    gains = found["gains"]["user_histogram"]["nll"] | {"low": -0.2, "value": -0.1, "high": -0.05}
    refused = decide(found | {"gains": found["gains"] | {"user_histogram": {"nll": gains}}}, worse)
    assert not refused.blessed
    assert any("NLL an action is worse than user_histogram" in reason for reason in refused.reasons)


def test_served_slots_are_those_of_the_batch_path_one_by_one_and_together(site: Site) -> None:
    rows = pq.read_table(site.folder / "rows.parquet", columns=["entity_id", "split"])
    ids = [*rows.filter(pa.compute.equal(rows["split"], "test"))["entity_id"].to_pylist()[:7], "nobody"]
    batch = batch_answers(site, ids, site.known_at_us)
    together, sender = answer(site, ids, site.known_at_us)
    assert together.scores.slots == pytest.approx(batch["slots"], rel=1e-4, abs=1e-6)
    assert together.scores.score == pytest.approx(batch["score"], abs=1e-6)
    assert together.inputs.cold == [False] * 7 + [True]
    assert together.inputs.degraded == [None] * 7 + ["missing_time_zone"]
    for number, name in enumerate(ids[:2]):
        alone, _ = answer(site, [name], site.known_at_us)
        assert alone.scores.slots[0] == pytest.approx(batch["slots"][number], rel=1e-4, abs=1e-6)
    first, last = (reply_v1(together, sender)["predictions"][place] for place in (0, -1))
    assert (first["degraded"], last["degraded"]) == (None, "missing_time_zone")
    assert first["slots"]["effective_sample_size"] > 0
    assert sum(first["slots"]["probability"]) == pytest.approx(1, abs=1e-4)
    assert last["slots"]["effective_sample_size"] == 0
    assert last["slots"]["reason"] in ("segment", "everyone")
    best = first["slots"]["best"][0]
    assert first["slots"]["probability"][best["slot"]] == pytest.approx(max(first["slots"]["probability"]), rel=1e-4)
    starts_us = datetime.fromisoformat(best["starts_at"]).timestamp() * 1e6
    assert starts_us == pytest.approx(site.known_at_us + best["wait_s"] * 1e6, abs=1e6)


def test_v2_carries_the_same_numbers_by_name(site: Site) -> None:
    found, sender = answer(site, ["nobody"], site.known_at_us)
    request = InferRequest("send_time", [InferInput("entity_id", [1], "BYTES", ["nobody"])])
    (tensor,) = (output for output in reply_v2(found, sender, request).outputs if output.name == "slots")
    assert tensor.shape == [1, len(OUTPUT_NAMES)]
    assert tensor.parameters["names"].split(",") == list(OUTPUT_NAMES)
    assert tensor.as_numpy()[0].tolist() == found.scores.slots[0].tolist()


def test_hours_that_count_as_utc_for_want_of_a_zone_are_said_in_v2_and_counted(site: Site) -> None:
    found, sender = answer(site, ["nobody", "noone"], site.known_at_us)
    request = InferRequest("send_time", [InferInput("entity_id", [2], "BYTES", ["nobody", "noone"])])
    (said,) = (output for output in reply_v2(found, sender, request).outputs if output.name == "degraded")
    assert said.as_numpy().tolist() == ["missing_time_zone"] * 2
    labels = {"model": "send_time", "revision": "of-this-test"}
    Tally(*labels.values()).answer(found)
    assert REGISTRY.get_sample_value("plumb_degraded_entities_total", labels | {"reason": "missing_time_zone"}) == 2


@pytest.mark.parametrize(
    ("now", "change_in_s", "change_s"),
    [("2025-03-29T23:00:00", 7_200, 3_600), ("2025-10-25T22:00:00", 3 * 3_600, -3_600)],
)
def test_the_graph_sees_the_clock_change_in_berlin(site: Site, now: str, change_in_s: int, change_s: int) -> None:
    """Both are Sunday 00:00 local; the clock is put forward at 01:00 UTC, and back at 01:00 UTC."""
    now_us = int(datetime.fromisoformat(now).replace(tzinfo=UTC).timestamp()) * 1_000_000
    plan = plan_graph(CATALOG, VIEW)
    rows = pa.table({"now": pa.array([now_us], TIME), "state": pa.array([b""], pa.large_binary()),
                     "time_zone": pa.array(["Europe/Berlin"])})  # fmt: skip
    outputs = load_finisher(site.folder / "saved_model", plan)(rows)
    finished = dict(zip(plan.finished_names, outputs["finished"][0].tolist(), strict=True))
    assert (finished["local_week_s"], finished["clock_change_in_s"]) == (6 * 86_400, change_in_s)
    assert finished["clock_change_s"] == change_s
    facts = dict(zip(OUTPUT_NAMES, outputs["slots"][0].tolist(), strict=True))
    assert facts["now"] == 144
