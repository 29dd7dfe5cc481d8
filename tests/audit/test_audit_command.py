"""The audit as operators and schedules meet it: a command with an exit code, and a compiled pipeline's steps."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from audit.site import CATALOG, FILL_LAG_US, MODEL, PARTS, Site, make_site, run
from parity.adversarial import DAY_US, START_US

from features.profiles import append_profiles
from features.rows import SKEW, profile_schema
from features.workspace import Workspace
from pipelines.compile import pipeline_hash, read_compiled
from pipelines.errors import StepFailed
from pipelines.records import RunRecord
from pipelines.run import Clocks, run_pipeline

PLUMB = [sys.executable, "-c", "from plumb.app import main; main()"]


@pytest.fixture(scope="module")
def honest(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    site, version = make_site(tmp_path_factory.mktemp("honest"), artifacts)
    run(site, version)
    return site


@pytest.fixture(scope="module")
def skewed(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """After its rows were served, somebody adds profile values that claim to have been known before."""
    site, version = make_site(tmp_path_factory.mktemp("skewed"), artifacts)
    run(site, version)
    moment = pa.scalar(START_US - DAY_US - FILL_LAG_US, pa.int64()).cast(pa.timestamp("us", tz="UTC")).as_py()
    rows = [
        {"entity_id": f"user-{number}", "valid_from": moment, "created_time": moment, "plan": "backdated"}
        for number in range(1_000)
    ]
    table = pa.Table.from_pylist(rows, schema=profile_schema(CATALOG, "account"))
    append_profiles(site.workspace, CATALOG, "account", table, source="backdated")
    return site


def plumb(workspace: Workspace, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*PLUMB, "--workspace", str(workspace.root), *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env={**os.environ, "COLUMNS": "100"}
    )


def test_the_command_shows_one_table_a_question_and_exits_with_0(honest: Site, tmp_path: Path) -> None:
    done = plumb(honest.workspace, "audit", "skew", "--model", MODEL, "--out", str(tmp_path / "skew.parquet"))
    assert done.returncode == 0, done.stderr
    assert f"{PARTS * honest.rows_a_part} of them whole" in done.stdout
    assert "against training at the same time" in done.stdout
    rows = pq.read_table(tmp_path / "skew.parquet")
    assert rows.schema.equals(SKEW)
    training = rows.filter(pa.array([name == "training" for name in rows["comparison"].to_pylist()]))
    # Training sees an event only a minute after serving may have, so what came last differs.
    assert 0 < sum(training["differing"].to_pylist()) < sum(training["values"].to_pylist())


def test_a_mismatch_is_exit_code_1_and_named(skewed: Site) -> None:
    done = plumb(skewed.workspace, "audit", "skew", "--model", MODEL, "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert (found["first"]["kind"], found["first"]["signal"]) == ("profile", "plan")
    assert found["mismatched"]["state"] == 0
    shown = plumb(skewed.workspace, "audit", "skew", "--model", MODEL)
    assert "profile of plan" in shown.stdout


def test_a_model_that_served_nothing_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = plumb(Workspace(tmp_path), "audit", "skew", "--model", "nothing")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no predictions to audit" in done.stderr


def run_audit(site: Site, folder: Path) -> RunRecord:
    text = read_compiled("audit")
    parameters = {"model": MODEL, "workspace": str(site.workspace.root)}
    record = RunRecord("20260301T000000Z-churn", "audit", MODEL, "2026-03-01T00:00:00Z", parameters, {}, pipeline_hash(text))
    folder.mkdir()
    ticks = itertools.count()
    clocks = Clocks(now_text=lambda: "2026-03-01T01:00:00Z", seconds=lambda: float(next(ticks)))
    return run_pipeline(text, record, folder, clocks, lambda steps: None)


@pytest.mark.filterwarnings("ignore:Task .* have no effect in the current local runner:UserWarning")
def test_the_compiled_pipeline_succeeds_where_nothing_differs(honest: Site, tmp_path: Path) -> None:
    record = run_audit(honest, tmp_path / "run")
    assert record.status == "succeeded"
    assert [step.name for step in record.steps] == ["skew-audit", "skew-gate"]
    assert json.loads(Path(record.artifacts["skew-audit/audit"]).read_text())["mismatches"] == 0
    assert pq.read_table(record.artifacts["skew-audit/differences"]).schema.equals(SKEW)


@pytest.mark.filterwarnings("ignore:Task .* have no effect in the current local runner:UserWarning")
def test_the_compiled_pipeline_fails_with_the_signals_name(skewed: Site, tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="served rows differ from the batch path.*profile of plan"):
        run_audit(skewed, tmp_path / "run")
