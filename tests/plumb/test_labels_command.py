"""``plumb models labels``: bringing labels in and showing how far they are."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from labels.predicted import Asked, events, log_predictions
from typer.testing import CliRunner

from features.catalogs import load_catalog
from features.events import append_events
from features.workspace import Workspace
from models.errors import SpecError
from monitoring.monitor_settings import MonitorSettings
from plumb import app
from plumb.model_monitors import make_model_monitors, maturity_of


def call(workspace: Workspace, *arguments: str) -> str:
    words = ["--workspace", str(workspace.root), "models", "labels", *arguments]
    done = CliRunner().invoke(app.root, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Two predictions of 2026-01-06, one of a user who cancels on the 10th; the log goes on for a year."""
    made = Workspace(tmp_path)
    table = events(("a", "cancellation", 5, 6), ("late", "session", 400, 400))
    append_events(made, load_catalog("subscription"), "user", table.append_column("plan", pa.array(["pro"] * 2)), source="file")
    log_predictions(made, "churn", [Asked("a", 1, 0.75), Asked("b", 1, 0.25)])
    return made


def test_labels_come_in_once_and_the_summary_says_how_far_they_are(workspace: Workspace) -> None:
    # 90 days of horizon and 14 of delay after 2026-01-06: 2026-04-20.
    early = json.loads(call(workspace, "--model", "churn", "--now", "2026-04-19", "--json"))
    assert (early["statuses"]["labelled"], early["open"]) == (0, 2)
    (waiting,) = json.loads(call(workspace, "--model", "churn", "--now", "2026-04-19", "--summary", "--json"))
    assert (waiting["open"], waiting["due"], waiting["labelled"], waiting["auc"]) == (2, 0, 0, None)
    (due,) = json.loads(call(workspace, "--model", "churn", "--now", "2026-04-20", "--summary", "--json"))
    assert (due["open"], due["due"], due["labelled"]) == (0, 2, 0)
    assert "labelled" in call(workspace, "--model", "churn", "--now", "2026-04-20")
    again = json.loads(call(workspace, "--model", "churn", "--now", "2026-04-21", "--since", "2026-01-01", "--json"))
    assert again["statuses"]["labelled"] == 0
    (done,) = json.loads(call(workspace, "--model", "churn", "--now", "2026-04-21", "--summary", "--json"))
    assert (done["open"], done["due"], done["labelled"], done["positives"], done["auc"]) == (0, 0, 2, 1, {"value": 1.0})
    assert "1 (50.0%)" in call(workspace, "--model", "churn", "--summary")


@pytest.mark.parametrize(
    "words",
    [
        ("models", "labels", "--model", "send_time"),
        ("models", "labels", "--model", "active_hours", "--summary"),
        ("models", "backtest", "send_time", "--cutoff", "2026-01-01"),
    ],
)
def test_labels_do_not_judge_a_model_of_hours_and_one_line_says_so(workspace: Workspace, words: tuple[str, ...]) -> None:
    """Its score says what sending now loses, which is no probability of an open."""
    with pytest.raises(SpecError, match="by labels does not fit a model of hours of the week.*plumb runs report") as refused:
        CliRunner().invoke(app.root, ["--workspace", str(workspace.root), *words], catch_exceptions=False)
    assert "\n" not in str(refused.value)
    assert not workspace.served_labels("send_time").exists()


def test_its_only_monitor_is_the_one_of_skew(workspace: Workspace) -> None:
    made = make_model_monitors(workspace, "send_time", MonitorSettings())
    assert [each.name for each in made] == ["skew"]
    with pytest.raises(SpecError, match="does not fit a model of hours"):
        maturity_of(workspace, "send_time", MonitorSettings(), 0)


def test_an_empty_log_and_an_unknown_model_are_told(tmp_path: Path) -> None:
    assert "the event log is empty" in call(Workspace(tmp_path), "--model", "churn")
    with pytest.raises(SpecError, match="unknown model"):
        call(Workspace(tmp_path), "--model", "chrun")
