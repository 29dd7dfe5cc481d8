"""Every dashboard, and the files that Grafana reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from monitoring.dashboards.data import DRIFT_BOARD, HEALTH_BOARD, LABELS_BOARD, STREAM_BOARD
from monitoring.dashboards.panels import Board, render
from monitoring.dashboards.serving import ROLLOUT_BOARD, SERVICE_BOARD

BOARDS: Final = (SERVICE_BOARD, ROLLOUT_BOARD, DRIFT_BOARD, STREAM_BOARD, LABELS_BOARD, HEALTH_BOARD)


def file_name(board: Board) -> str:
    """Of a dashboard's JSON."""
    return f"{board.uid.removeprefix('plumbline-')}.json"


def dump(board: Board) -> str:
    """A dashboard's JSON as it is committed."""
    return json.dumps(render(board), indent=1, ensure_ascii=False) + "\n"


def write_boards(folder: Path) -> None:
    """Write them all; files of dashboards that are no more are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {file_name(board): dump(board) for board in BOARDS}
    for path in folder.glob("*.json"):
        if path.name not in names:
            path.unlink()
    for name, text in names.items():
        partial = folder / f"{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / name)
