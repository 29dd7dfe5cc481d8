"""The known truth, written beside the events: users' latent traits, daily hazards, 30-day probabilities, constants."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.rows import TIME
from simulation.batch import PLAN_NAMES, local_time_us
from simulation.behaviour import State
from simulation.days import Risks
from simulation.forward import look_ahead
from simulation.population import COUNTRIES, REGIONS, Ints, Population
from simulation.randomness import stream
from simulation.scenario import Scenario
from simulation.subscriptions import NEVER_DAY, Subscriptions, signup_times_us
from simulation.tables import names_of, times

DAILY: Final = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("day", pa.int32(), nullable=False),
        pa.field("time", TIME, nullable=False),
        pa.field("plan", pa.string(), nullable=False),
        pa.field("quiet", pa.bool_(), nullable=False),
        pa.field("sessions_7d", pa.int32(), nullable=False),
        pa.field("sessions_30d", pa.int32(), nullable=False),
        pa.field("churn_hazard", pa.float32(), nullable=False),
        pa.field("upgrade_hazard", pa.float32(), nullable=False),
    ]
)
"""``truth_daily.parquet``: a row for each user subscribed at the start of a local day; ``time`` is that start."""

OUTLOOK: Final = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("day", pa.int32(), nullable=False),
        pa.field("time", TIME, nullable=False),
        pa.field("churn_probability_30d", pa.float32(), nullable=False),
        pa.field("churn_standard_error", pa.float32(), nullable=False),
        pa.field("upgrade_probability_30d", pa.float32(), nullable=False),
        pa.field("upgrade_standard_error", pa.float32(), nullable=False),
    ]
)
"""``truth_outlook.parquet``: 30-day probabilities of sampled users at every 14th local day."""


class TruthWriter:
    """Writes the two growing truth files day by day."""

    def __init__(
        self, daily_path: Path, outlook_path: Path, user_ids: pa.StringArray, population: Population, scenario: Scenario
    ):
        self._user_ids, self._population, self._scenario = user_ids, population, scenario
        order = stream(scenario.seed, "truth", -1).permutation(len(population))
        self._followed = np.sort(order[: scenario.truth_users])
        self._daily = pq.ParquetWriter(daily_path, DAILY, compression="zstd", compression_level=1)
        self._outlook = pq.ParquetWriter(outlook_path, OUTLOOK, compression="zstd", compression_level=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._daily.close()
        self._outlook.close()

    def record(self, state: State, risks: Risks, day: int) -> None:
        """Note the start of a local day: hazards of all who are subscribed and, on its days, the outlook of some."""
        users = np.flatnonzero(risks.exposed)
        columns = {
            **self._where_and_when(users, day),
            "plan": names_of(state.plan[users], PLAN_NAMES),
            "quiet": pa.array(state.quiet[users]),
            "sessions_7d": pa.array(state.sessions_7d[users], pa.int32()),
            "sessions_30d": pa.array(state.sessions_30d[users], pa.int32()),
            "churn_hazard": pa.array(risks.churn[users].astype(np.float32)),
            "upgrade_hazard": pa.array(risks.upgrade[users].astype(np.float32)),
        }
        self._daily.write_table(pa.table(columns, schema=DAILY))
        if day % self._scenario.world.truth_every_days == 0:
            self._record_outlook(state, self._followed[risks.exposed[self._followed]], day)

    def _record_outlook(self, state: State, users: Ints, day: int) -> None:
        rng = stream(self._scenario.seed, "truth", day)
        outlook = look_ahead(state, self._population, users, day, rng, self._scenario)
        columns = {
            **self._where_and_when(users, day),
            "churn_probability_30d": pa.array(outlook.churn.astype(np.float32)),
            "churn_standard_error": pa.array(outlook.churn_error.astype(np.float32)),
            "upgrade_probability_30d": pa.array(outlook.upgrade.astype(np.float32)),
            "upgrade_standard_error": pa.array(outlook.upgrade_error.astype(np.float32)),
        }
        self._outlook.write_table(pa.table(columns, schema=OUTLOOK))

    def _where_and_when(self, users: Ints, day: int) -> dict[str, pa.Array]:
        start = local_time_us(self._scenario, self._population, day, users, np.zeros(len(users)))
        return {
            "user_id": self._user_ids.take(pa.array(users)),
            "day": pa.array(np.full(len(users), day, dtype=np.int32)),
            "time": times(start),
        }


def users_table(population: Population, subscriptions: Subscriptions, user_ids: pa.StringArray, scenario: Scenario) -> pa.Table:
    """``truth_users.parquet``: every user's traits and what became of them; null where something never happened."""
    cancel_day, upgrade_day = subscriptions.cancel_day, subscriptions.upgrade_day
    return pa.table(
        {
            "user_id": user_ids,
            "region": names_of(population.region, REGIONS),
            "country": names_of(population.country, COUNTRIES),
            "utc_offset_minutes": pa.array(population.utc_offset_minutes),
            "platform": names_of(population.platform, scenario.world.platforms),
            "signup_plan": names_of(population.signup_plan, PLAN_NAMES),
            "signup_day": pa.array(population.signup_day),
            "signup_time": times(signup_times_us(scenario, population)),
            "cancel_day": pa.array(cancel_day, mask=cancel_day == NEVER_DAY),
            "cancel_time": times(subscriptions.cancel_us),
            "first_upgrade_day": pa.array(upgrade_day, mask=upgrade_day == NEVER_DAY),
            "first_upgrade_time": times(subscriptions.upgrade_us),
            "session_rate": pa.array(population.session_rate),
            "quiet_entry": pa.array(population.quiet_entry),
            "click_share": pa.array(population.click_share),
            "openness": pa.array(population.openness),
            "best_hour_weekday": pa.array(population.best_hour_weekday),
            "best_hour_weekend": pa.array(population.best_hour_weekend),
        }
    )
