"""Simulations that several tests read; each is played once a test run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from simulation import Scenario, SimulationSummary, play


@dataclass(frozen=True)
class Played:
    """A finished simulation and its tables."""

    scenario: Scenario
    summary: SimulationSummary

    def read(self, name: str) -> pl.DataFrame:
        return pl.read_parquet(self.summary.out_dir / f"{name}.parquet")

    @property
    def events(self) -> pl.DataFrame:
        """Distinct events: the delivery ingested first."""
        return self.read("events").unique("event_id", keep="first", maintain_order=True)


@pytest.fixture(scope="session")
def play_scenario(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Played]:
    def run(**options: Any) -> Played:
        scenario = Scenario(**options)
        return Played(scenario, play(scenario, tmp_path_factory.mktemp("simulation")))

    return run


@pytest.fixture(scope="session")
def quarter(play_scenario: Callable[..., Played]) -> Played:
    """4,000 users, 90 days, no drift, all users followed."""
    return play_scenario(users=4_000, days=90, seed=11, truth_users=4_000)


@pytest.fixture(scope="session")
def small_options() -> dict[str, Any]:
    return {"users": 400, "days": 40, "seed": 5, "truth_users": 50}


@pytest.fixture(scope="session")
def small(play_scenario: Callable[..., Played], small_options: dict[str, Any]) -> Played:
    """400 users, 40 days: what other small simulations are compared with."""
    return play_scenario(**small_options)


@pytest.fixture
def out_dir(tmp_path: Path) -> Path:
    return tmp_path / "out"
