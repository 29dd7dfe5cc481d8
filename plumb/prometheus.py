"""Prometheus and Alertmanager beside the local plane: started where they are installed, ended with it.

Their configuration is the repository's (``manifests/monitoring``), with this workspace's folders and ports put in; their data
and logs are in ``Workspace.prometheus``.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

import yaml

from features.workspace import Workspace
from plumb.scrape_targets import ALERTMANAGER, PROMETHEUS, TargetFile, group_of

CONFIGURATION: Final = Path(__file__).resolve().parent.parent / "manifests" / "monitoring"
PROGRAMS: Final = {PROMETHEUS: ("prometheus",), ALERTMANAGER: ("prometheus-alertmanager", "alertmanager")}
"""Names of the programs; Debian's packages call the second one otherwise than its makers do."""
PACKAGES: Final = "prometheus prometheus-alertmanager"
PORTS: Final = {PROMETHEUS: 9090, ALERTMANAGER: 9093}
LOOPBACK: Final = "127.0.0.1"
RETENTION: Final = "30d"
STOP_TIMEOUT_S: Final = 10.0
PROBE_TIMEOUT_S: Final = 2.0
END_WITH_PARENT: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG, which exec keeps
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass
class Running:
    """One of the two as a process; ``said`` is whether its readiness, or its end, was told."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    log: Path
    targets: TargetFile
    said: set[str] = field(default_factory=set)


class LocalPrometheus:
    """The two programs of one plane. Without them the plane runs all the same, and its operator is told."""

    def __init__(self, workspace: Workspace, tell: Callable[[str], None], ports: dict[str, int]) -> None:
        """Prepare; nothing is started.

        Args:
            ports: by program; 0 takes a free one.
        """
        self._workspace, self._tell = workspace, tell
        self._ports = {name: port or _free_port() for name, port in ports.items()}
        self._running: list[Running] = []

    def start(self) -> dict[str, str]:
        """Start what is installed; addresses by program of what was started."""
        programs = {name: next(filter(None, map(shutil.which, names)), None) for name, names in PROGRAMS.items()}
        missing = [name for name, program in programs.items() if program is None]
        if missing:
            names = " and ".join(missing)
            self._tell(f"no {names} beside this plane: not installed; next: apt-get install {PACKAGES} (or --no-prometheus)")
        if not CONFIGURATION.is_dir():
            self._tell(f"no prometheus beside this plane: {CONFIGURATION} is not there; next: start it from a checkout")
            return {}
        ports = {name: port for name, port in self._ports.items() if name not in missing}
        for name, program in programs.items():
            try:
                if program is not None:
                    self._start(name, program, ports)
            except OSError as error:  # a full disk, say: the plane must run without it
                self._tell(f"no {name} beside this plane: {error}")
        return {running.name: running.url for running in self._running}

    def check(self) -> None:
        """Tell, once for each, that one of them listens now or has ended."""
        for running in self._running:
            code = running.process.poll()
            if code is not None and "ended" not in running.said:
                running.said.add("ended")
                self._tell(f"{running.name} ended with {code}: {_last_line(running.log)}; its log: {running.log}")
            elif code is None and "ready" not in running.said and _answers(f"{running.url}/-/ready"):
                running.said.add("ready")
                self._tell(f"{running.name} at {running.url}")

    def stop(self) -> None:
        """End both."""
        for running in self._running:
            running.process.terminate()
        for running in self._running:
            try:
                running.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()
            running.targets.remove()
        self._running.clear()

    def _start(self, name: str, program: str, ports: dict[str, int]) -> None:
        folder, url = self._workspace.prometheus().resolve() / name, f"http://{LOOPBACK}:{ports[name]}"
        folder.mkdir(parents=True, exist_ok=True)
        write = write_prometheus_config if name == PROMETHEUS else write_alertmanager_config
        config, log = write(self._workspace, ports), folder / f"{name}.log"
        words = [program, f"--config.file={config}", f"--web.listen-address={LOOPBACK}:{ports[name]}"]
        words += [f"--web.external-url={url}"]
        if name == PROMETHEUS:
            words += [f"--storage.tsdb.path={folder / 'data'}", f"--storage.tsdb.retention.time={RETENTION}"]
        else:
            words += [f"--storage.path={folder / 'data'}", "--cluster.listen-address="]  # it is alone
        targets = TargetFile(self._workspace, name)
        targets.write([group_of(url)])
        self._running.append(Running(name, url, _spawn(words, log), log, targets))


def write_prometheus_config(workspace: Workspace, ports: dict[str, int]) -> Path:
    """The repository's configuration with this workspace's targets; without Alertmanager where ``ports`` names none."""
    content: dict[str, Any] = yaml.safe_load((CONFIGURATION / "prometheus.yml").read_text(encoding="utf-8"))
    content["rule_files"] = [str(CONFIGURATION / name) for name in content["rule_files"]]
    targets = workspace.scrape_targets().resolve()
    for scrape in content["scrape_configs"]:
        for found in scrape["file_sd_configs"]:
            found["files"] = [str(targets / Path(name).name) for name in found["files"]]
    if ALERTMANAGER in ports:
        address = f"{LOOPBACK}:{ports[ALERTMANAGER]}"
        content["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [address]}]}]
    else:
        del content["alerting"]
    return _write(workspace.prometheus() / PROMETHEUS / "prometheus.yml", content)


def write_alertmanager_config(workspace: Workspace, _ports: dict[str, int]) -> Path:
    """The repository's configuration, unless the operator has put one with receivers into the workspace."""
    own = workspace.prometheus() / "alertmanager.yml"
    if own.exists():
        return own.resolve()
    content = yaml.safe_load((CONFIGURATION / "alertmanager.yml").read_text(encoding="utf-8"))
    return _write(workspace.prometheus() / ALERTMANAGER / "alertmanager.yml", content)


def _write(path: Path, content: object) -> Path:
    partial = path.with_suffix(".partial")
    partial.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    partial.replace(path)
    return path.resolve()


def _spawn(words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """A process that ends with this one, however this one ends; its output goes to ``log``."""
    with log.open("wb") as output:
        command = [sys.executable, "-I", "-c", END_WITH_PARENT, *words]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=os.sep)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=PROBE_TIMEOUT_S) as reply:
            return bool(reply.status == 200)
    except (OSError, HTTPException):
        return False


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "nothing in its log"
