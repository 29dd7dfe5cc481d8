"""``plumb events`` as an operator meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from features.errors import MappingError
from plumb.events import app
from plumb.settings import Settings

ROWS = """event_ts,src_user,dst_user,event_type
2015-01-01 00:00:00,1,2,answer_to_question
2015-01-01 00:01:00,1,,answer_to_question
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "rows.csv").write_text(ROWS)
    return Settings(workspace_root=tmp_path / "workspace")


def invoke(settings: Settings, *arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), obj=settings, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_an_import_reports_events_bad_rows_by_reason_and_nothing_the_second_time(settings: Settings, tmp_path: Path) -> None:
    command = ("import", str(tmp_path / "rows.csv"), "--mapping", "mathoverflow_events")
    table = invoke(settings, *command)
    assert "received_answer_to_question" in table
    assert "entity_id is missing" in table
    report = json.loads(invoke(settings, *command, "--json"))
    assert (report["files"], report["files_already_there"], report["events"]) == (0, 1, {})


def test_stats_count_events_by_type_and_dead_letters_by_reason(settings: Settings, tmp_path: Path) -> None:
    assert "No events" in invoke(settings, "stats")
    invoke(settings, "import", str(tmp_path / "rows.csv"), "--mapping", "mathoverflow_events")
    (log,) = json.loads(invoke(settings, "stats", "--json"))
    assert log["events"] == 3
    assert log["event_types"] == {"answer_to_question": 2, "received_answer_to_question": 1}
    assert log["dead_letters"] == {"entity_id is missing": 1}
    assert (log["first_event_time"], log["last_ingest_time"]) == ("2015-01-01T00:00:00.000000Z", "2015-01-01T00:02:00.000000Z")
    assert sum(log["partitions"].values()) == 3
    assert "answer_to_question" in invoke(settings, "stats")


def test_a_mapping_that_is_not_there_writes_nothing(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(MappingError, match="^mapping is not there: 'nowhere'"):
        invoke(settings, "import", str(tmp_path / "rows.csv"), "--mapping", "nowhere")
    assert not settings.workspace_root.exists()


def test_simulated_events_and_accounts_can_be_imported_by_the_shipped_mappings(settings: Settings, tmp_path: Path) -> None:
    out = tmp_path / "simulated"
    summary = json.loads(
        invoke(settings, "simulate", "--users", "40", "--days", "30", "--seed", "7", "--out", str(out), "--json")
    )
    report = json.loads(invoke(settings, "import", str(out / "events.parquet"), "--mapping", "subscription", "--json"))
    assert set(report["bad"]) <= {"event_time is more than 300 s after ingest_time"}
    assert sum(report["events"].values()) + sum(report["bad"].values()) == summary["rows"]
    accounts = json.loads(
        invoke(settings, "import", str(out / "accounts.parquet"), "--mapping", "subscription_accounts", "--json")
    )
    assert accounts["profiles"]["account"] >= 40
    assert accounts["bad"] == {}


def test_the_kind_of_drift_and_the_sending_hours_are_chosen_on_the_command_line(settings: Settings, tmp_path: Path) -> None:
    size = ("--users", "30", "--days", "4", "--seed", "7", "--out", str(tmp_path))
    invoke(settings, "simulate", *size, "--drift-day", "2", "--drift-kind", "conversion", "--sending-hours", "biased")
    scenario = json.loads((tmp_path / "truth.json").read_text())["scenario"]
    assert (scenario["drift_day"], scenario["drift_kind"], scenario["sending_hours"]) == (2, "conversion", "biased")
