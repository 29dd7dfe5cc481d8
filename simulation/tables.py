"""The Arrow tables that a simulation writes: their schemas and how arrays become them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.catalogs.subscription import CHANNELS
from features.rows import TIME
from simulation.batch import EVENT_TYPE_NAMES, NO_CODE, NO_VALUE, PLAN_NAMES, Batch
from simulation.delivery import Delivered
from simulation.population import COUNTRIES, REGIONS, Ints, Population, zone_names
from simulation.scenario import World

EVENTS: Final = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("event_type", pa.string(), nullable=False),
        pa.field("event_time", TIME, nullable=False),
        pa.field("ingest_time", TIME, nullable=False),
        pa.field("region", pa.string(), nullable=False),
        pa.field("duration_ms", pa.int64()),
        pa.field("amount_cents", pa.int64()),
        pa.field("channel", pa.string()),
        pa.field("platform", pa.string()),
        pa.field("plan", pa.string()),
        pa.field("offer_id", pa.string()),
        pa.field("utc_offset_minutes", pa.int64()),
    ]
)
"""``events.parquet``: one row a delivery (duplicates are rows), ordered by ingest_time."""


def number_names(prefix: str, numbers: Ints, width: int) -> pa.StringArray:
    """Ids such as ``u0000042``: a prefix and a number padded to ``width`` digits."""
    digits = pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), width, "0")
    return pc.binary_join_element_wise(prefix, digits, "")


def names_of(codes: npt.NDArray[np.integer], names: tuple[str, ...]) -> pa.StringArray:
    """Codes to names; ``NO_CODE`` gives null."""
    return pa.array(names, pa.string()).take(pa.array(codes, mask=codes == NO_CODE))


def times(values_us: Ints) -> pa.TimestampArray:
    """UTC microseconds to timestamps; negative values give null."""
    return pa.array(values_us, mask=values_us < 0).cast(TIME)


def events_table(
    batch: Batch, delivered: Delivered, user_ids: pa.StringArray, population: Population, world: World
) -> pa.Table:
    """Delivered events as ``EVENTS``, in the order delivered."""
    rows = batch.take(delivered.row)
    offers = tuple(f"offer-{number:02d}" for number in range(world.offers))
    columns = {
        "event_id": number_names("e", delivered.number, 10),
        "user_id": user_ids.take(pa.array(rows.user)),
        "event_type": names_of(rows.event_type, EVENT_TYPE_NAMES),
        "event_time": times(delivered.event_us),
        "ingest_time": times(delivered.ingest_us),
        "region": names_of(population.region[rows.user], REGIONS),
        "duration_ms": pa.array(rows.duration_ms, mask=rows.duration_ms == NO_VALUE),
        "amount_cents": pa.array(rows.amount_cents, mask=rows.amount_cents == NO_VALUE),
        "channel": names_of(rows.channel, CHANNELS),
        "platform": names_of(rows.platform, world.platforms),
        "plan": names_of(rows.plan, PLAN_NAMES),
        "offer_id": names_of(rows.offer, offers),
        "utc_offset_minutes": pa.array(rows.utc_offset_minutes, mask=rows.utc_offset_minutes == NO_VALUE),
    }
    return pa.table(columns, schema=EVENTS)


def accounts_table(changes: dict[str, Ints], user_ids: pa.StringArray, population: Population) -> pa.Table:
    """``accounts.parquet``: one row for each plan that a user has had.

    ``changes`` holds ``user``, ``plan``, ``valid_us`` and ``created_us``.
    """
    user = changes["user"]
    order = np.lexsort((user, changes["valid_us"], changes["created_us"]))
    user = user[order]
    columns: dict[str, Any] = {
        "user_id": user_ids.take(pa.array(user)),
        "valid_from": times(changes["valid_us"][order]),
        "created_time": times(changes["created_us"][order]),
        "plan": names_of(changes["plan"][order], PLAN_NAMES),
        "country": names_of(population.country[user], COUNTRIES),
        "utc_offset_minutes": pa.array(population.utc_offset_minutes[user], pa.int64()),
        "time_zone": pa.array(zone_names(population.utc_offset_minutes[user]), pa.string()),
        "region": names_of(population.region[user], REGIONS),
    }
    return pa.table(columns)
