"""A store of many users and a policy of many campaigns for a model of two towers: states drawn, folded once, committed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from components.declarations import declarations_of
from features.catalogs.campaigns import CATEGORIES
from features.codec import encode_states
from features.layout import DAY_S, US_PER_S
from features.online.addresses import ViewVersion, beside, open_store
from features.online.store import Watermark
from features.partitions import partition_of
from features.rows import TIME
from features.tiles import Tiles, fold, plan_fold

PURCHASES: Final = 6
KINDS: Final = 4_096
"""Distinct histories: users share them, so that a store of a million is filled in seconds. Each user is still read, decoded and
scored for herself."""


def draw_states(now_us: int, seed: int) -> list[bytes]:
    """``KINDS`` states, each of purchases over 60 days, a campaign or two received, and now and then one taken up."""
    catalog, view = declarations_of("audience")
    rng, rows = np.random.default_rng(seed), list[dict[str, Any]]()
    for kind in range(KINDS):
        favourite = CATEGORIES[kind % len(CATEGORIES)]
        for _ in range(1 + int(rng.poisson(PURCHASES))):
            category = favourite if rng.random() < 0.8 else str(rng.choice(CATEGORIES))
            values = {"category": category, "amount_cents": int(rng.integers(300, 8_000)), "saved_cents": 0}
            rows.append({"owner": kind, "event_type": "purchase", "age_s": int(rng.uniform(0, 60 * DAY_S)), **values})
        for _ in range(int(rng.integers(0, 3))):
            rows.append(
                {"owner": kind, "event_type": "campaign_sent", "age_s": int(rng.uniform(0, 40 * DAY_S)), "category": favourite}
            )
    rows.sort(key=lambda row: row["owner"])
    owner = np.array([row["owner"] for row in rows])
    times = pa.array([now_us - row["age_s"] * US_PER_S for row in rows]).cast(TIME)
    events = pa.table({
        "event_type": [row["event_type"] for row in rows], "event_time": times, "ingest_time": times,
        "log_offset": pa.array(np.arange(len(rows))), **{
            name: pa.array([row.get(name) for row in rows], pa.string() if name == "category" else pa.int64())
            for name in ("category", "amount_cents", "saved_cents")
        },
    })  # fmt: skip
    empty = np.zeros(0, np.int64)
    tiles = fold(Tiles(empty, empty, empty), events, owner, plan_fold(catalog.signals_of(view)))
    zeros = np.zeros(KINDS, np.int64)
    states: list[bytes] = encode_states(tiles, zeros, zeros).to_pylist()
    return states


def fill_store(address: Path, users: int, now_us: int, seed: int) -> int:
    """A store of so many users as of a time; returns the bytes of their states."""
    catalog, view = declarations_of("audience")
    states, total = draw_states(now_us, seed), 0
    names = [f"user-{number:09d}" for number in range(users)]
    shard_of = partition_of(pa.array(names), catalog.log_partitions)
    with open_store(str(address), ViewVersion.of(catalog, view), create=True) as store:
        for shard in range(catalog.log_partitions):
            mine = np.flatnonzero(shard_of == shard)
            mark = store.claim(shard)
            for start in range(0, len(mine), 50_000):
                values = {names[row]: states[(row * 2_654_435_761) % KINDS] for row in mine[start : start + 50_000].tolist()}
                after = Watermark(start, now_us, now_us, mark.epoch)
                store.commit(shard, values, {}, after, expected_previous=mark.log_offset)
                mark, total = after, total + sum(map(len, values.values()))
    return total


def fill_campaigns(beside_store: Path, names: list[str], now_us: int, seed: int) -> None:
    """The campaigns' own store beside the users' one: every other campaign has been delivered, and taken up by some."""
    catalog, view = declarations_of("audience")
    campaign, rng = catalog.view(view.joins[0].view), np.random.default_rng(seed)
    plan, empty = plan_fold(catalog.signals_of(campaign)), np.zeros(0, np.int64)
    shard_of = partition_of(pa.array(names), catalog.log_partitions).astype(np.int64)
    states = {}
    for name in names[::2]:
        kinds = ["delivery"] * int(rng.integers(20, 200)) + ["response"] * int(rng.integers(0, 20))
        times = pa.array(now_us - rng.integers(0, 20 * DAY_S, len(kinds)) * US_PER_S).cast(TIME)
        events = pa.table({"event_type": kinds, "event_time": times, "ingest_time": times,
                           "log_offset": pa.array(np.arange(len(kinds)))})  # fmt: skip
        tiles = fold(Tiles(empty, empty, empty), events, np.zeros(len(kinds), np.int64), plan)
        states[name] = encode_states(tiles, np.array([shard_of[names.index(name)]]), np.array([len(kinds)])).to_pylist()[0]
    address = beside(str(beside_store), campaign.key)
    with open_store(address, ViewVersion.of(catalog, campaign), create=True) as store:
        for shard in range(catalog.log_partitions):
            mine = {
                name: states[name] for name, at in zip(names, shard_of.tolist(), strict=True) if at == shard and name in states
            }
            mark = store.claim(shard)
            store.commit(shard, mine, {}, Watermark(0, now_us, now_us, mark.epoch), expected_previous=mark.log_offset)


def draw_policy(campaigns: int, thresholds: dict[str, float]) -> dict[str, Any]:
    """Campaigns of every category, channel and discount; every third one is bounded by size."""
    entries = []
    for number in range(campaigns):
        category = CATEGORIES[number % len(CATEGORIES)]
        content = {"category": category, "offer": "coupon", "channel": ("email", "push")[number % 2],
                   "discount_percent": 5 + number % 4 * 5, "duration_days": 14, "products": 10 + number}  # fmt: skip
        bound = {"size": 20_000} if number % 3 == 0 else {}
        entries.append(
            {"name": f"campaign-{number:03d}", "content": content, "threshold": thresholds.get(category, 0.2), **bound}
        )
    return {"most_campaigns": 10, "counted_by": "campaigns_received_count_7d", "campaigns": entries}
