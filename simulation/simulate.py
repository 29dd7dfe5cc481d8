"""Play a subscription app day by day and write its events, its accounts and the truth behind them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from features.layout import DAY_S, HOUR_S, US_PER_S
from simulation.batch import EVENT_TYPE_CODES, Batch
from simulation.days import assess, play_day, warm_up
from simulation.delivery import deliver, deliver_history
from simulation.log import Log
from simulation.population import Ints, Population, draw_population
from simulation.randomness import stream
from simulation.scenario import MONDAY, Scenario
from simulation.sessions import offer_appeals
from simulation.subscriptions import Subscriptions, play_signups, signup_times_us
from simulation.tables import accounts_table, number_names
from simulation.truth import TruthWriter, users_table

FILES = (
    "events.parquet",
    "accounts.parquet",
    "truth_users.parquet",
    "truth_daily.parquet",
    "truth_outlook.parquet",
    "truth.json",
)
ACCOUNT_EXPORT_S = 2 * HOUR_S
"""Accounts are exported every night at 2:00 UTC: a change is known from the next export on."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SimulationSummary:
    """What was written.

    ``rows`` counts rows of events.parquet; ``events`` the distinct events made, of which ``rows_after_end`` rows had not
    been ingested by the end and are left out. ``event_types`` and ``deliveries`` count events, without duplicates.
    """

    out_dir: Path
    users: int
    days: int
    rows: int
    events: int
    duplicates: int
    rows_after_end: int
    cancelled_users: int
    upgraded_users: int
    event_types: Mapping[str, int]
    deliveries: Mapping[str, int]

    @property
    def events_path(self) -> Path:
        """The events, ordered by ingest_time."""
        return self.out_dir / "events.parquet"

    @property
    def accounts_path(self) -> Path:
        """The account profile's rows."""
        return self.out_dir / "accounts.parquet"


def simulate(  # noqa: PLR0913 - the command's options, all by name; play() takes them as one Scenario
    *,
    users: int,
    days: int,
    seed: int,
    out_dir: Path,
    start: date = MONDAY,
    drift_day: int | None = None,
    drift_kind: str = "engagement",
    sending_hours: str = "uniform",
    truth_users: int = 1_000,
    progress: Progress | None = None,
) -> SimulationSummary:
    """Play ``days`` days of ``users`` users into ``out_dir``; see ``play`` and ``simulation.scenario.Scenario``."""
    scenario = Scenario(users, days, seed, start, drift_day, drift_kind, sending_hours, truth_users)
    return play(scenario, out_dir, progress)


def play(scenario: Scenario, out_dir: Path, progress: Progress | None = None) -> SimulationSummary:
    """Write the files named in ``FILES`` into ``out_dir``, made if missing; files of those names are replaced.

    The same scenario gives the same files. They appear under their names only when all are complete. ``progress`` is
    called with (days played, days) after every day.

    Raises:
        OSError: the folder cannot be written.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    partial = {name: out_dir / f".{name}.partial" for name in FILES}
    try:
        summary = _play_into(partial, scenario, out_dir, progress)
        for name, path in partial.items():
            os.replace(path, out_dir / name)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
    return summary


def _play_into(paths: Mapping[str, Path], scenario: Scenario, out_dir: Path, progress: Progress | None) -> SimulationSummary:
    population = draw_population(scenario)
    user_ids = number_names("u", np.arange(scenario.users), 7)
    state, subscriptions = warm_up(population, scenario)
    log = Log(paths["events.parquet"], user_ids, population, scenario)
    _backfill_signups(log, population, scenario)
    upgrades: list[Batch] = []
    with TruthWriter(paths["truth_daily.parquet"], paths["truth_outlook.parquet"], user_ids, population, scenario) as truth:
        for day in range(scenario.days):
            risks = assess(state, subscriptions, population, day, scenario)
            truth.record(state, risks, day)
            batch = play_day(state, subscriptions, population, day, risks, scenario)
            log.add(batch, deliver(batch, log.next_number, stream(scenario.seed, "delivery", day), scenario.world))
            log.write_before_day(day + 1)
            upgrades.append(batch.take(batch.event_type == EVENT_TYPE_CODES["upgrade"]))
            if progress is not None:
                progress(day + 1, scenario.days)
    log.close()
    changes = _account_changes(upgrades, population, scenario)
    pq.write_table(accounts_table(changes, user_ids, population), paths["accounts.parquet"])
    pq.write_table(users_table(population, subscriptions, user_ids, scenario), paths["truth_users.parquet"])
    summary = _summarise(log, subscriptions, scenario, out_dir)
    paths["truth.json"].write_text(json.dumps(_describe(summary, scenario), indent=2, sort_keys=True) + "\n")
    return summary


def _backfill_signups(log: Log, population: Population, scenario: Scenario) -> None:
    """Signups from before the log began enter it in its first hour."""
    batch = play_signups(np.flatnonzero(population.signup_day < 0), population, scenario)
    rng = stream(scenario.seed, "delivery", -1)
    log.add(batch, deliver_history(batch, log.next_number, scenario.start_us, rng))


def _account_changes(upgrades: list[Batch], population: Population, scenario: Scenario) -> dict[str, Ints]:
    """Signup rows and upgrade rows that were exported before the end."""
    user = np.concatenate([np.arange(len(population)), *(batch.user for batch in upgrades)])
    plan = np.concatenate([population.signup_plan, *(batch.plan.astype(np.int64) for batch in upgrades)])
    valid_us = np.concatenate([signup_times_us(scenario, population), *(batch.time_us for batch in upgrades)])
    day_us, offset_us = DAY_S * US_PER_S, ACCOUNT_EXPORT_S * US_PER_S
    created_us = -(-(valid_us - offset_us) // day_us) * day_us + offset_us
    created_us = np.where(valid_us < scenario.start_us, scenario.start_us, created_us)
    known = created_us < scenario.end_us
    return {"user": user[known], "plan": plan[known], "valid_us": valid_us[known], "created_us": created_us[known]}


def _summarise(log: Log, subscriptions: Subscriptions, scenario: Scenario, out_dir: Path) -> SimulationSummary:
    return SimulationSummary(
        out_dir=out_dir,
        users=scenario.users,
        days=scenario.days,
        rows=log.rows_written,
        events=log.next_number,
        duplicates=log.duplicates,
        rows_after_end=log.rows_after_end,
        cancelled_users=int((subscriptions.cancel_us >= 0).sum()),
        upgraded_users=int((subscriptions.upgrade_us >= 0).sum()),
        event_types=dict(log.event_types),
        deliveries=dict(log.deliveries),
    )


def _describe(summary: SimulationSummary, scenario: Scenario) -> dict[str, object]:
    """Content of truth.json: the scenario, the world's constants and the counts made."""
    described = asdict(scenario)
    world = described.pop("world")
    described["start"] = scenario.start.isoformat()
    counts = asdict(summary)
    counts.pop("out_dir")
    return {"scenario": described, "world": world, "counts": counts, "offer_appeals": offer_appeals(scenario.world).tolist()}
