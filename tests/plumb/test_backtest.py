"""The command line from a log to a served and backtested model, on a shop whose customers are easy to tell apart.

They arrive over time. Half of them order every 50 to 70 days for ever. The others order every 4 to 8 days until they leave for
good, after 100 days on average. Someone who
has been silent for three weeks is normal if he is of the first kind and gone if he is of the second: recency alone cannot
tell, recency against the customer's own rhythm can.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from features.catalogs import load_catalog
from features.events import append_events
from features.layout import DAY_S, HOUR_S, US_PER_S
from features.rows import TIME
from features.workspace import Workspace

ROOT = Path(__file__).parents[2]
RETAIL = load_catalog("retail")
START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
DAYS = 700
CUTOFF_DAY = 600
CUSTOMERS = 600
CUTOFF = (START + dt.timedelta(days=CUTOFF_DAY)).isoformat()


def order_days(chance: np.random.Generator, *, steady: bool) -> np.ndarray:
    """Days, with fractions, on which one customer orders."""
    low, high = (50, 70) if steady else (4, 8)
    first_day = chance.uniform(0, DAYS)
    days = first_day + np.concatenate(([0.0], np.cumsum(chance.uniform(low, high, DAYS // low + 1))))
    last_day = DAYS if steady else min(DAYS, first_day + chance.exponential(100))
    return days[days < last_day]


def orders() -> pa.Table:
    chance = np.random.default_rng(5)
    rows = [(f"c{number}", day) for number in range(CUSTOMERS) for day in order_days(chance, steady=number % 2 == 0)]
    entity_id, days = zip(*rows, strict=True)
    start_us = int(START.timestamp()) * US_PER_S
    times = pa.array(start_us + (np.array(days) * DAY_S).astype(np.int64) * US_PER_S)
    return pa.table(
        {
            "event_id": pa.array([f"order-{number}" for number in range(len(rows))]), "entity_id": pa.array(entity_id),
            "event_type": pa.repeat("order", len(rows)), "event_time": times.cast(TIME),
            "ingest_time": pc.add(times, HOUR_S * US_PER_S).cast(TIME), "region": pa.repeat("eu", len(rows)),
            "amount_cents": pa.repeat(2_500, len(rows)),
        }
    )  # fmt: skip


def plumb(workspace: Workspace, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from plumb.app import main; main()", "--workspace", str(workspace.root), *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = Workspace(tmp_path_factory.mktemp("shop"))
    append_events(made, RETAIL, "customer", orders(), source="orders")
    return made


@pytest.fixture(scope="module")
def finished(workspace: Workspace) -> subprocess.CompletedProcess[str]:
    """A backtest: trains by the compiled pipeline as of the cutoff, serves, scores everyone over HTTP, stops."""
    return plumb(workspace, "models", "backtest", "churn_retail", "--cutoff", CUTOFF)


@pytest.fixture(scope="module")
def past(workspace: Workspace, finished: subprocess.CompletedProcess[str]) -> Workspace:
    """Where the backtest keeps its run and its version."""
    assert finished.returncode == 0, finished.stderr[-3_000:]
    (folder,) = (workspace.root / "backtests").iterdir()
    return Workspace(folder)


@pytest.fixture(scope="module")
def record(past: Workspace) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(plumb(past, "runs", "show", "latest", "--json").stdout)
    return content


def test_the_served_model_is_compared_with_every_baseline(
    past: Workspace, record: dict[str, Any], finished: subprocess.CompletedProcess[str]
) -> None:
    shown = " ".join(finished.stdout.split())
    assert all(words in shown for words in ("scored", "served model", "prior", "recency", "lightgbm"))
    evaluation = json.loads((past.runs() / record["run_id"] / "backtest.json").read_text())
    auc = {name: figures["auc"]["value"] for name, figures in evaluation["candidates"].items()}
    assert auc["network"] > 0.98 > auc["recency"] > auc["prior"] == 0.5
    assert evaluation["gains"]["recency"]["auc"]["low"] > 0
    # Everyone who has arrived by the cutoff, known an hour after the first order.
    table = orders()
    known = pc.less_equal(table["ingest_time"].cast(pa.int64()), record["parameters"]["known_at_us"] - HOUR_S * US_PER_S)
    assert evaluation["entities"] == len(table.filter(known)["entity_id"].unique())


def test_the_run_record_names_code_data_steps_and_what_was_registered(past: Workspace, record: dict[str, Any]) -> None:
    assert (record["status"], record["decision"], record["registered_version"]) == ("succeeded", "blessed", 1)
    assert [step["status"] for step in record["steps"]] == ["succeeded"] * 7
    assert all(step["seconds"] > 0 for step in record["steps"])
    assert record["parameters"]["known_at_us"] == int((START.timestamp() + CUTOFF_DAY * DAY_S) * US_PER_S)
    assert record["data"]["view_hash"] == RETAIL.view_hash(RETAIL.view("customer"))
    assert record["data"]["events/customer"] == 1
    assert set(record["code"]) == {"package", "git_sha", "git_dirty"}
    assert all(Path(path).exists() for path in record["artifacts"].values())
    assert (past.model("churn_retail", 1) / "saved_model" / "saved_model.pb").is_file()


def test_nothing_that_became_known_after_the_cutoff_was_read(record: dict[str, Any]) -> None:
    known = orders()["ingest_time"].cast(pa.int64()).to_numpy() <= record["parameters"]["known_at_us"]
    assert record["data"]["events"] == known.sum() < len(known)


def test_a_backtest_leaves_runs_versions_and_store_of_its_workspace_alone(workspace: Workspace, past: Workspace) -> None:
    assert past.model("churn_retail", 1).is_dir()
    assert not any((workspace.root / name).exists() for name in ("runs", "models", "online", "control.db"))


def test_runs_are_listed_and_shown_as_tables(past: Workspace, record: dict[str, Any]) -> None:
    listed = plumb(past, "runs", "list").stdout
    assert record["run_id"] in listed
    assert "succeeded" in listed
    shown = plumb(past, "runs", "show", record["run_id"]).stdout
    assert all(word in shown for word in ("blessed", "AUC", "log loss", "calibration", "recency", "lightgbm", "fit-graph"))
    assert [entry["run_id"] for entry in json.loads(plumb(past, "runs", "list", "--json").stdout)] == [record["run_id"]]


def test_a_cutoff_whose_outcomes_are_not_known_yet_is_refused_before_anything_is_trained(
    workspace: Workspace, record: dict[str, Any]
) -> None:
    late = (START + dt.timedelta(days=DAYS - 30)).date().isoformat()
    refused = plumb(workspace, "models", "backtest", "churn_retail", "--cutoff", late)
    assert refused.returncode == 2
    assert refused.stderr.strip().splitlines()[-1].startswith("plumb: outcomes are not known: model 'churn_retail'")
    assert len(list((workspace.root / "backtests").iterdir())) == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("pipelines", "run", "chrun"), "unknown model: 'chrun'; expected one of churn"),
        (("pipelines", "run", "churn"), "event log is empty:"),
        (("pipelines", "run", "churn_retail", "--known-at", "2024-03-01T00:00:00"), "time zone is missing"),
        (("pipelines", "run", "churn_retail", "--known-at", "March"), "time cannot be read: 'March'"),
        (("runs", "show", "nothing"), "run is not known: nothing"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(workspace: Workspace, words: tuple[str, ...], line: str) -> None:
    refused = plumb(workspace, *words)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"plumb: {line}")
    assert refused.stderr.count("\n") == 1


def test_a_step_that_fails_is_named_and_the_record_says_failed(workspace: Workspace, record: dict[str, Any]) -> None:
    refused = plumb(workspace, "pipelines", "run", "churn_retail", "--known-at", "2024-03-01")
    assert refused.returncode == 2
    line = refused.stderr.strip().splitlines()[-1]
    assert "pipeline step failed: training-rows of run" in line
    assert "TrainingError: history is too short" in line
    failed = json.loads(plumb(workspace, "runs", "show", "latest", "--json").stdout)
    assert (failed["status"], failed["registered_version"]) == ("failed", None)
    assert [step["status"] for step in failed["steps"]] == ["failed"] + ["skipped"] * 6
