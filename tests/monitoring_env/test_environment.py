"""The monitoring environment, run by its own interpreter: `make test` starts it there."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pytest
from alibi_detect.cd import KSDrift


def test_alibi_detect_is_the_last_release_under_a_free_licence():
    assert version("alibi-detect") == "0.11.4"


@pytest.mark.parametrize("framework", ["tensorflow", "keras", "torch"])
def test_no_deep_learning_framework_is_installed(framework):
    with pytest.raises(PackageNotFoundError):
        version(framework)
    assert framework not in sys.modules


def test_the_feature_contract_imports_here_too():
    from features.rows import DEAD_LETTER

    assert "reason" in DEAD_LETTER.names


def test_a_shifted_sample_is_drift_and_the_same_law_is_not():
    # 200 evenly spaced quantiles, step s = 1/200. Moved by 100 s less a quarter step (so that no two points tie), exactly
    # 100 reference points lie below the first moved one, and from there both rise in turn: the KS distance is 100/200,
    # far over the 0.136 that p = 0.05 needs at n = m = 200. Moved by a quarter step they interleave: 1/200.
    reference = ((np.arange(200) + 0.5) / 200)[:, None]
    detector = KSDrift(reference, p_val=0.05)

    shifted = detector.predict(reference + (100 - 0.25) / 200)["data"]
    same = detector.predict(reference + 0.25 / 200)["data"]

    assert shifted["is_drift"] == 1
    assert shifted["distance"][0] == pytest.approx(0.5, abs=1e-6)
    assert same["is_drift"] == 0
    assert same["distance"][0] == pytest.approx(1 / 200, abs=1e-6)
