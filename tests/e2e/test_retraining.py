"""A training run that drift opens and that really learns, in a process of its own: what is known of it meanwhile and after."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from planted.shop import plant_shop
from typer.testing import CliRunner

from features.catalogs import load_catalog
from features.events import read_events
from features.layout import US_PER_S
from models.versions import list_versions
from monitoring.retraining import list_retrainings
from monitoring.verdict_log import read_standing, record_verdicts
from monitoring.verdicts import Outcome, Severity, Verdict
from pipelines.records import list_records
from plumb import app
from plumb.retraining import Course, Retrainer
from plumb.settings import Settings

MODEL = "churn_retail"
LONGEST_S = 900
TEXT = "1 of 9 features drifted: orders_count_30d (effect 0.41)"


def test_a_run_that_drift_opens_learns_from_the_log_and_says_how_it_ended(tmp_path: Path) -> None:
    settings, lines = Settings(tmp_path), list[str]()
    workspace = settings.workspace
    plant_shop(workspace, "value")
    known = read_events(workspace, load_catalog("retail"), "customer", columns=["ingest_time"])["ingest_time"]
    at_us = pc.max(known.cast(pa.int64())).as_py() + US_PER_S
    found = Verdict("drift.training.features", f"{MODEL}/stable", Outcome.FAIL, Severity.PAGE, {"model": MODEL}, TEXT, at_us)
    record_verdicts(workspace, [found], valid_for_s=30 * 86_400, now_us=at_us)

    retrainer, begun_s, now_us = Retrainer(settings, Course(), lines.append), time.monotonic(), at_us
    retrainer.look(now_us)
    assert [each.status for each in list_retrainings(workspace)] == ["under way"]
    while (done := list_retrainings(workspace)[0]).finished_at_us is None:
        assert time.monotonic() < begun_s + LONGEST_S, lines
        time.sleep(1)
        now_us += 10 * US_PER_S
        retrainer.look(now_us)

    (record,) = list_records(workspace)
    assert (record.run_id, record.status, record.registered_version) == (done.run_id, "succeeded", 1), record.error
    assert (record.parameters["known_at_us"], record.parameters["may_promote"]) == (at_us, False)
    assert [each.version for each in list_versions(workspace, MODEL)] == [1]
    assert (done.status, done.result) == ("succeeded", record.reason)
    (said,) = read_standing(workspace, subjects=["run:training"], now_us=now_us)
    assert (said.verdict.monitor, said.verdict.outcome) == (f"retraining.{MODEL}", Outcome.PASS)
    # The drift still stands, and opens no second run.
    retrainer.look(now_us + 10 * US_PER_S)
    assert len(list_retrainings(workspace)) == 1

    shown = CliRunner().invoke(app.root, ["--workspace", str(tmp_path), "models", "retrainings", "--json"])
    (entry,) = json.loads(shown.stdout)
    assert (entry["model"], entry["status"], entry["run_id"]) == (MODEL, "succeeded", record.run_id)
