"""A shop's campaigns with a planted law: taken up by those who buy in their category, if they have bought of late.

Each user has a favourite category. A campaign of that category is taken with chance ``WARM``, any other with ``COLD``, both
within three days; who has bought nothing in 30 days takes none. No user alone and no campaign alone tells: only both together.
With duds, some campaigns appeal to nobody much, and nothing in their content says so: only how those fared who got them first.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa

from features.catalogs import load_catalog
from features.catalogs.campaigns import CATEGORIES
from features.events import append_events
from features.layout import DAY_S, US_PER_S
from features.rows import TIME
from features.workspace import Workspace

START_US = int(dt.datetime(2025, 1, 1, tzinfo=dt.UTC).timestamp()) * US_PER_S
DAYS = 200
EVERY_DAYS = 5
FAVOURITES = CATEGORIES[:3]
WARM, COLD, DUD = 0.6, 0.03, 0.08
DAY_US = DAY_S * US_PER_S


def favourite_of(user: int) -> str:
    return FAVOURITES[user % len(FAVOURITES)]


def plant_campaigns(
    workspace: Workspace, *, users: int = 240, seed: int = 3, spread_days: float = 0.0, duds: float = 0.0
) -> None:
    """Append the purchases, sendings and take-ups of all users, and the campaigns' own log.

    Args:
        spread_days: a campaign reaches its users over so many days.
        duds: share of campaigns whose chance of being taken up is that times ``DUD``.
    """
    luck = np.random.default_rng(seed + 1)
    dud = luck.random(DAYS) < duds
    rng, rows, own = np.random.default_rng(seed), list[dict[str, object]](), list[dict[str, object]]()
    for user in range(users):
        last = _buy(user, rng, rows)
        for number, start in enumerate(range(20, DAYS - 5, EVERY_DAYS)):
            if rng.random() < 0.5:
                continue
            category, day = FAVOURITES[number % len(FAVOURITES)], start + luck.random() * spread_days
            active = any(day - 30 < at <= day for at in last)
            chance = (WARM if category == favourite_of(user) else COLD) * (DUD if dud[number] else 1)
            taken = rng.random() < chance * active
            campaign = {"campaign": f"k{number:03d}", "category": category}
            content = {"offer": "coupon", "channel": ("email", "push")[number % 2], "discount_percent": 10,
                       "duration_days": 14, "products": 40}  # fmt: skip
            rows.append(_event("campaign_sent", f"u{user:05d}", day, len(rows), campaign | content))
            own.append(_event("delivery", f"k{number:03d}", day, len(own), {}))
            if taken:
                later = day + rng.uniform(0.1, 3)
                rows.append(_event("campaign_taken", f"u{user:05d}", later, len(rows), campaign))
                own.append(_event("response", f"k{number:03d}", later, len(own), {}))
    catalog = load_catalog("campaigns")
    for entity, events in (("user", rows), ("campaign", own)):
        names = [attribute.name for attribute in catalog.attributes_of(entity)]
        table = {name: [event.get(name) for event in events] for name in (*events[0], *names)}
        times = {name: pa.array(table.pop(name), pa.int64()).cast(TIME) for name in ("event_time", "ingest_time")}
        append_events(workspace, catalog, entity, pa.table(table | times).sort_by("ingest_time"), source=f"planted {entity}")


def _buy(user: int, rng: np.random.Generator, rows: list[dict[str, object]]) -> list[float]:
    """A purchase every six days or so, until the user goes quiet; nine in ten of the favourite category."""
    day, days, quiet = rng.uniform(0, 10), list[float](), rng.uniform(30, 1.5 * DAYS)
    while day < min(DAYS, quiet):
        favourite = rng.random() < 0.9
        category = favourite_of(user) if favourite else str(rng.choice(CATEGORIES))
        values = {"category": category, "amount_cents": int(rng.integers(500, 5_000)), "saved_cents": 0}
        rows.append(_event("purchase", f"u{user:05d}", day, len(rows), values))
        days.append(day)
        day += rng.exponential(6)
    return days


def _event(kind: str, entity_id: str, day: float, number: int, values: dict[str, object]) -> dict[str, object]:
    at_us = START_US + int(day * DAY_S) * US_PER_S
    return {"event_id": f"{kind}-{number}", "entity_id": entity_id, "event_type": kind, "event_time": at_us,
            "ingest_time": at_us + US_PER_S, "region": "global", **values}  # fmt: skip
