"""Write every dashboard into ``manifests/monitoring/dashboards``: ``python -m monitoring.dashboards``."""

from __future__ import annotations

from pathlib import Path

from monitoring.dashboards.boards import write_boards

write_boards(Path(__file__).resolve().parents[2] / "manifests" / "monitoring" / "dashboards")
