"""Alertmanager for tests, by the repository's configuration; Prometheus itself is started by ``plumb up``."""

from __future__ import annotations

import contextlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from services.servers import HOST, Account, find_program, run_server, temporary_folder

CONFIGURATION = Path(__file__).parents[2] / "manifests" / "monitoring" / "alertmanager.yml"


@contextlib.contextmanager
def run_alertmanager() -> Iterator[str]:
    """An Alertmanager that knows no other; gives its URL."""
    program, account = find_program("prometheus-alertmanager"), Account(os.getuid(), os.getgid())
    with temporary_folder(account) as folder:

        def command(port: int) -> list[str]:
            options = [f"--config.file={CONFIGURATION}", f"--storage.path={folder / 'data'}", "--cluster.listen-address="]
            return [*account.prefix, program, *options, f"--web.listen-address={HOST}:{port}"]

        with run_server(command, folder / "alertmanager.log", answers) as port:
            yield f"http://{HOST}:{port}"


def answers(port: int) -> bool:
    """Is it ready?"""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/-/ready", timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
