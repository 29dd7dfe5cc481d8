"""Which run registers a version."""

from __future__ import annotations

import pytest

from components.registration import Run
from models.errors import VersionError


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
