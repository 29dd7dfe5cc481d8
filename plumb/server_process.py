"""A ``plumb serve`` process of our own, on free loopback ports, and the requests that are sent to it."""

from __future__ import annotations

import contextlib
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from features.errors import explain
from features.workspace import Workspace
from plumb.errors import CommandError
from plumb.serving import call

READY = re.compile(r"ready at (http://127\.0\.0\.1:\d+)")
START_TIMEOUT_S = 180
STOP_TIMEOUT_S = 30
REQUEST_TIMEOUT_S = 60
ENTITIES_A_REQUEST = 1_000


@contextlib.contextmanager
def serving(workspace: Workspace, model: str, *, version: int, store: Path, log: Path) -> Iterator[httpx.Client]:
    """Start the server, give a client of it, and stop it with SIGTERM.

    Args:
        version: a registered, blessed version.
        store: folder of the online store.
        log: file for what the server writes to its standard error.
    Raises:
        CommandError: the server did not start, or did not end when told to.
    """
    command = [sys.executable, "-c", "from plumb.app import main; main()", "--workspace", str(workspace.root)]
    command += ["--control-database", workspace.control_url]
    command += ["serve", model, "--version", str(version), "--store", str(store), "--port", "0", "--grpc-port", "0"]
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        url = _wait_until_ready(process, log)
        with httpx.Client(base_url=url, timeout=REQUEST_TIMEOUT_S) as client:
            yield client
        _stop(process, log)
    finally:
        process.kill()
        process.communicate()


def predict(client: httpx.Client, model: str, instances: list[dict[str, Any]], *, features: bool) -> list[dict[str, Any]]:
    """Predictions of any number of instances, in order, by V1 requests of at most ``ENTITIES_A_REQUEST``.

    Raises:
        CommandError: the server refused a request.
        StoreUnavailable: it does not answer.
    """
    predictions: list[dict[str, Any]] = []
    for start in range(0, len(instances), ENTITIES_A_REQUEST):
        body = {"instances": instances[start : start + ENTITIES_A_REQUEST], "parameters": {"features": features}}
        predictions += call(client, "POST", f"/v1/models/{model}:predict", body)["predictions"]
    return predictions


def _wait_until_ready(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], START_TIMEOUT_S)
    line = process.stdout.readline() if readable else ""
    found = READY.search(line)
    if found is None:
        raise _refuse("server did not start", log, "a line that says ready", line.strip() or _last_line(log))
    return found[1]


def _stop(process: subprocess.Popen[str], log: Path) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise _refuse("server did not stop", log, f"an end within {STOP_TIMEOUT_S} s", "a running process") from error
    if code != 0:
        raise _refuse("server did not stop cleanly", log, "exit code 0", f"{code}: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "nothing"


def _refuse(what: str, log: Path, expected: str, got: str) -> CommandError:
    return CommandError(explain(what, which="plumb serve", expected=expected, got=got, next_step=f"read {log}"))
