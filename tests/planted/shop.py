"""A shop whose customers follow a known law, planted as an event log: each outcome of a run has a shop of its own.

A customer opens with one order or with five on consecutive days, is a middling spender or else a small or a great one, and
after each further order comes back within 20 to 80 days, or never. Three laws of who never does:

    value   one in seven of the middling spenders, three in four of the others. A model can see what they spend, and that the
            middle is best, which no straight line can say; the rule of thumb by recency sees nothing of it.
    chance  one in two, whatever they spend. Recency tells all that can be known, so no model can do better.
    turned  as ``value``, until the day on which the test begins: of customers with a single order it is from then on the
            middling ones that leave. What was learned harms these, and serves everyone else.
"""

from __future__ import annotations

import datetime as dt
from typing import Literal

import numpy as np
import pyarrow as pa

from features.catalogs import load_catalog
from features.events import append_events
from features.layout import DAY_S, HOUR_S, US_PER_S
from features.rows import TIME
from features.workspace import Workspace

Law = Literal["value", "chance", "turned"]

START_US = int(dt.datetime(2025, 1, 1, tzinfo=dt.UTC).timestamp()) * US_PER_S
DAYS = 330
TEST_BEGINS_DAY = DAYS - 92
"""Horizon and delay are 91 days, and the rows of a base date lie within the day after it."""

CUSTOMERS = 2_400
OPENS_WITH_ONE = 0.35
OPENING_ORDERS = 5
MIDDLING_CENTS, OTHER_CENTS = 8_000, (2_000, 32_000)
MIDDLING_LEAVE, OTHERS_LEAVE = 0.15, 0.75


def plant_shop(workspace: Workspace, law: Law, *, seed: int = 5) -> None:
    """Append a year of orders of all customers to the workspace's log; each is known an hour after it is placed."""
    rng = np.random.default_rng(seed)
    rows = [row for customer in range(CUSTOMERS) for row in _live(law, customer, rng)]
    event_id, entity_id, day, cents = zip(*rows, strict=True)
    event_us = START_US + (np.array(day) * DAY_S).astype(np.int64) * US_PER_S
    table = pa.table(
        {"event_id": pa.array(event_id), "entity_id": pa.array(entity_id), "event_type": pa.repeat("order", len(rows)),
         "event_time": pa.array(event_us).cast(TIME), "ingest_time": pa.array(event_us + HOUR_S * US_PER_S).cast(TIME),
         "region": pa.repeat("eu", len(rows)), "amount_cents": pa.array(cents, pa.int64())}
    )  # fmt: skip
    append_events(workspace, load_catalog("retail"), "customer", table.sort_by("ingest_time"), source="shop")


def _live(law: Law, customer: int, rng: np.random.Generator) -> list[tuple[str, str, float, int]]:
    """The orders of one customer: (event id, customer, day, cents)."""
    is_middling = rng.random() < 0.5
    typical = MIDDLING_CENTS if is_middling else OTHER_CENTS[int(rng.integers(2))]
    opening = 1 if rng.random() < OPENS_WITH_ONE else OPENING_ORDERS
    day = DAYS * rng.uniform() ** 0.5  # the shop grows, so that those who have left do not come to outnumber the others
    days = [day + number for number in range(opening)]
    while True:
        day = days[-1] + rng.uniform(20, 80)
        turned = law == "turned" and len(days) == 1 and day > TEST_BEGINS_DAY
        leaves = 0.5 if law == "chance" else OTHERS_LEAVE if is_middling == turned else MIDDLING_LEAVE
        if day >= DAYS or rng.random() < leaves:
            break
        days.append(day)
    cents = [round(typical * rng.uniform(0.8, 1.25)) for _ in days]
    return [
        (f"o{customer}-{number}", f"c{customer:05d}", at, amount)
        for number, (at, amount) in enumerate(zip(days, cents, strict=True)) if at < DAYS
    ]  # fmt: skip
