"""``plumb monitors``: one loop that survives kill -9, nothing lost or doubled, ends cleanly, and whose faults are verdicts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from serving import HOUR_US, draw, log_predictions, spread, write_version

from features.workspace import Workspace
from monitoring.drift.records import read_judged
from monitoring.verdict_log import read_history, read_standing
from monitoring.verdicts import Outcome
from plumb.instants import now_us

DEADLINE_S = 300
COMMAND = [sys.executable, "-c", "from plumb.app import main; main()"]
LOST = "drift.training.features"


@pytest.fixture
def workspace(tmp_path, rng):
    """A shifted hour of three hours ago, and no online store at all."""
    workspace = Workspace(tmp_path)
    write_version(workspace, 3, rng)
    serve(workspace, rng, 3)
    (tmp_path / "monitors.yaml").write_text("online_simulations: 200\ndrift: {joint_features: 0}\n")  # half the time
    return workspace


def settings_of(workspace):
    return ["--settings", str(workspace.root / "monitors.yaml")]


def serve(workspace, rng, hours_ago):
    drawn = draw(rng, 600)
    drawn["sessions"] += 1
    log_predictions(workspace, 3, "stable", spread((now_us() // HOUR_US - hours_ago) * HOUR_US, 1, 600), drawn)


def start(workspace):
    arguments = [
        "--workspace",
        str(workspace.root),
        "monitors",
        "run",
        "--service",
        "shop=churn",
        "--port",
        "0",
        "--tick-s",
        "0.2",
    ]
    arguments += ["--tick-s", "0.2", *settings_of(workspace)]
    return subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def wait_for(condition):
    ends = time.monotonic() + DEADLINE_S
    while time.monotonic() < ends:
        if found := condition():
            return found
        time.sleep(0.5)
    raise AssertionError("it did not come to that in time")


def stands(workspace, monitor, subject):
    found = [each for each in read_standing(workspace, subjects=[subject], now_us=now_us()) if each.verdict.monitor == monitor]
    return found[0] if found else None


def changes(workspace):
    """What the history says of drift, without what depends on the clock."""
    return [(each.monitor, each.subject, each.outcome, each.at_us) for each in read_history(workspace, since_us=0)
            if each.monitor.startswith("drift.")]  # fmt: skip


def test_a_killed_process_is_followed_by_one_that_says_the_same_and_goes_on(workspace, rng):
    first = start(workspace)
    try:
        wait_for(lambda: stands(workspace, LOST, "shop/stable"))
        address = first.stdout.readline().rsplit(" ", 1)[1].strip()
        # A view without a store raises in every round, and that is a verdict; so is what the others found.
        failed = wait_for(lambda: stands(workspace, "freshness", "view:subscriber@1")).verdict
        assert (failed.outcome, "the monitor failed" in failed.text) == (Outcome.INCONCLUSIVE, True)
        line = f'plumb_verdict_outcome{{monitor="{LOST}",severity="page",subject="shop/stable"}} 2.0'
        body = wait_for(lambda: line in (text := scrape(address)) and text)
        assert "plumb_drift_feature_effect" in body
        assert 'plumb_monitor_errors_total{monitor="freshness"} 0.0' not in body
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    before, windows = changes(workspace), [each.id for each in read_judged(workspace.drift_verdicts())]
    assert (LOST, "shop/stable", Outcome.FAIL) in [entry[:3] for entry in before]
    serve(workspace, rng, 2)
    second = start(workspace)
    try:
        wait_for(lambda: len(list(read_judged(workspace.drift_verdicts()))) > len(windows))
        wait_for(lambda: stands(workspace, LOST, "shop/stable").verdict.at_us > dict_of(before)[LOST])
        (target,) = [path.read_text() for path in workspace.scrape_targets().glob(f"monitors-{second.pid}.json")]
        assert json.loads(target)[0]["targets"]
    finally:
        second.send_signal(signal.SIGTERM)
        assert second.wait(DEADLINE_S) == 0
    ids = [each.id for each in read_judged(workspace.drift_verdicts())]
    assert ids[: len(windows)] == windows
    assert len(set(ids)) == len(ids)
    # Both hours failed alike, so nothing changed and nothing was added; what was there stands as it was.
    assert changes(workspace)[: len(before)] == before
    assert len(changes(workspace)) == len(set(changes(workspace)))
    assert list(workspace.scrape_targets().glob("monitors-*.json")) == []


def dict_of(entries):
    return {monitor: at_us for monitor, _, _, at_us in entries}


def scrape(address):
    with urllib.request.urlopen(address) as answer:
        return answer.read().decode()


def test_check_says_everything_once_and_exits_with_1_where_it_pages(workspace: Workspace, tmp_path: Path):
    run = subprocess.run(
        [*COMMAND, "--workspace", str(workspace.root), "monitors", "check", "--service", "shop=churn", "--json",
         *settings_of(workspace)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 1, run.stderr
    said = [json.loads(line) for line in run.stdout.splitlines()]
    subjects = {(each["monitor"], each["subject"]) for each in said}
    assert subjects >= {
        ("freshness", "view:subscriber@1"), ("quality", "log:user"), ("skew", "model:churn"), ("maturity", "model:churn"),
        ("labels", "model:churn"), ("estimate", "model:churn"), ("drift", "shop"), ("drift.online", "shop"),
        ("runs", "run:all"),
    }  # fmt: skip
    assert stands(workspace, LOST, "shop/stable").verdict.evidence["feature_1"] == "sessions"
    shown = subprocess.run(
        [*COMMAND, "--workspace", str(workspace.root), "monitors", "labels", "churn", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    table = json.loads(shown.stdout)
    assert (table["predictions"], table["matured"], table["ages"][0]["age_days"]) == (600, 0, 0)
