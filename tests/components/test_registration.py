"""Which run registers a version."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.registration import LEFT, Run, verdict_of
from features.workspace import Workspace
from models.aliases import champion_of, history, list_aliases
from models.errors import VersionError
from models.gate import Decision
from models.versions import NewVersion, register


@pytest.mark.parametrize(
    "created_at", ["2026-01-09T12:34:56Z", "2026-01-09T13:34:56+01:00", "2026-01-09T12:34:56.000000+00:00"]
)
def test_a_runs_start_is_an_instant_whoever_wrote_it(created_at: str) -> None:
    # 20,462 days from 1970-01-01 to 2026-01-09, and 12:34:56.
    assert Run("run-1", created_at, 0).created_at_us == (20_462 * 86_400 + 45_296) * 1_000_000


@pytest.mark.parametrize("created_at", ["{{$.pipeline_job_create_time_utc}}", "", "yesterday", "2026-01-09T12:34:56"])
def test_a_server_that_does_not_fill_in_the_start_is_told_in_one_line(created_at: str) -> None:
    with pytest.raises(VersionError, match=r"^run does not say when it was created: run-1; [^\n]+ KFP server of release 2\.17"):
        _ = Run("run-1", created_at, 0).created_at_us


@pytest.mark.parametrize("may_promote", [True, False])
def test_a_version_that_beats_the_champion_takes_its_place_only_in_a_run_that_may_promote(
    may_promote: bool, tmp_path: Path
) -> None:
    workspace, exported = Workspace(tmp_path / "workspace"), tmp_path / "exported"
    exported.mkdir()
    decision = Decision(blessed=True, promoted=True, reasons=("promoted: AUC beats the champion by +0.02",))
    first, second = Run("first", "2026-01-09T12:34:56Z", 0), Run("second", "2026-01-10T12:34:56Z", 0, may_promote)
    for run in (first, second):
        new = NewVersion("churn", run.created_at_us, run.run_id, blessed=True, reason=decision.reason,
                         view_key="subscriber@1", view_hash="v", graph_hash="g", metrics={})  # fmt: skip
        register(workspace, new, exported, verdict=verdict_of(decision, run))
    assert champion_of(workspace, "churn") == (2 if may_promote else 1)
    assert {entry.alias: entry.to_version for entry in list_aliases(workspace, "churn")}["candidate"] == 2
    why = history(workspace, "churn")[0].why
    assert why == (decision.reasons[-1] if may_promote else LEFT)


def test_a_version_that_the_gate_keeps_a_candidate_says_the_gates_reason_whoever_may_promote() -> None:
    kept = Decision(blessed=True, promoted=False, reasons=("beats recency", "champion version 1 kept: gain +0.000"))
    for may_promote in (True, False):
        verdict = verdict_of(kept, Run("run", "2026-01-09T12:34:56Z", 0, may_promote))
        assert (verdict.promoted, verdict.why) == (False, "champion version 1 kept: gain +0.000")
