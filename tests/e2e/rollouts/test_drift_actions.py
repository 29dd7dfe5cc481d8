"""From drift to action, with real processes: plane, controller, monitors and detector of the monitoring environment, a client.

The plan has no gate on scores or features: what such gates would see, here the monitors must find, and the controller must act
on what they have written into the log of verdicts. Windows last seconds where they last minutes and hours in production.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import yaml
from e2e.rollouts.harness import WAIT_S, Stage, controlled, sending, stage
from e2e.rollouts.small_model import AS_OF_US, OFFSETS_MINUTES, PLAN_OF_USER, PLANS, make_workspace, state_of
from planes.harness import ROOT
from services.servers import free_port, process_environment

from components.faults import Fault, Tensors, register_broken
from features.errors import StoreUnavailable
from features.layout import US_PER_S
from features.reference import REFERENCE_FILE, ReferenceFacts, write_reference
from features.workspace import Workspace
from monitoring.retraining import Retraining, list_retrainings
from monitoring.rollout.records import Dossier, list_rollouts, read_dossier
from monitoring.verdict_log import read_history, read_standing
from monitoring.verdicts import Outcome, Severity, Verdict
from pipelines.records import list_records
from plumb.instants import now_us

MONITORING = ROOT / ".venv-monitoring" / "bin" / "python"
RATE = 40
USERS = 4_000
GOOD, SHIFTED = 2, 3
MINUTES_OFF = 210
PLAN = {
    "stages": [{"percent": 30, "bake_s": 5, "least_users": 50}, {"percent": 50, "bake_s": 5, "least_users": 50}],
    "gates": [{"kind": "errors", "tolerance": 0.05}, {"kind": "latency", "tolerance": 0.5}],
    "require": ["drift.stable.features"],
    "blind_s": 60,
}
DRIFT = {
    "window_s": 10, "canary_window_s": 10, "shortest_window_s": 1, "longest_window_s": 600, "least_rows": 150, "weeks": 0,
    "joint_features": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Town:
    """Everything that runs, and the address of the drift detector."""

    place: Stage
    workspace: Workspace
    plan: Path
    detector: str

    def start(self, version: int, why: str) -> None:
        self.place.plumb("rollouts", "start", "churn", "--version", str(version), "--plan", str(self.plan), "--why", why)

    def until(self, holds: Callable[[], object], what: str) -> None:
        """Look once a second: each look takes CPU and a lock that the processes under test want."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(StoreUnavailable):  # on a busy machine writers hold SQLite's lock for seconds
                if holds():
                    return
            time.sleep(1)
        raise AssertionError(f"{what} did not come; {self.place.log.read_text()[-3000:]}")

    def dossier(self) -> Dossier:
        return read_dossier(self.workspace, list_rollouts(self.workspace)[0].facts.id)

    def standing(self, subject: str) -> dict[str, Verdict]:
        """Verdicts on a subject by monitor, as judged now."""
        at_us = now_us()
        return {
            each.verdict.monitor: each.judged(at_us) for each in read_standing(self.workspace, subjects=[subject], now_us=at_us)
        }


def come_late(inputs: Tensors) -> Tensors:
    """A new source gives every user's clock three and a half hours ahead: each score is plausible, and none is right."""
    return {**inputs, "utc_offset_minutes": inputs["utc_offset_minutes"] + MINUTES_OFF}


def write_training_reference(folder: Path) -> None:
    """What training would have seen of all users, finished by the exported model itself, as registration has it."""
    inputs = {
        "state": tf.constant([state_of(0, number % 50 + 1) for number in range(USERS)]),
        "now": tf.fill([USERS], tf.constant(AS_OF_US, tf.int64)),
        "plan": tf.constant([PLANS[PLAN_OF_USER[number % 20]] for number in range(USERS)]),
        "country": tf.fill([USERS], "de"),
        "utc_offset_minutes": tf.constant([OFFSETS_MINUTES[number % 7] for number in range(USERS)], tf.int64),
        "platform": tf.fill([USERS], "unknown"),
    }
    made = tf.saved_model.load(str(folder / "saved_model")).signatures["features"](**inputs)
    finished = made["finished"].numpy()
    numbers = {name: pa.array(finished[:, column]) for column, name in ((0, "records"), (2, "hours"), (3, "level"))}
    plans = pa.array([plan.decode() for plan in inputs["plan"].numpy()])
    fixed = {
        "now": pa.array(np.full(USERS, AS_OF_US)).cast(pa.timestamp("us", tz="UTC")),
        "score": pa.array(made["score"].numpy()),
        "label": pa.nulls(USERS, pa.int8()),
    }
    facts = ReferenceFacts({"records": 0.2, "hours": 0.05, "level": 0.1}, ("platform",))
    write_reference(folder / REFERENCE_FILE, fixed, {**numbers, "plan": plans}, facts)


@contextlib.contextmanager
def monitoring(workspace: Path, ready: str, log: Path, *words: str) -> Iterator[str]:
    """A ``plumb`` process of the monitoring environment; gives what ``ready`` finds in its first line."""
    command = [str(MONITORING), "-c", "from plumb.app import main; main()", "--workspace", str(workspace), *words]
    environment = {**process_environment(), "PYTHONPATH": str(ROOT)}
    with log.open("w") as errors:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(ready, line)
        assert found, line + log.read_text()
        yield found[1]
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=60)
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Versions 1 and 2 are equal; 3 is 1 with a shifted source."""
    folder = tmp_path_factory.mktemp("drift")
    workspace = make_workspace(folder / "workspace", users=USERS, as_of_us=now_us())  # older states would be told apart
    for version in (1, GOOD):
        write_training_reference(workspace.model("churn", version))
    assert register_broken(workspace, "churn", 1, Fault("clocks ahead", before=come_late)).version == SHIFTED
    (folder / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    (folder / "monitors.yaml").write_text(yaml.safe_dump({"drift_s": 2, "drift": DRIFT}))
    (folder / "drift.yaml").write_text(yaml.safe_dump(DRIFT))
    watch = ("monitors", "run", "--service", "churn=churn", "--port", "0", "--tick-s", "1")
    detect = ("drift", "serve", "--port", str(free_port()), "--tick-s", "2")
    with (
        stage(workspace.root, folder, "--whole-rate", "1", version=1) as place,
        monitoring(workspace.root, r"drift detector on (\S+)", folder / "detector.log", *detect, "--settings",
                   str(folder / "drift.yaml")) as detector,
        monitoring(workspace.root, r"on (\S+)/metrics", folder / "monitors.log", *watch, "--settings",
                   str(folder / "monitors.yaml")),
        controlled(place, "--forward-to", detector, tick_s=1, lease_s=10),
    ):  # fmt: skip
        yield Town(place, workspace, folder / "plan.yaml", detector)


def applied(dossier: Dossier, action: str) -> float:
    """Seconds since 1970 at which traffic followed a step."""
    return next(step.applied_at_us or 0 for step in dossier.steps if step.action == action) / US_PER_S


def test_a_canary_with_a_shifted_source_is_rolled_back_on_the_drift_monitors_verdict(
    town: Town, capsys: pytest.CaptureFixture[str]
) -> None:
    with sending(town.place.plane.url, rate=RATE, users=USERS) as sent:
        town.start(SHIFTED, "a new source of clocks")
        town.until(lambda: town.dossier().standing.step.phase in ("rolled_back", "promoted"), "the rollback")
        town.until(lambda: town.dossier().standing.step.applied_at_us is not None, "the end of its traffic")
        sampled = httpx.get(f"{town.detector}metrics").text
    dossier = town.dossier()
    step, canary = dossier.standing.step, f"churn/canary-{dossier.standing.facts.id}"
    assert (step.phase, town.place.weight(), sent.lost) == ("rolled_back", 0, 0)
    assert f"drift.stable.features of {canary}: 1 of 7 features drifted: hours (effect 0." in step.why
    verdicts = {entry["monitor"]: entry for entry in step.verdicts}
    blame = verdicts["drift.stable.features"]
    assert (blame["subject"], blame["outcome"], blame["severity"]) == (canary, "fail", "roll_back")
    assert (blame["evidence"]["feature_1"], blame["evidence"]["drifted"]) == ("hours", 1)
    assert {verdicts[gate]["outcome"] for gate in ("errors", "latency")}.isdisjoint({"fail"})
    # The detector has seen the same traffic, which the controller sends on.
    kept = re.search(r'plumb_drift_events_total\{result="kept"\} (\S+)', sampled)
    assert kept is not None, sampled
    assert float(kept[1]) > RATE
    of_stable = read_history(town.workspace, since_us=0, subjects=["churn/stable"])
    assert {each.outcome for each in of_stable if each.monitor.startswith("drift.training.")} == {Outcome.PASS}
    assert list_retrainings(town.workspace) == []
    first_s, off_s = applied(dossier, "start"), applied(dossier, "rollback")
    found_s = blame["at_us"] / US_PER_S
    with capsys.disabled():
        sys.stdout.write(
            f"\nshifted source: its window ended {found_s - first_s:.0f} s after the first share, off {off_s - first_s:.0f} s"
            f" after it; {step.why}\n"
        )


def test_drift_that_hits_both_pages_holds_and_opens_a_training_run_and_takes_no_traffic(
    town: Town, capsys: pytest.CaptureFixture[str]
) -> None:
    # A campaign brings only users with more than 30 records.
    with sending(
        town.place.plane.url, rate=RATE, users=1_600, user=lambda number: number // 20 * 50 + 30 + number % 20
    ) as sent:
        began_s = now_us() / US_PER_S
        town.start(GOOD, "the same version again")
        canary = f"churn/canary-{town.dossier().standing.facts.id}"
        town.until(lambda: "page" in [step.action for step in town.dossier().steps], "the page")
        town.until(lambda: "drift.stable.features" in town.standing(canary), "the verdict beside stable")
        town.until(lambda: list_retrainings(town.workspace), "the training run")
        town.until(lambda: ended(list_retrainings(town.workspace)[0]), "the end of the training run")
        town.until(lambda: {"drift.training.features", "drift.stable.features"} <= set(town.standing(canary)), "both verdicts")
        beside_stable, beside_training = (
            town.standing(canary)[f"drift.{reference}.features"] for reference in ("stable", "training")
        )
        of_stable = town.standing("churn/stable")["drift.training.features"]
        dossier, weight = town.dossier(), town.place.weight()
    page = next(step for step in dossier.steps if step.action == "page")
    # Whichever monitor came first: the watch by features, or the detector by the scores of replies.
    assert "drift.training." in page.why
    assert " of churn/" in page.why
    assert [step.action for step in dossier.steps] == ["request", "start", "page"]
    assert (dossier.standing.step.phase, weight, sent.lost) == ("running", 30, 0)
    assert beside_stable.outcome is Outcome.PASS
    for verdict in (of_stable, beside_training):
        assert (verdict.outcome, verdict.severity) == (Outcome.FAIL, Severity.PAGE)
        assert verdict.evidence["feature_1"] == "records"

    (run,) = list_retrainings(town.workspace)
    assert (run.model, run.who) == ("churn", "controller")
    assert run.why.startswith("drift.training.")
    assert "of churn/stable" in run.why
    # It was really started. This workspace has no event log, so it failed, and that is a verdict, too.
    (record,) = list_records(town.workspace)
    assert (record.run_id, record.status) == (run.run_id, "failed")
    assert record.parameters["known_at_us"] == run.opened_at_us
    assert town.standing("run:training")["retraining.churn"].outcome is Outcome.FAIL
    assert json.loads(town.place.plumb("models", "retrainings", "--json"))[0]["id"] == run.id
    town.place.plumb("rollouts", "abort", "churn", "--why", "the campaign first", "--wait", "60")
    with capsys.disabled():
        sys.stdout.write(
            f"\ndrift of both: paged {page.at_us / US_PER_S - began_s:.0f} s after it began, training run opened after"
            f" {run.opened_at_us / US_PER_S - began_s:.0f} s; held at {weight} %; {page.why}\n"
        )


def choose_active(number: int) -> int:
    """A campaign brings only users with more than 30 records: the last twenty of each fifty."""
    return number // 20 * 50 + 30 + number % 20


def ended(run: Retraining) -> bool:
    return run.finished_at_us is not None


def test_what_both_processes_say_of_drift_is_shown(town: Town) -> None:
    said: list[dict[str, Any]] = [verdict.describe() for verdict in read_history(town.workspace, since_us=0)]
    assert {"drift.training.score", "drift.training.score.replies"} <= {entry["monitor"] for entry in said}
