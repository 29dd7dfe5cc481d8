"""Kill -9 of controller, plane and servers at random, under traffic, while good and bad versions are rolled out in turn.

Three things are watched all the time. The plane's weight is the recorded one: that of the newest step, of the one before where
the newest is not applied yet, or nothing. No request is answered by a revision that had 0 % when it was sent. And the line
recovers: after the last kill, what is asked is answered, and a bad version is taken off.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from e2e.rollouts.bad_models import ALMOST_SURE
from e2e.rollouts.harness import WAIT_S, Load, Stage, kill, sending, stage, start_controller, start_plane, write_plan
from e2e.rollouts.small_model import make_workspace

from components.faults import register_broken
from features.workspace import Workspace
from monitoring.rollout.records import Standing, list_rollouts, read_dossier

PAUSE_S = (2.0, 16.0)
"""Between two kills: now and then long enough for a server to load, or nothing would ever be rolled out."""
STEADY_S = 5.0
"""Of good answers without a pause: the line has recovered."""
VICTIMS = ("controller", "controller", "plane", "stable", "canary", "canary")


@dataclass
class Report:
    """What happened: kills by victim, rollouts by how they ended, checks of the weight and those that found a wrong one, and
    answers by a revision without a share (``stray``)."""

    kills: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    weights_checked: int = 0
    wrong_weights: list[str] = field(default_factory=list)
    stray: list[str] = field(default_factory=list)
    sent: int = 0
    unanswered: int = 0
    answered_in_the_end: bool = False

    def __str__(self) -> str:
        kills = ", ".join(f"{count} {name}" for name, count in sorted(self.kills.items()))
        ended = ", ".join(f"{count} {name}" for name, count in sorted(self.ended.items()))
        return (
            f"killed: {kills}; rollouts: {ended}\n"
            f"weights checked {self.weights_checked:,} times, wrong {len(self.wrong_weights)}\n"
            f"{self.sent:,} requests, {self.unanswered:,} without an answer while their process or the plane was gone,"
            f" {len(self.stray)} answered by a revision at 0 %\n"
            f"recovered: {'yes' if self.answered_in_the_end else 'NO'}"
        )


@dataclass
class Chaos:
    """One run on a stage; a good version (1 or 2, the one that is not served) and a bad one are rolled out in turn."""

    place: Stage
    bad: int
    plan: Path
    rng: random.Random
    report: Report = field(default_factory=Report)
    off_us: dict[str, int] = field(default_factory=dict)
    """By canary: when it was seen to be off for good, UTC microseconds."""

    def run(self, seconds: float, *, rate: int, users: int) -> Report:
        """Kill for so long, then let everything recover."""
        deadline = time.monotonic() + seconds
        self.controller = start_controller(self.place, tick_s=0.3, lease_s=2)
        try:
            with sending(self.place.plane.url, rate=rate, users=users) as sent:
                while time.monotonic() < deadline:
                    self._keep_a_rollout_going()
                    self._watch(self.rng.uniform(*PAUSE_S))
                    self._kill(self.rng.choice(VICTIMS))
                self._recover(sent)
            self._account(sent)
        finally:
            kill(self.controller)
            self.place.plane.process.terminate()
            self.place.plane.process.communicate(timeout=60)
        return self.report

    def _keep_a_rollout_going(self) -> None:
        standings = list_rollouts(Workspace(self.place.workspace))
        if standings and standings[0].needs_controller:
            if standings[0].step.action == "page":
                self._give_up()
            return
        wants_bad = len(standings) % 2

        def start() -> None:
            served = self.place.plane.get()["spec"]["predictor"]["model"]["storageUri"].rpartition("/")[2]
            version = self.bad if wants_bad else 3 - int(served)
            arguments = ["rollouts", "start", "churn", "--version", str(version), "--plan", str(self.plan), "--why", "chaos"]
            self.place.plumb(*arguments)

        with_retries(start)

    def _give_up(self) -> None:
        """End a rollout that has paged, as whoever is called does: so many kills leave it with evidence that cannot be used."""

        def abort() -> None:
            if self._standing().needs_controller:  # it may have ended by itself meanwhile
                self.place.plumb("rollouts", "abort", "churn", "--why", "it has paged", "--wait", "0")

        with_retries(abort)

    def _watch(self, seconds: float) -> None:
        """Compare the plane's weight with what is recorded, again and again."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            before = self._standing()
            if before.step.phase in ("rolled_back", "aborted") and before.step.applied_at_us is not None:
                self.off_us.setdefault(f"canary-{before.facts.id}", time.time_ns() // 1_000)
            try:
                weight = self.place.weight()
            except (httpx.HTTPError, OSError):
                time.sleep(0.2)  # the plane is away
                continue
            allowed = {0} | self._allowed(before) | self._allowed(self._standing())
            self.report.weights_checked += 1
            if weight not in allowed:
                self.report.wrong_weights.append(f"{weight} % on the plane, {allowed} recorded")
            time.sleep(0.1)

    def _standing(self) -> Standing:
        return list_rollouts(Workspace(self.place.workspace))[0]

    def _allowed(self, standing: Standing) -> set[int]:
        steps = read_dossier(Workspace(self.place.workspace), standing.facts.id).steps
        percents = {share_of(steps[-1].phase, steps[-1].percent)}
        if steps[-1].applied_at_us is None and len(steps) > 1:
            percents.add(share_of(steps[-2].phase, steps[-2].percent))
        return percents

    def _kill(self, victim: str) -> None:
        """End one process at once; controller and plane are started again, as whoever runs them would."""
        if victim == "controller":
            kill(self.controller)
            self.controller = start_controller(self.place, tick_s=0.3, lease_s=2)
        elif victim == "plane":
            kill(self.place.plane.process)
            start_plane(self.place)
        elif not self._kill_server(victim):
            return
        self.report.kills[victim] += 1

    def _kill_server(self, victim: str) -> bool:
        spec = self.place.plane.get()["spec"]
        predictors = [spec["predictor"]] if victim == "stable" else [entry["predictor"] for entry in spec.get("canary", [])]
        pids = [self.place.plane.revision(predictor.get("name", "stable")).get("pid") for predictor in predictors]
        pid = next((pid for pid in pids if pid is not None), None)
        if pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        return True

    def _recover(self, sent: Load) -> None:
        """Until requests are answered again without a pause and the last rollout is over."""
        if self._standing().needs_controller:
            self._give_up()
        self.place.until(lambda: not self._standing().needs_controller, WAIT_S, "the end of the last rollout")

        def is_steady() -> bool:
            since = time.monotonic() - STEADY_S
            lately = [answer.status for answer in sent.answers[-2_000:] if answer.sent_s > since]
            return len(lately) > STEADY_S and set(lately) == {200}

        self.place.until(is_steady, WAIT_S, "answers")
        self.report.answered_in_the_end = True

    def _account(self, sent: Load) -> None:
        """Hold what clients saw against the steps on record."""
        workspace, report = Workspace(self.place.workspace), self.report
        report.sent, report.unanswered = sent.sent, sent.lost
        report.ended.update(standing.step.phase for standing in list_rollouts(workspace))
        for answer in sent.answers:
            late_us = answer.sent_us - self.off_us.get(answer.revision, answer.sent_us)
            if late_us > 0:
                report.stray.append(f"{answer.entity} by {answer.revision}, {late_us / 1e6:.2f} s late")


def share_of(phase: str, percent: int) -> int:
    """The canary's share on the plane; of a promoted version there is no canary any more."""
    return 0 if phase == "promoted" else percent


def with_retries(act: Callable[[], object], times: int = 30) -> None:
    """Until it works: the plane or its stable revision may be away for a moment."""
    for number in range(times):
        try:
            act()
            return
        except (AssertionError, httpx.HTTPError, subprocess.TimeoutExpired):
            if number == times - 1:
                raise
            time.sleep(1)


@contextlib.contextmanager
def open_chaos(folder: Path, rng: random.Random, *, users: int = 2_000) -> Iterator[Chaos]:
    """A stage whose versions are, in turn, good and with a broken score; its plan takes some seconds."""
    workspace = make_workspace(folder / "workspace", users=users)
    bad = register_broken(workspace, "churn", 1, ALMOST_SURE).version
    plan = write_plan(folder / "plan.yaml", (20, 5, 30), (50, 5, 60))
    with stage(workspace.root, folder, version=1) as place:
        yield Chaos(place, bad, plan, rng)
