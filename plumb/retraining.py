"""From drift to a training run: opened once an episode, started here or on a cluster, watched, and judged.

A run is recorded before it is started. Here it is a process of its own session, which outlives whoever started it and holds the
lock of its log file for as long as it runs; its run record says how it ended. So a controller that is killed anywhere, and the
one after it, know what has become of each run, and none is started twice.
"""

from __future__ import annotations

import fcntl
import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.errors import PlumblineError
from monitoring.retraining import (
    CLUSTER,
    COOL_DOWN_S,
    FAILED,
    OPENED,
    SUBMITTED,
    UNDER_WAY,
    Retraining,
    ServingDrift,
    Wanted,
    end_episode,
    find_drift,
    judge_retrainings,
    list_retrainings,
    open_retraining,
    record_progress,
)
from monitoring.revisions import read_revisions
from monitoring.verdict_log import read_standing, record_verdicts
from pipelines.records import RunRecord, list_records
from plumb.instants import parse_instant, show_instant
from plumb.settings import Settings
from plumb.up import is_held

if TYPE_CHECKING:
    from pipelines.cluster import Address

PLUMB = (sys.executable, "-c", "from plumb.app import main; main()")
PIPELINE = "training"
LOOK_EVERY_S = 5.0
VALID_FOR_S = 300.0
"""For how long verdicts on retrainings stand without being heard again."""
NICENESS = 10
"""Of a run on the machine that serves: answers come first."""
LAST_CHARACTERS = 300
ENDED_WELL = ("succeeded", "not blessed")
"""Refusing a version is what gates are for."""


@dataclass(frozen=True)
class Course:
    """How drift is answered: seconds between two runs of a model, and the cluster that runs them; this machine where None."""

    cool_down_s: float = COOL_DOWN_S
    cluster: Address | None = None
    service_account: str = ""


def find_cluster(host: str, token_file: Path | None) -> Address:
    """The cluster that runs what drift opens.

    Raises:
        CommandError: the token cannot be read.
    """
    from pipelines.cluster import Address
    from plumb.pipelines import read_token

    return Address(host, read_token(token_file))


class Retrainer:
    """Opens, starts and watches runs; ``look`` is to be called again and again by the process that acts."""

    def __init__(self, settings: Settings, course: Course, tell: Callable[[str], None]) -> None:
        self._settings = settings
        self._workspace = settings.workspace
        self._course = course
        self._tell = tell
        self._looked_at_us = 0
        self._told: dict[str, str] = {}
        self._said: dict[tuple[str, str], tuple[str, str]] = {}
        self._said_at_us = 0

    def look(self, now_us: int) -> None:
        """Answer the drift that stands, and see what has become of runs.

        Raises:
            StoreUnavailable: the control database does not answer.
            PermanentError: a service's document or a run's record is damaged.
        """
        if now_us - self._looked_at_us < LOOK_EVERY_S * 1e6:
            return
        self._looked_at_us = now_us
        known = list_retrainings(self._workspace)
        last = {each.model: each for each in reversed(known)}
        for drift in self._find_drift(now_us):
            has_run = drift.model in last and last[drift.model].episode_ended_at_us is None
            if drift.is_over and has_run:
                end_episode(self._workspace, drift.model, now_us)
            elif drift.failing and not has_run:
                self._answer(drift, now_us)
        known = list_retrainings(self._workspace)
        if known:
            self._watch(known, list_records(self._workspace), now_us)

    def _find_drift(self, now_us: int) -> tuple[ServingDrift, ...]:
        standing = read_standing(self._workspace, now_us=now_us)
        return find_drift(standing, functools.cache(lambda service: read_revisions(self._workspace, service)), now_us)

    def _answer(self, drift: ServingDrift, now_us: int) -> None:
        """Open a run, unless bad data are the reason: those are to be mended, not learned."""
        if drift.faulty:
            text = "; ".join(verdict.text for verdict in drift.faulty)
            self._tell_once(drift.model, f"{drift.model} drifts, but is not trained again on bad data: {text}")
            return
        wanted = choose_run(list_records(self._workspace), drift.model, now_us)
        if self._course.cluster is not None:
            wanted = self._on_cluster(wanted)
        made = open_retraining(self._workspace, drift, wanted, self._course.cool_down_s, now_us)
        if made is not None:
            self._tell(f"retraining {made.id} of {made.model} is opened: {made.why}")

    def _on_cluster(self, wanted: Wanted) -> Wanted:
        from pipelines.profile import WORKSPACE_MOUNT

        of_cluster = {"workspace": WORKSPACE_MOUNT, "control_database": self._settings.control_database}
        return replace(wanted, parameters={**wanted.parameters, **of_cluster}, place=CLUSTER)

    def _watch(self, known: list[Retraining], records: list[RunRecord], now_us: int) -> None:
        for each in known:
            if each.finished_at_us is None:
                self._follow(each, records, now_us)

        def has_ended_well(one: Retraining) -> bool:
            ended = [
                record for record in records if record.model == one.model and record.status in ("succeeded", "not blessed")
            ]
            return any(parse_instant(record.started_at) > one.opened_at_us for record in ended)

        verdicts = judge_retrainings(list_retrainings(self._workspace), has_ended_well, now_us)
        said = {(each.monitor, each.subject): (str(each.outcome), each.text) for each in verdicts}
        # Only what has changed, or has to be heard again, is written: writers wait for each other.
        if said != self._said or now_us - self._said_at_us > VALID_FOR_S / 2 * 1e6:
            record_verdicts(self._workspace, verdicts, valid_for_s=VALID_FOR_S, now_us=now_us)
            self._said, self._said_at_us = said, now_us

    def _follow(self, one: Retraining, records: list[RunRecord], now_us: int) -> None:
        """One run that is not known to have ended: start it, or see how it goes."""
        if one.place == CLUSTER:
            if one.status == OPENED:
                self._submit(one, now_us)
            return
        record = find_run(records, one)
        if record is not None and record.status != "running":
            self._conclude(one, record.status, record.run_id, record.error or record.reason, now_us)
        elif is_held(self._log_of(one)):
            if record is not None and one.run_id != record.run_id:
                record_progress(self._workspace, one.id, UNDER_WAY, run_id=record.run_id)
        elif one.status == OPENED:
            self._start(one)
        else:
            text = self._log_of(one).read_text(encoding="utf-8", errors="replace").strip()[-LAST_CHARACTERS:]
            got = " ".join(text.split()) or "nothing was said"
            self._conclude(one, FAILED, one.run_id, f"its process ended without saying how: {got}", now_us)

    def _conclude(self, one: Retraining, status: str, run_id: str, result: str, now_us: int) -> None:
        record_progress(self._workspace, one.id, status, run_id=run_id, result=result, finished_at_us=now_us)
        self._tell(f"retraining {one.id} of {one.model}: {status}" + (f": {result}" if result else ""))

    def _start(self, one: Retraining) -> None:
        """Start the run here. Its process inherits the log's lock, and nobody else has it."""
        command = [*PLUMB, "--workspace", str(self._workspace.root)]
        command += ["--control-database", self._workspace.control_url] if self._workspace.control_url else []
        command += ["pipelines", "run", one.model, "--known-at", show_instant(one.parameters["known_at_us"])]
        command += ["--seed", str(one.parameters["seed"]), "--no-promote"]
        path = self._log_of(one)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as log:
            fcntl.flock(log, fcntl.LOCK_EX)
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        threading.Thread(target=process.wait, name=f"retraining-{one.id}", daemon=True).start()  # leaves no zombie
        record_progress(self._workspace, one.id, UNDER_WAY)
        self._tell(f"retraining {one.id} of {one.model} is started, process {process.pid}; it says in {path} how it goes")

    def _submit(self, one: Retraining, now_us: int) -> None:
        from components.code import code_version
        from pipelines.compile import read_compiled
        from pipelines.submit import Submission, submit

        assert self._course.cluster is not None
        submission = Submission(
            one.model, read_compiled(PIPELINE), code_version(), one.parameters, "", show_instant(one.opened_at_us),
            self._course.service_account,
        )  # fmt: skip
        try:
            done = submit(self._course.cluster, submission)
        except PlumblineError as error:  # it is tried again with every look, and said once
            self._tell_once(f"retraining {one.id}", f"retraining {one.id} of {one.model} cannot be submitted: {error}")
            return
        result = f"run {done.name} on the cluster, which says how it goes"
        record_progress(self._workspace, one.id, SUBMITTED, run_id=done.id, result=result, finished_at_us=now_us)
        self._tell(f"retraining {one.id} of {one.model} is submitted: {result}")

    def _log_of(self, one: Retraining) -> Path:
        return self._workspace.runs() / f"retraining-{one.id}.log"

    def _tell_once(self, what: str, line: str) -> None:
        if self._told.get(what) != line:
            self._told[what] = line
            self._tell(line)


def choose_run(records: list[RunRecord], model: str, now_us: int) -> Wanted:
    """The run to be opened: like the newest one that registered a version of the model, on what is known by now."""
    like = next((each for each in records if (each.model, each.pipeline, each.status) == (model, PIPELINE, "succeeded")), None)
    seed = like.parameters["seed"] if like else 0
    parameters: dict[str, Any] = {
        "model": model,
        "seed": seed,
        "known_at_us": now_us,
        "may_promote": False,
    }  # that takes a rollout
    return Wanted(PIPELINE, parameters, like.run_id if like else "")


def find_run(records: list[RunRecord], one: Retraining) -> RunRecord | None:
    """The record of the run that a retraining has started: nobody else asks for just that instant."""
    wanted = one.parameters["known_at_us"]
    return next((each for each in records if each.model == one.model and each.parameters.get("known_at_us") == wanted), None)
