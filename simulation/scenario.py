"""What is played (``Scenario``) and the constants of the world it is played in (``World``): the known truth.

Both are written to ``truth.json`` as they are, so a test can read every share, delay and coefficient from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from features.errors import explain
from features.layout import DAY_S, US_PER_S
from simulation.errors import SimulationError

MONDAY: Final = date(2025, 1, 6)
"""The default first day, a Monday, so that ``day % 7`` is the weekday of a simulated day."""

DRIFT_KINDS: Final = ("engagement", "unit", "churn", "conversion")
SENDING_HOURS: Final = ("uniform", "biased")
MAX_USERS: Final = 10_000_000


@dataclass(frozen=True)
class World:
    """Constants of the simulated world; docs/simulator.md explains the model they belong to."""

    warm_up_days: int = 45
    truth_every_days: int = 14
    truth_replicates: int = 24
    truth_horizon_days: int = 30

    # Who the users are.
    share_before_start: float = 0.6
    oldest_tenure_days: int = 540
    plan_shares: tuple[float, ...] = (0.60, 0.28, 0.12)  # free, basic, pro at signup
    price_cents: tuple[int, ...] = (0, 799, 1_999)
    platforms: tuple[str, ...] = ("ios", "android", "web")
    platform_shares: tuple[float, ...] = (0.40, 0.38, 0.22)
    platform_loyalty: float = 0.85
    offers: int = 12

    # Sessions.
    session_rate_median: float = 1.1  # a day, in an active mood
    session_rate_sigma: float = 0.9
    mood_persistence: float = 0.96  # AR(1) a day
    mood_sigma: float = 0.45
    quiet_entry_mean: float = 0.018  # chance a day to fall quiet, gamma across users
    quiet_exit: float = 0.03
    quiet_session_factor: float = 0.03
    weekday_factors: tuple[float, ...] = (0.95, 0.93, 0.93, 0.97, 1.0, 1.15, 1.07)
    duration_median_ms: int = 360_000
    duration_sigma: float = 0.8

    # Offers.
    show_share: float = 0.35  # of sessions
    click_share_mean: float = 0.16

    # Messages: chance a day per channel (email, push, in_app), and of being opened at the user's best hour.
    send_shares: tuple[float, ...] = (0.25, 0.35, 0.20)
    open_shares: tuple[float, ...] = (0.70, 0.80, 0.90)
    open_floor: float = 0.05
    open_width_hours: float = 2.0
    quiet_open_factor: float = 0.4
    open_delay_mean_s: float = 600.0
    biased_hours: tuple[int, ...] = (9, 10, 11)
    biased_weight: float = 10.0

    # Churn hazard a day.
    churn_base: tuple[float, ...] = (0.0118, 0.0044, 0.0015)  # free, basic, pro
    churn_per_gap_day: float = 0.20
    churn_gap_cap_days: int = 21
    churn_per_log_week: float = -0.8
    churn_decline: float = 1.1
    churn_click_rate: float = -6.0
    churn_new_user: float = 0.5  # first 30 days of tenure
    churn_cap: float = 0.20

    # Upgrade hazard a day: free to basic, basic to pro, pro to nothing.
    upgrade_base: tuple[float, ...] = (0.00045, 0.00022, 0.0)
    upgrade_per_log_week: float = 0.45
    upgrade_per_log_clicks: float = 0.9
    upgrade_cap: float = 0.10

    # Money.
    billing_days: int = 30
    refund_share: float = 0.04

    # Delivery. Shares are of events; they exclude each other except that any event may be duplicated.
    delay_median_s: float = 2.0
    delay_sigma: float = 0.8
    late_share: float = 0.03
    late_min_s: float = 120.0
    late_max_s: float = 172_800.0
    skewed_share: float = 0.01
    skew_max_s: float = 290.0
    future_share: float = 0.001
    future_min_s: float = 310.0
    future_max_s: float = 21_600.0
    duplicate_share: float = 0.015
    duplicate_long_share: float = 0.2
    duplicate_short_mean_s: float = 60.0
    duplicate_long_min_s: float = 3_600.0
    duplicate_long_max_s: float = 432_000.0
    label_delay_shape: float = 2.0
    label_delay_scale_s: float = 129_600.0  # mean 3 days

    # What drift does.
    drift_engagement_factor: float = 0.5
    drift_unit_divisor: int = 1_000
    drift_churn_factor: float = 2.5
    drift_conversion_factor: float = 0.3


@dataclass(frozen=True)
class Scenario:
    """One simulation: how many users and days, which seed, and which drift from which day.

    ``day`` counts local days from ``start``; ``drift_day`` is the first local day with drift, or None for no drift.
    ``truth_users`` users are followed for true 30-day probabilities. ``world`` holds the constants.
    """

    users: int
    days: int
    seed: int
    start: date = MONDAY
    drift_day: int | None = None
    drift_kind: str = "engagement"
    sending_hours: str = "uniform"
    truth_users: int = 1_000
    world: World = World()

    def __post_init__(self) -> None:
        _require_range("users", self.users, 1, MAX_USERS)
        _require_range("days", self.days, 1, 3_650)
        _require_range("seed", self.seed, 0, (1 << 63) - 1)
        _require_range("truth_users", self.truth_users, 0, MAX_USERS)
        if self.drift_day is not None:
            _require_range("drift_day", self.drift_day, 0, self.days - 1)
        _require_one_of("drift_kind", self.drift_kind, DRIFT_KINDS)
        _require_one_of("sending_hours", self.sending_hours, SENDING_HOURS)

    @property
    def start_us(self) -> int:
        """Midnight UTC of the first day, in microseconds since 1970."""
        midnight = datetime(self.start.year, self.start.month, self.start.day, tzinfo=UTC)
        return int(midnight.timestamp()) * US_PER_S

    @property
    def end_us(self) -> int:
        """Midnight UTC after the last day: the log holds what had been ingested before it."""
        return self.start_us + self.days * DAY_S * US_PER_S

    def weekday(self, day: int) -> int:
        """Weekday of a simulated local day, Monday is 0."""
        return (self.start.weekday() + day) % 7

    def has_drift(self, kind: str, day: int) -> bool:
        """Whether drift of this kind is on during a local day."""
        return self.drift_day is not None and self.drift_kind == kind and day >= self.drift_day


def _require_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise SimulationError(
            explain(
                "simulation parameter out of range",
                which=name,
                expected=f"{low} to {high}",
                got=str(value),
                next_step=f"choose another {name}",
            )
        )


def _require_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SimulationError(
            explain(
                "unknown simulation parameter",
                which=name,
                expected=f"one of {', '.join(allowed)}",
                got=repr(value),
                next_step=f"choose another {name}",
            )
        )
