"""Events folded into resident tiles, and training rows replayed, a second; on one core.

The floor of the fold sorts state and new tiles together again for every micro-batch; the floor of the rows folds each
row's events from the beginning. Both must give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import pyarrow as pa

from benchmarks.timing import Timing, measure
from features.catalogs import load_catalog
from features.codec import count_tiles, encode_states
from features.declarations import Catalog, View
from features.layout import DAY_S, US_PER_S
from features.point_in_time import states_as_known
from features.rows import event_schema
from features.tiles import FoldPlan, Tiles, fold, no_tiles, plan_fold, tiles_of_events
from features.tiles import _age_out as age_out
from features.tiles import _apply as apply
from features.tiles import _operation as operation_of

START_US: Final = 1_735_689_600 * US_PER_S
DAYS: Final = 90
USERS: Final = 20_000
EVENTS: Final = 600_000
BATCH: Final = 50_000
ROWS_OF: Final = ((20_000, 20_000), (10_000, 100_000))
"""(users, rows): few rows a user, where the events cost most, and many, where the tiles do."""
FLOOR_ROWS: Final = 100
SHARES: Final = {"session": 0.5, "offer_shown": 0.2, "message_sent": 0.15, "message_opened": 0.1, "payment": 0.05}


def make_events(catalog: Catalog, seed: int, users: int) -> tuple[pa.Table, np.ndarray]:
    """Events of this many users in ingest order, and each event's user number."""
    rng = np.random.default_rng(seed)
    at_us = np.sort(START_US + rng.integers(0, DAYS * DAY_S * US_PER_S, EVENTS))
    user = rng.integers(0, users, EVENTS)
    kinds = np.array(list(SHARES))[rng.choice(len(SHARES), EVENTS, p=list(SHARES.values()))]
    columns = {
        "event_id": np.arange(EVENTS).astype(str),
        "entity_id": np.char.add("u", user.astype(str)),
        "event_type": kinds,
        "event_time": at_us,
        "ingest_time": at_us,
        "region": np.full(EVENTS, "eu"),
        "ingest_day": np.zeros(EVENTS, np.int32),
        "log_partition": np.zeros(EVENTS, np.int32),
        "log_offset": np.arange(EVENTS),
        "duration_ms": rng.integers(1, 10**6, EVENTS),
        "amount_cents": rng.integers(-500, 5_000, EVENTS),
        "channel": np.array(["email", "push", "in_app"])[rng.integers(0, 3, EVENTS)],
        "platform": np.array(["ios", "web"])[user % 2],
        "plan": np.full(EVENTS, "basic"),
        "offer_id": np.full(EVENTS, "o"),
        "utc_offset_minutes": np.zeros(EVENTS, np.int64),
    }
    schema = event_schema(catalog.attributes_of("user"))
    return pa.table(
        {field.name: pa.array(columns[field.name]).cast(field.type) for field in schema}, schema=schema
    ), user.astype(np.int64)


def run() -> Iterator[tuple[str, int, Timing, Timing, int]]:
    """Name, items of ours, timings of ours and floor, items of the floor."""
    catalog = load_catalog("subscription")
    view = catalog.view("subscriber")
    events, user = make_events(catalog, 1, USERS)
    plan = plan_fold(catalog.signals_of(view))
    state = fold(no_tiles(), events.slice(0, EVENTS - BATCH), user[:-BATCH], plan)
    fresh, owner = events.slice(EVENTS - BATCH), user[-BATCH:]
    _require_equal(fold(state, fresh, owner, plan), sort_again(state, fresh, owner, plan))
    name = f"events folded, batches of {BATCH:,} into {USERS:,} users x {len(state) / USERS:.0f} tiles"
    yield (
        name,
        BATCH,
        measure(lambda: fold(state, fresh, owner, plan)),
        measure(lambda: sort_again(state, fresh, owner, plan)),
        BATCH,
    )
    for users, rows in ROWS_OF:
        yield run_rows(catalog, view, plan, users, rows)


def run_rows(catalog: Catalog, view: View, plan: FoldPlan, users: int, rows: int) -> tuple[str, int, Timing, Timing, int]:
    """Training rows by replay, beside a fold from the beginning for each row."""
    events, user = make_events(catalog, 1, users)
    rng = np.random.default_rng(2)
    entity = rng.integers(0, users, rows)
    now_us = START_US + rng.integers(0, DAYS * DAY_S * US_PER_S, rows)
    ids = pa.array(np.char.add("u", entity.astype(str)))
    known_us = events["ingest_time"].cast(pa.int64()).to_numpy() + view.lag_s * US_PER_S
    states = states_as_known(events, catalog, view, ids, now_us)

    def fold_each() -> list[bytes]:
        out = []
        for number in range(FLOOR_ROWS):
            known = np.flatnonzero((user == entity[number]) & (known_us <= now_us[number]))
            tiles = fold(no_tiles(), events.take(pa.array(known)), np.zeros(len(known), np.int64), plan)
            out.append(encode_states(tiles, np.zeros(1, np.int64), np.zeros(1, np.int64))[0].as_py()[16:])
        return out

    if fold_each() != [state.as_py()[16:] for state in states[:FLOOR_ROWS]]:
        raise AssertionError("replayed states differ from states folded row by row")
    name = f"training rows, {rows // users} a user, {count_tiles(states).mean():.0f} tiles a row"
    ours = measure(lambda: states_as_known(events, catalog, view, ids, now_us), least=3)
    return name, rows, ours, measure(fold_each, least=3), FLOOR_ROWS


def sort_again(state: Tiles, events: pa.Table, owner: np.ndarray, plan: FoldPlan) -> Tiles:
    """The floor: concatenate old and new tiles and sort all of them."""
    new = tiles_of_events(events, owner, plan)
    parts = zip((state.owner, state.key, state.value), (new.owner, new.key, new.value), strict=True)
    owner_, key, value = (np.concatenate(pair) for pair in parts)
    order = np.lexsort((key, owner_))
    owner_, key, value = owner_[order], key[order], value[order]
    # A key occurs once in the state and once among the new tiles at most.
    twice = np.flatnonzero((owner_[1:] == owner_[:-1]) & (key[1:] == key[:-1]))
    value[twice] = apply(operation_of(key[twice]), value[twice], value[twice + 1])
    kept = np.ones(len(key), dtype=bool)
    kept[twice + 1] = False
    return age_out(Tiles(owner_[kept], key[kept], value[kept]), plan)


def _require_equal(ours: Tiles, floor: Tiles) -> None:
    for name in ("owner", "key", "value"):
        if not np.array_equal(getattr(ours, name), getattr(floor, name)):
            raise AssertionError(f"folded tiles differ from re-sorted ones in {name}")
