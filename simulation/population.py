"""Who the users are: everything about a user that does not change with time."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from features.layout import DAY_S
from simulation.randomness import stream
from simulation.scenario import Scenario

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

REGIONS: Final = ("eu", "us")
PLACES: Final = (
    # country, region, minutes east of UTC all year, share of users
    ("DE", "eu", 60, 0.14), ("FR", "eu", 60, 0.12), ("ES", "eu", 60, 0.08), ("GB", "eu", 0, 0.12), ("FI", "eu", 120, 0.04),
    ("US", "us", -300, 0.20), ("US", "us", -360, 0.10), ("US", "us", -480, 0.10),
    ("CA", "us", -300, 0.05), ("MX", "us", -360, 0.05),
)  # fmt: skip
COUNTRIES: Final = tuple(sorted({place[0] for place in PLACES}))
MIN_UTC_OFFSET_MINUTES: Final = min(place[2] for place in PLACES)
MAX_UTC_OFFSET_MINUTES: Final = max(place[2] for place in PLACES)


def zone_names(offset_minutes: Ints) -> list[str]:
    """IANA zones that keep an offset of whole hours all year; their sign is that of POSIX, west positive.

    Example:
        >>> zone_names(np.array([60, 0, -300]))
        ['Etc/GMT-1', 'UTC', 'Etc/GMT+5']
    """
    return [f"Etc/GMT{-minutes // 60:+d}" if minutes else "UTC" for minutes in offset_minutes.tolist()]


@dataclass(frozen=True)
class Population:
    """Fixed traits, one array entry a user.

    ``signup_day`` is a local day relative to the start (negative before it), ``signup_second`` the second of that local
    day. ``session_rate`` is sessions a day in an average active mood, ``quiet_entry`` the chance a day to fall quiet,
    ``click_share`` the chance to click an offer shown. Best hours are local hours of day, 0 to 23.
    """

    country: Ints
    region: Ints
    utc_offset_minutes: Ints
    platform: Ints
    signup_day: Ints
    signup_second: Ints
    signup_plan: Ints
    session_rate: Floats
    quiet_entry: Floats
    click_share: Floats
    openness: Floats
    duration_scale: Floats
    best_hour_weekday: Ints
    best_hour_weekend: Ints

    def __len__(self) -> int:
        return len(self.region)

    def take(self, users: Ints) -> Self:
        """The traits of some users, repeats allowed."""
        return type(self)(**{field.name: getattr(self, field.name)[users] for field in fields(self)})

    def best_hour(self, users: Ints, weekday: int) -> Ints:
        """The local hour at which each of these users opens messages best on this weekday."""
        return (self.best_hour_weekend if weekday >= 5 else self.best_hour_weekday)[users]


def draw_population(scenario: Scenario) -> Population:
    """Draw every user's fixed traits."""
    world = scenario.world
    rng = stream(scenario.seed, "population")
    users = scenario.users
    place = rng.choice(len(PLACES), size=users, p=np.array([entry[3] for entry in PLACES]))
    best_weekday = _draw_best_hours(rng, users)
    # Half of the users keep another hour at the weekend, 2 to 5 hours later.
    weekend_shift = np.where(rng.random(users) < 0.5, 0, rng.integers(2, 6, users))
    return Population(
        country=np.array([COUNTRIES.index(entry[0]) for entry in PLACES])[place],
        region=np.array([REGIONS.index(entry[1]) for entry in PLACES])[place],
        utc_offset_minutes=np.array([entry[2] for entry in PLACES])[place],
        platform=rng.choice(len(world.platforms), size=users, p=np.array(world.platform_shares)),
        signup_day=_draw_signup_days(rng, scenario),
        signup_second=rng.integers(6 * 3_600, DAY_S - 3_600, users),
        signup_plan=rng.choice(len(world.plan_shares), size=users, p=np.array(world.plan_shares)),
        session_rate=world.session_rate_median * np.exp(world.session_rate_sigma * rng.standard_normal(users)),
        quiet_entry=np.minimum(rng.gamma(1.2, world.quiet_entry_mean / 1.2, users), 0.2),
        click_share=np.minimum(rng.beta(1.6, 1.6 / world.click_share_mean - 1.6, users), 0.5),
        openness=rng.beta(6.0, 3.0, users),
        duration_scale=np.exp(0.35 * rng.standard_normal(users)),
        best_hour_weekday=best_weekday,
        best_hour_weekend=(best_weekday + weekend_shift) % 24,
    )


def _draw_signup_days(rng: np.random.Generator, scenario: Scenario) -> Ints:
    """Local signup days; tenures at the start lean towards the recent, as they do where people leave."""
    world = scenario.world
    before = rng.random(scenario.users) < world.share_before_start
    tenure = 1 + (world.oldest_tenure_days - 1) * rng.random(scenario.users) ** 2
    after = rng.integers(0, scenario.days, scenario.users)
    return np.where(before, -tenure.astype(np.int64), after)


def _draw_best_hours(rng: np.random.Generator, users: int) -> Ints:
    """Three kinds of people: morning (around 7), noon (around 12), evening (around 20)."""
    kind = rng.choice(3, size=users, p=np.array([0.30, 0.25, 0.45]))
    centre = np.array([7.0, 12.0, 20.0])[kind]
    return np.rint(centre + 1.8 * rng.standard_normal(users)).astype(np.int64) % 24
