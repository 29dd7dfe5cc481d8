"""One scenario for all parity tests: awkward events, ten thousand reads of them, and what the oracle answers."""

from __future__ import annotations

import pytest
from parity.paths import Scenario, make_scenario

from features.catalogs import load_catalog


@pytest.fixture(scope="session")
def scenario() -> Scenario:
    catalog = load_catalog("subscription")
    return make_scenario(catalog, catalog.view("subscriber"), users=300, pairs=10_000)
