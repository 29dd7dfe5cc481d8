"""Which code a run was made with: of the process that asks, on this machine or in an image."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

DISTRIBUTION: Final = "plumbline"
ROOT: Final = Path(__file__).resolve().parent.parent


def code_version(root: Path = ROOT) -> dict[str, str | bool | None]:
    """The package's version and, where the code lies in a checkout of its own, the commit and whether files differ.

    Returns:
        ``package`` (None where it is not installed), ``git_sha`` and ``git_dirty`` (None outside a checkout).
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    in_checkout = top is not None and Path(top).resolve() == root.resolve()
    return {
        "package": _installed_version(),
        "git_sha": _git(root, "rev-parse", "HEAD") if in_checkout else None,
        "git_dirty": bool(_git(root, "status", "--porcelain")) if in_checkout else None,
    }


def _installed_version() -> str | None:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return None


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints, or None where there is no git, no repository or no commit."""
    try:
        finished = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return finished.stdout.strip() if finished.returncode == 0 else None
