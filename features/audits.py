"""Skew audits as they are kept for monitors: one JSON file each, by model, named by when it was made; no user is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from features.errors import StoreError, explain
from features.workspace import Workspace

KEPT: Final = 50
"""Files a model; older ones are removed."""
FIELDS: Final = ("model", "versions", "start_us", "end_us", "rows", "whole", "statuses", "checked", "mismatched", "mismatches")


def keep_audit(workspace: Workspace, audit: Mapping[str, Any], *, measured_at_us: int) -> Path:
    """Keep what ``SkewAudit.describe`` says, whole or not at all; the same audit again changes nothing.

    Of the first differing signal its kind and name are kept, and not the user whose row shows it.
    """
    folder = _folder(workspace, audit["model"])
    folder.mkdir(parents=True, exist_ok=True)
    first = audit["first"] and {name: audit["first"][name] for name in ("kind", "signal")}
    content = {name: audit[name] for name in FIELDS} | {"first": first, "measured_at_us": measured_at_us}
    path = folder / f"{measured_at_us:020d}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    partial.replace(path)
    for old in sorted(folder.glob("*.json"))[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def read_newest_audit(workspace: Workspace, model: str) -> dict[str, Any] | None:
    """The audit that was made last; None where there is none.

    Raises:
        StoreError: its file is damaged.
    """
    path = max(_folder(workspace, model).glob("*.json"), default=None)
    if path is None:
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _ = [content[name] for name in (*FIELDS, "first", "measured_at_us")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            explain("skew audit cannot be read", which=str(path), expected="a file that an audit wrote", got=repr(error),
                    next_step="remove the file and audit again")
        ) from error  # fmt: skip
    return content


def _folder(workspace: Workspace, model: str) -> Path:
    return workspace.root / "monitoring" / "audits" / model
