"""A deletion in a process of its own that kills itself in the middle."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from functools import partial
from pathlib import Path
from types import FrameType

from features.catalogs import load_catalog
from features.deletion import Deletion, delete_entities
from features.online.addresses import ViewVersion, open_store
from features.workspace import Workspace

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["features.deletion"])

FOLLOWED = ("features/deletion.py", "features/deletion_records.py", "features/purging.py", "features/marking.py",
            "features/delta.py", "features/online/lmdb.py")  # fmt: skip


def delete_and_die(root: Path, calls: int) -> None:
    """Delete u1, but die by signal 9 at the n-th call or return within the modules that do it."""
    catalog, workspace = load_catalog("subscription"), Workspace(root)
    view = catalog.view("subscriber")
    address = str(workspace.online(view.key))
    stores = {address: partial(open_store, address, ViewVersion.of(catalog, view))}
    left = calls

    def count(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal left
        if event in ("call", "return") and frame.f_code.co_filename.endswith(FOLLOWED):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    delete_entities(Deletion(workspace, catalog, "user", None, stores), ["u1"], who="ann", reason="by mail", now_us=1)
