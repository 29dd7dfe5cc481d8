"""Where this workspace's processes export metrics: small files that Prometheus watches (``file_sd_configs``).

Ports may be free ones, so each process says itself where it listens, in a file named by its job and process. One that is
killed leaves its file behind: then its target is down, which alerts say, until another process of its job starts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from features.workspace import Workspace

PLANE: Final = "plane"
SERVER: Final = "server"
CONTROLLER: Final = "controller"
MONITORS: Final = "monitors"
DRIFT: Final = "drift"
STREAM: Final = "stream"
PROMETHEUS: Final = "prometheus"
ALERTMANAGER: Final = "alertmanager"
JOBS: Final = (PLANE, SERVER, CONTROLLER, MONITORS, DRIFT, STREAM, PROMETHEUS, ALERTMANAGER)

Group = Mapping[str, Any]
"""One entry of a file: ``targets``, addresses HOST:PORT, and the ``labels`` that each of their series gets."""


class TargetFile:
    """This process's file for one job."""

    def __init__(self, workspace: Workspace, job: str) -> None:
        self._path = workspace.scrape_targets() / f"{job}-{os.getpid()}.json"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._written: Sequence[Group] | None = None
        for path in self._path.parent.glob(f"{job}-*.json"):
            process = path.stem.rpartition("-")[2]
            if process.isdecimal() and not _lives(int(process)):  # else somebody's own file
                path.unlink(missing_ok=True)

    def write(self, groups: Sequence[Group]) -> None:
        """Put these in the place of what was said before; nothing is written where they are the same."""
        if groups == self._written:
            return
        partial = self._path.with_suffix(".partial")  # Prometheus reads *.json
        partial.write_text(json.dumps(groups, indent=1))
        partial.replace(self._path)
        self._written = groups

    def remove(self) -> None:
        """The process listens no more, and that is as it should be."""
        self._path.unlink(missing_ok=True)


@contextmanager
def announced(workspace: Workspace, job: str, address: str, **labels: str) -> Iterator[None]:
    """Say for as long as the block runs that this process exports metrics.

    Args:
        job: one of ``JOBS``.
        address: URL or HOST:PORT; metrics are at its path ``/metrics``.
        labels: of each of its series.
    """
    file = TargetFile(workspace, job)
    file.write([group_of(address, **labels)])
    try:
        yield
    finally:
        file.remove()


def group_of(address: str, **labels: str) -> Group:
    """One target with its labels."""
    return {"targets": [urlsplit(address).netloc or address], "labels": labels}


def servers_of(services: Iterable[Mapping[str, Any]]) -> list[Group]:
    """Targets of the server processes of these InferenceServices, as the plane shows them; one that does not listen has none.

    Series get ``service`` and ``version``; the servers' own name model and revision.
    """
    return [
        group_of(f"127.0.0.1:{revision['port']}", service=service["metadata"]["name"],
                 version=revision["storageUri"].rstrip("/").rpartition("/")[2])
        for service in services
        for revision in service["status"]["revisions"]
        if revision["port"] is not None
    ]  # fmt: skip


def read_targets(folder: Path) -> dict[str, list[str]]:
    """Addresses by job, as the files say."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.json")):
        groups = json.loads(path.read_text())
        found.setdefault(path.stem.rpartition("-")[0], []).extend(target for group in groups for target in group["targets"])
    return found


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True
