"""A minute of kill -9 at random; ``make chaos`` does the same for ten."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from e2e.rollouts.chaos import open_chaos

SECONDS = 60
RATE = 40


def test_weights_stay_as_recorded_while_everything_is_killed_at_random(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_chaos(tmp_path, random.Random(11)) as chaos:
        report = chaos.run(SECONDS, rate=RATE, users=2_000)
    with capsys.disabled():
        sys.stdout.write(f"\n{report}\n")
    assert sum(report.kills.values()) >= 3
    assert report.weights_checked > 20
    assert (report.wrong_weights, report.stray) == ([], [])
    assert report.answered_in_the_end
