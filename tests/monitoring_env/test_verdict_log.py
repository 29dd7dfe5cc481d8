"""Monitors of this environment write verdicts that the main environment reads: the same tables, its own SQLAlchemy."""

from __future__ import annotations

from pathlib import Path

from features.workspace import Workspace
from monitoring.verdict_log import read_history, read_standing, record_verdicts
from monitoring.verdicts import Outcome, Severity, Verdict


def test_a_verdict_stands_here_too(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    verdict = Verdict("freshness", "view:user@1", Outcome.FAIL, Severity.PAGE, {"age_s": 900.0}, "900 s old", 1_000_000)
    record_verdicts(workspace, [verdict], valid_for_s=60, now_us=1_000_000)
    (standing,) = read_standing(workspace, now_us=2_000_000)
    assert (standing.verdict, standing.judged(61_000_001).outcome) == (verdict, Outcome.INCONCLUSIVE)
    assert read_history(workspace, since_us=0) == (verdict,)
