"""The demo's last act: a good version is rolled out and promoted, a broken one is taken off, while users go on asking.

The good version is the trained one, registered again. The bad one is the same with a fault in its graph: it takes the time of
a request for microseconds, and is told milliseconds (``components.faults``). Both are judged by real gates on real answers.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from features.errors import explain
from features.workspace import Workspace
from plumb.errors import CommandError
from plumb.native_log import native_log

if TYPE_CHECKING:
    import httpx

    from monitoring.rollout.records import Dossier

START_TIMEOUT_S = 120
READY_TIMEOUT_S = 300
END_TIMEOUT_S = 300
STOP_TIMEOUT_S = 60
POLL_S = 0.2
CLIENTS = 2
PAUSE_S = 0.01
"""Each client asks about a hundred times a second."""
PLAN: Mapping[str, Any] = {
    "stages": [{"percent": 20, "bake_s": 10, "least_users": 60}, {"percent": 50, "bake_s": 10, "least_users": 150}],
    "gates": [
        {"kind": "errors", "tolerance": 0.05},
        {"kind": "latency", "tolerance": 0.2},
        {"kind": "score", "tolerance": 0.15},
        {"kind": "features", "tolerance": 0.15, "least_users": 0},
    ],
    "hold_s": 120,
}
"""A plan for people who watch: half a minute where real ones take hours."""
PROMOTED = "promoted"
ROLLED_BACK = "rolled_back"
PLANE = ["up", "--port", "0", "--admin-port", "0", "--no-prometheus"]
PLANE_READY = re.compile(r"plane at (\S+) \(admin (\S+)\)")
CONTROLLER_READY = re.compile(r"controller at (\S+) ")


@dataclass
class Asked:
    """What the clients have sent, and how much of it was answered well."""

    sent: int = 0
    answered: int = 0


@dataclass(frozen=True)
class Outcome:
    """Both rollouts as recorded, and what clients saw of them."""

    good: Dossier
    bad: Dossier
    asked: Asked

    @property
    def as_wanted(self) -> bool:
        phases = (self.good.standing.step.phase, self.bad.standing.step.phase)
        return phases == (PROMOTED, ROLLED_BACK) and self.asked.sent == self.asked.answered


def roll_out(workspace: Workspace, model: str, version: int, instances: Sequence[Mapping[str, Any]], folder: Path) -> Outcome:
    """Serve a version on a plane of its own, roll out a good version and a broken one, and stop.

    Args:
        instances: what clients ask, over and over.
        folder: for what plane and controller log.
    Raises:
        CommandError: a process did not start or stop, or a rollout did not end in time.
    """
    import httpx

    with native_log(folder / "demo.log"):
        from components.faults import TIME_IN_MILLISECONDS, register_again, register_broken
        from models.versions import load

        good = register_again(workspace, load(workspace, model, version), "the same model again").version
        bad = register_broken(workspace, model, version, TIME_IN_MILLISECONDS).version
    plan = folder / "plan.json"
    plan.write_text(json.dumps(PLAN), encoding="utf-8")
    with (
        _process(workspace, PLANE, PLANE_READY, folder / "plane.log") as (url, admin),
        _process(workspace, ["rollouts", "run", "--port", "0", "--plane", admin, "--tick", "0.5"], CONTROLLER_READY,
                 folder / "controller.log") as (controller,),
        httpx.Client(timeout=30) as client,
    ):  # fmt: skip
        address = f"{admin}/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices/{model}"
        client.put(address, json=_service(model, version, f"{controller}/")).raise_for_status()
        _wait(lambda: _is_ready(client, address), READY_TIMEOUT_S, "the stable revision")
        with _asking(url, model, instances) as asked:
            promoted = _run(workspace, model, controller, (good, "a version like the one before"))
            rolled_back = _run(workspace, model, controller, (bad, "nobody knows yet that it is broken"))
    return Outcome(promoted, rolled_back, asked)


def timeline_table(outcome: Outcome, model: str) -> Table:
    """What happened when, and why."""
    table = Table("at", "rollout", "step", "canary", "why", title=f"rollouts of {model}", title_justify="left")
    began_us = outcome.good.standing.facts.at_us
    for dossier in (outcome.good, outcome.bad):
        facts = dossier.standing.facts
        for step in dossier.steps:
            colour = {PROMOTED: "green", ROLLED_BACK: "red"}.get(step.phase, "default")
            table.add_row(
                f"{(step.at_us - began_us) / 1_000_000:.0f} s", f"version {facts.stable_version} -> {facts.canary_version}",
                f"[{colour}]{step.action}[/{colour}]", f"{step.percent} %", step.why,
            )  # fmt: skip
    asked = outcome.asked
    table.caption = f"{asked.sent:,} requests meanwhile, {asked.sent - asked.answered} without a good answer"
    return table


def _run(workspace: Workspace, model: str, controller: str, canary: tuple[int, str]) -> Dossier:
    """Ask for a rollout, and wait until it is over."""
    import httpx

    from monitoring.rollout.records import list_rollouts, read_dossier

    version, why = canary
    content = {"service": model, "version": version, "who": "demo", "why": why, "plan": dict(PLAN)}
    httpx.post(f"{controller}/v1/rollouts", json=content, timeout=30).raise_for_status()

    def is_over() -> bool:
        standing = list_rollouts(workspace, model)[0]
        return not standing.is_open and standing.step.applied_at_us is not None

    _wait(is_over, END_TIMEOUT_S, f"rollout of version {version}")
    return read_dossier(workspace, list_rollouts(workspace, model)[0].facts.id)


@contextlib.contextmanager
def _asking(url: str, model: str, instances: Sequence[Mapping[str, Any]]) -> Iterator[Asked]:
    """Clients that ask one after the other, for as long as the block runs."""
    import httpx

    asked, stopping, lock = Asked(), threading.Event(), threading.Lock()

    def ask(number: int) -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            for instance in itertools.islice(itertools.cycle(instances), number, None, CLIENTS):
                if stopping.wait(PAUSE_S):
                    return
                try:
                    good = client.post(f"/v1/models/{model}:predict", json={"instances": [instance]}).is_success
                except httpx.TransportError:
                    good = False
                with lock:
                    asked.sent += 1
                    asked.answered += good

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        stopping.set()
        for thread in threads:
            thread.join(STOP_TIMEOUT_S)


@contextlib.contextmanager
def _process(workspace: Workspace, words: list[str], ready: re.Pattern[str], log: Path) -> Iterator[tuple[str, ...]]:
    """A ``plumb`` process; gives what ``ready`` found in its first line, and ends it with SIGTERM."""
    command = [sys.executable, "-c", "from plumb.app import main; main()", "--workspace", str(workspace.root)]
    command += ["--control-database", workspace.control_url]
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=errors, text=True)
    killer = threading.Timer(START_TIMEOUT_S, process.kill)
    try:
        assert process.stdout is not None
        killer.start()
        found = ready.search(process.stdout.readline())
        killer.cancel()
        if found is None:
            raise _refuse(f"plumb {words[0]} did not start", "a line that says where it listens", log)
        yield found.groups()
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise _refuse(f"plumb {words[0]} did not stop", f"an end within {STOP_TIMEOUT_S} s", log) from error
    finally:
        killer.cancel()
        process.kill()
        process.communicate()


def _service(model: str, version: int, sink: str) -> dict[str, Any]:
    """An InferenceService whose events go to the controller."""
    served = {
        "name": "kserve-container", "modelFormat": {"name": "plumbline"}, "storageUri": f"pvc://plumb-models/{model}/{version}",
    }  # fmt: skip
    metadata = {"name": model, "annotations": {"serving.kserve.io/deploymentMode": "Standard"}}
    return {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": metadata,
            "spec": {"predictor": {"model": served, "logger": {"mode": "all", "url": sink}}}}  # fmt: skip


def _is_ready(client: httpx.Client, address: str) -> bool:
    conditions = client.get(address).json()["status"]["conditions"]
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _wait(holds: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise CommandError(
                explain("demo waits in vain", which=what, expected=f"an end within {timeout_s:.0f} s", got="none",
                        next_step="look with `plumb rollouts show`, and at the logs of the run's folder")
            )  # fmt: skip
        time.sleep(POLL_S)


def _refuse(what: str, expected: str, log: Path) -> CommandError:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    got = lines[-1] if lines else "nothing"
    return CommandError(explain(what, which=str(log.parent), expected=expected, got=got, next_step=f"read {log}"))
