"""Samples with known truth, for the drift tests."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from monitoring.drift.sample import Sample
from monitoring.drift.settings import DriftSettings

HOUR_US = 3_600_000_000
MONDAY_US = 1_736_121_600_000_000  # 2025-01-06T00:00:00Z, a Monday


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def settings():
    return DriftSettings(joint_features=0)


@pytest.fixture
def draw(rng):
    """A sample of ``rows`` standard normal rows of ``features`` features, spread over a week."""

    def make(rows: int, features: int = 3, **fields: object) -> Sample:
        names = tuple(f"f{number}" for number in range(features))
        at_us = MONDAY_US + rng.integers(0, 168 * HOUR_US, rows)
        return Sample(rng.standard_normal((rows, features)).astype(np.float32), names, at_us, **fields)

    return make


@pytest.fixture
def letters(rng):
    """Strings drawn from ``alphabet`` with equal chances."""

    def make(rows: int, alphabet: str = "abc") -> pa.Array:
        return pa.array(rng.choice(list(alphabet), rows).tolist(), pa.string())

    return make
