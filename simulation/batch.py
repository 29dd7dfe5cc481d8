"""Events on their way: parallel arrays, so that a day of any story is built and joined without a loop over events."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from features.catalogs.subscription import CHANNELS, EVENT_TYPES, PLANS
from features.layout import DAY_S, US_PER_S
from simulation.population import Ints, Population
from simulation.scenario import Scenario

EVENT_TYPE_NAMES: Final = tuple(event_type.name for event_type in EVENT_TYPES)
EVENT_TYPE_CODES: Final = {name: code for code, name in enumerate(EVENT_TYPE_NAMES)}
CHANNEL_CODES: Final = {name: code for code, name in enumerate(CHANNELS)}
PLAN_NAMES: Final = PLANS

NO_CODE: Final = -1
NO_VALUE: Final = np.iinfo(np.int64).min

Codes = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Batch:
    """Events as arrays of one length; ``NO_CODE`` and ``NO_VALUE`` stand for null.

    ``time_us`` is when the event truly happened, UTC microseconds. Codes index the names of the event type, channel,
    platform, plan and offer.
    """

    user: Ints
    event_type: Codes
    time_us: Ints
    duration_ms: Ints
    amount_cents: Ints
    channel: Codes
    platform: Codes
    plan: Codes
    offer: Codes
    utc_offset_minutes: Ints

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Self:
        """Some rows, by index or mask."""
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def make_batch(event_type: str, user: Ints, time_us: Ints, **values: npt.NDArray[np.integer]) -> Batch:
    """Events of one type; ``values`` are columns of ``Batch``, the others are null."""
    rows = len(user)

    def value(name: str) -> Ints:
        return values[name].astype(np.int64) if name in values else np.full(rows, NO_VALUE)

    def code(name: str) -> Codes:
        return values[name].astype(np.int16) if name in values else np.full(rows, NO_CODE, dtype=np.int16)

    return Batch(
        user=user,
        event_type=np.full(rows, EVENT_TYPE_CODES[event_type], dtype=np.int16),
        time_us=time_us,
        duration_ms=value("duration_ms"),
        amount_cents=value("amount_cents"),
        channel=code("channel"),
        platform=code("platform"),
        plan=code("plan"),
        offer=code("offer"),
        utc_offset_minutes=value("utc_offset_minutes"),
    )


def join_batches(batches: list[Batch]) -> Batch:
    """All events of the batches, in order; at least one batch."""
    return Batch(**{field.name: np.concatenate([getattr(batch, field.name) for batch in batches]) for field in fields(Batch)})


def local_time_us(scenario: Scenario, population: Population, day: int, users: Ints, second: npt.NDArray[np.floating]) -> Ints:
    """UTC microseconds of a second of a local day, for each user's own offset.

    On the day of signup the seconds are squeezed into what is left of the day after the signup.
    """
    signed_up = np.where(population.signup_day[users] == day, population.signup_second[users] + 1, 0)
    second = signed_up + second * (1 - signed_up / DAY_S)
    local_us = day * DAY_S * US_PER_S + (second * US_PER_S).astype(np.int64)
    return scenario.start_us + local_us - population.utc_offset_minutes[users] * 60 * US_PER_S
