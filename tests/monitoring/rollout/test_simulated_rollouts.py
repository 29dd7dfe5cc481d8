"""The smaller version of `make bench-rollouts`: the same streams, gates and steps, fewer rollouts."""

from __future__ import annotations

import pytest

from benchmarks.rollouts import BAD, OURS, median_requests, run_kind, share_rolled_back
from monitoring.rollout.step import Phase


def test_equal_canaries_are_promoted():
    # At a rate of 0.01 or less, 2 or more rollbacks of 24 have probability 0.02; they are drawn the same every time.
    courses = run_kind("equal", 24)
    assert share_rolled_back(courses, OURS) <= 1 / 24
    assert sum(course.phase is Phase.PROMOTED for course in courses) >= 23


@pytest.mark.parametrize("kind", BAD)
def test_every_bad_kind_is_rolled_back_within_a_few_hundred_canary_requests(kind):
    courses = run_kind(kind, 10)
    assert share_rolled_back(courses, OURS) == 1
    assert median_requests(courses, OURS) <= 600


def test_a_canary_that_differs_less_than_the_tolerances_is_promoted():
    assert [course.phase for course in run_kind("retrained", 6)] == [Phase.PROMOTED] * 6
