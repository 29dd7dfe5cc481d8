"""``plumb drift check``, as a command in this environment."""

from __future__ import annotations

import json

import numpy as np
import pytest
from serving import HOUR_US, draw, log_predictions, spread, write_version
from typer.testing import CliRunner

from features.workspace import Workspace
from plumb.app import root
from plumb.instants import now_us


@pytest.fixture
def workspace(tmp_path, rng):
    workspace = Workspace(tmp_path)
    write_version(workspace, 3, rng)
    start_us = (now_us() // HOUR_US - 3) * HOUR_US
    drawn = draw(rng, 1_500)
    drawn["sessions"] += 1
    log_predictions(workspace, 3, "stable", spread(start_us, 1, 1_500), drawn)
    return workspace


def run(workspace, *arguments):
    done = CliRunner().invoke(root, ["--workspace", str(workspace.root), "drift", "check", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_what_was_found_is_shown_and_again_without_judging_twice(workspace):
    first = run(workspace, "--model", "churn")
    assert "churn/stable version 3  drift.training.features  FAIL" in first
    assert "sessions (effect" in first
    files = sorted(workspace.drift_verdicts().glob("*.json"))
    times = [path.stat().st_mtime_ns for path in files]
    assert run(workspace, "--model", "churn") == first
    assert [path.stat().st_mtime_ns for path in files] == times


def test_json_gives_a_judged_window_a_line(workspace):
    lines = [json.loads(line) for line in run(workspace, "--model", "churn", "--json").splitlines()]
    assert {(line["subject"], line["reference"]) for line in lines} == {("churn/stable", "training"), ("churn/stable", "weeks")}
    (training,) = [line for line in lines if line["reference"] == "training"]
    assert training["features"][0]["name"] == "sessions"
    assert training["features"][0]["drifted"] is True
    assert np.isfinite([feature["effect"] for feature in training["features"]]).all()


def test_a_model_nobody_asked_says_so(tmp_path):
    assert "No window has been judged" in run(Workspace(tmp_path), "--model", "churn")
