from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.rollout.pace import fold_pace, open_pace
from monitoring.rollout.spans import SPAN

ARM = np.array([0, 0, 0, 1] * SPAN, np.int8)
"""One span: 20 canary requests, 60 of stable."""


def test_slow_is_twice_stables_median_of_the_spans_before():
    # Stable's median is 10 ms, to 2.5 %; the canary's own answers of 1 s do not count.
    latency = np.where(ARM == 1, 1.0, np.tile([0.005, 0.01, 0.02, 0.0], SPAN))
    pace, limits = fold_pace(open_pace(), ARM, latency)
    assert np.isnan(limits).all()
    _, limits = fold_pace(pace, ARM, latency)
    assert limits == pytest.approx(np.full(len(ARM), 0.02), rel=0.026)


def test_one_pause_of_stable_does_not_move_the_limit():
    calm, paused = np.full(len(ARM), 0.01), np.full(len(ARM), 1.5)
    pace = open_pace()
    for latency in (calm, calm, paused, paused, calm):
        pace, _ = fold_pace(pace, ARM, latency)
    _, limits = fold_pace(pace, ARM, calm)
    assert limits[0] == pytest.approx(0.02, rel=0.026)


def test_the_limit_follows_the_load():
    pace = open_pace()
    for median_s in (0.01, 0.04, 0.04, 0.04, 0.04, 0.04):
        pace, _ = fold_pace(pace, ARM, np.full(len(ARM), median_s))
    assert fold_pace(pace, ARM, np.full(len(ARM), 0.04))[1][0] == pytest.approx(0.08, rel=0.026)


def test_failures_say_nothing_of_the_pace():
    pace, _ = fold_pace(open_pace(), ARM, np.full(len(ARM), np.nan))
    assert not len(pace.medians)


@given(st.lists(st.integers(0, 400), max_size=6))
def test_however_requests_are_cut_the_limits_are_the_same(places):
    rng = np.random.default_rng(0)
    arm, latency = (rng.random(400) < 0.2).astype(np.int8), rng.lognormal(-4, 0.5, 400)
    whole, limits = fold_pace(open_pace(), arm, latency)
    pace, found = open_pace(), []
    for low, high in zip([0, *sorted(places)], [*sorted(places), 400], strict=True):
        pace, part = fold_pace(pace, arm[low:high], latency[low:high])
        found.append(part)
    assert np.array_equal(np.concatenate(found), limits, equal_nan=True)
    assert (pace.medians == whole.medians).all()
