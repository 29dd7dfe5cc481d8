"""The bound of ``benchmarks.send_time``: what somebody guesses who knows exactly how the simulator makes opens.

Each message and whether it was opened is evidence for a user's best hours, by P(open) of ``simulation.messages``, with the
hours of people as the prior. What cannot be seen is integrated over: openness (a beta distribution across users) and whether
the user was in a quiet stretch, as one factor on openness for her whole history, in a tenth of the mass. The guess is the hour
with the most posterior mass within one hour of it, which maximises the share that is measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from scipy import stats

from features.catalogs.subscription import CHANNELS
from simulation.scenario import World

WORLD: Final = World()
HOURS: Final = 24
SHIFTS: Final = (0, 2, 3, 4, 5)
SHIFT_SHARES: Final = (0.5, 0.125, 0.125, 0.125, 0.125)
KINDS: Final = ((0.30, 7.0), (0.25, 12.0), (0.45, 20.0))
KIND_DEVIATION: Final = 1.8
OPENNESS: Final = tuple(float(stats.beta(6, 3).ppf((number + 0.5) / 8)) for number in range(8))
QUIET_SHARE: Final = 0.1
MATCH_S: Final = 3 * 3_600 + 2
MINUTES: Final = 60
Array = np.ndarray[Any, np.dtype[Any]]


def closeness(hours: Array, best: Array) -> Array:
    """The factor of a best hour in P(open) at local hours of day (fractions), before openness and channel."""
    apart = np.abs(hours - best - 0.5)
    apart = np.minimum(apart, HOURS - apart)
    near: Array = WORLD.open_floor + (1 - WORLD.open_floor) * np.exp(-0.5 * (apart / WORLD.open_width_hours) ** 2)
    return near


def true_rates(truth: pl.DataFrame) -> Array:
    """(n, 168) each user's chance to open by slot, up to a factor of her own: the mean over the minutes of the hour."""
    minute = (np.arange(MINUTES) + 0.5) / MINUTES
    hours = np.arange(HOURS)[:, None] + minute
    tables = np.array([closeness(hours, best).mean(axis=1) for best in range(HOURS)])
    days = [tables[truth["best_hour_weekday"].to_numpy()]] * 5 + [tables[truth["best_hour_weekend"].to_numpy()]] * 2
    return np.concatenate(days, axis=1)


def guess_best_hours(events_path: Path, truth: pl.DataFrame, now_us: Array) -> Array:
    """(n,) the best guess of each user's best hour on working days, from messages sent before ``now_us``."""
    messages = read_messages(events_path)
    cutoffs = pl.DataFrame({"user_id": truth["user_id"], "now_us": now_us}).with_row_index("row")
    seen = messages.join(cutoffs, on="user_id").filter(pl.col("at_us") + MATCH_S * 1_000_000 < pl.col("now_us"))
    log_prior = np.log(_prior())
    hour, weekend, channel, opened, row = (
        seen[name].to_numpy() for name in ("hour", "weekend", "channel_number", "opened", "row")
    )
    share = np.array(WORLD.open_shares)[channel]
    near = np.array([closeness(hour, best) for best in range(HOURS)])
    factors = [(openness * quiet, weight / len(OPENNESS)) for openness in OPENNESS
               for quiet, weight in ((1.0, 1 - QUIET_SHARE), (WORLD.quiet_open_factor, QUIET_SHARE))]  # fmt: skip
    posterior = np.full((len(factors), len(truth), HOURS, len(SHIFTS)), -np.inf)
    for number, (factor, weight) in enumerate(factors):
        chance = np.clip(share * factor * near, 1e-9, 1 - 1e-9)
        logs = np.where(opened, np.log(chance), np.log1p(-chance))
        weekday = np.stack([np.bincount(row, logs[best] * ~weekend, len(truth)) for best in range(HOURS)], axis=1)
        at_weekend = np.stack([np.bincount(row, logs[best] * weekend, len(truth)) for best in range(HOURS)], axis=1)
        shifted = np.stack([np.roll(at_weekend, -shift, axis=1) for shift in SHIFTS], axis=2)
        posterior[number] = np.log(weight) + log_prior + weekday[:, :, None] + shifted
    highest = posterior.max(axis=(0, 2, 3), keepdims=True)
    mass = np.exp(posterior - highest).sum(axis=(0, 3))
    near_mass = mass + np.roll(mass, 1, axis=1) + np.roll(mass, -1, axis=1)
    guess: Array = near_mass.argmax(axis=1)
    return guess


def read_messages(events_path: Path) -> pl.DataFrame:
    """Every message once, with its local hour, kind of day, channel, and whether an open of it followed."""
    events = pl.read_parquet(events_path).unique("event_id", keep="first", maintain_order=True)
    events = events.with_columns(at_us=pl.col("event_time").dt.epoch("us")).sort("at_us")
    sent, opened = (events.filter(pl.col("event_type") == name) for name in ("message_sent", "message_opened"))
    opens = opened.select("user_id", "channel", "at_us", open_id="event_id").join_asof(
        sent.select("user_id", "channel", "at_us", sent_id="event_id"), on="at_us", by=["user_id", "channel"],
        strategy="backward", tolerance=MATCH_S * 1_000_000, check_sortedness=False,
    )  # fmt: skip
    local = pl.col("event_time") + pl.duration(minutes=pl.col("utc_offset_minutes"))
    return sent.with_columns(
        hour=local.dt.hour() + local.dt.minute() / MINUTES,
        weekend=local.dt.weekday() >= 6,
        channel_number=pl.col("channel").replace_strict({name: number for number, name in enumerate(CHANNELS)}),
        opened=pl.col("event_id").is_in(opens["sent_id"].drop_nulls().to_list()),
    )


def _prior() -> Array:
    """(24, shifts) shares of people by best hour on working days and by how much later it is at the weekend."""
    edges = np.arange(-HOURS, 2 * HOURS + 1) - 0.5
    shares = np.zeros(HOURS)
    for share, centre in KINDS:
        mass = np.diff(stats.norm(centre, KIND_DEVIATION).cdf(edges))
        shares += share * mass.reshape(3, HOURS).sum(axis=0)
    return shares[:, None] * np.array(SHIFT_SHARES)
