from __future__ import annotations

from typing import Any

import orjson
import pyarrow as pa
import pytest

from features.catalogs import load_catalog
from features.event_log.admission import Admitted, admit, count_reasons
from features.partitions import partition_of
from features.rows import TIME, event_schema

CATALOG = load_catalog("subscription")
NOW_US = 1_767_571_200_000_000
PARTITION = int(partition_of(["u1"], CATALOG.log_partitions)[0])


def batch(count: int = 2, **changes: Any) -> pa.Table:
    """Sessions of u1 as the log returns them; a change of None leaves the column out."""
    columns: dict[str, Any] = {
        "event_id": [f"e{number}" for number in range(count)],
        "entity_id": ["u1"] * count,
        "event_type": ["session"] * count,
        "event_time": pa.array([NOW_US] * count, TIME),
        "region": ["eu"] * count,
        "duration_ms": [10] * count,
        "ingest_time": pa.array([NOW_US] * count, TIME),
        "log_offset": pa.array(range(100, 100 + count), pa.int64()),
    }
    return pa.table({name: values for name, values in (columns | changes).items() if values is not None})


def admitted(*batches: pa.Table) -> Admitted:
    return admit(batches, CATALOG, "user", PARTITION)


def test_rows_of_the_catalog_become_rows_of_the_event_schema() -> None:
    found = admitted(batch())
    assert found.events.schema == event_schema(CATALOG.attributes_of("user"))
    assert found.events["log_offset"].to_pylist() == [100, 101]
    assert found.events["log_partition"].to_pylist() == [PARTITION] * 2
    assert found.events["ingest_day"].to_pylist()[0].isoformat() == "2026-01-05"
    assert found.events["plan"].null_count == 2
    assert found.refused.num_rows == 0


def test_a_new_attribute_passes_and_is_named() -> None:
    found = admitted(batch(mood=["happy", None]))
    assert found.events.num_rows == 2
    assert found.new_attributes == {"mood"}


def test_an_attribute_that_changed_its_type_is_quarantined_where_it_has_a_value() -> None:
    found = admitted(batch(), batch(duration_ms=pa.array(["12", None])), batch(duration_ms=pa.array([1.5, 2.0])))
    assert found.events.num_rows == 3
    assert count_reasons(found.refused) == {
        "quarantined: attribute duration_ms changed its type from int64 to string": 1,
        "quarantined: attribute duration_ms changed its type from int64 to double": 2,
    }


def test_a_narrower_type_is_no_change() -> None:
    narrow = batch(duration_ms=pa.array([1, 2], pa.int16()), platform=pa.array(["ios", "web"]).dictionary_encode())
    assert admitted(narrow).events["duration_ms"].to_pylist() == [1, 2]
    assert admitted(batch(duration_ms=pa.nulls(2))).events.num_rows == 2


def test_an_attribute_counts_only_on_events_that_declare_it() -> None:
    found = admitted(batch(event_type=["session", "payment"], amount_cents=[5, 6]))
    assert found.events["amount_cents"].to_pylist() == [None, 6]
    assert found.events["duration_ms"].to_pylist() == [10, None]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"event_type": ["session", "sesion"]}, "quarantined: event type sesion is not declared"),
        ({"region": ["eu", "mars"]}, "quarantined: region mars is not declared"),
        ({"event_id": ["e", None]}, "event_id is missing"),
        ({"event_time": pa.array([NOW_US, NOW_US + 300_000_001], TIME)}, "event_time is more than 300 s after ingest_time"),
        ({"event_time": pa.array([NOW_US, -1], TIME)}, "event_time is before 1970"),
        ({"entity_id": ["u1", ""]}, "entity_id is not of 1 to 511 bytes"),
        ({"entity_id": ["u1", "u2"]}, f"entity_id does not belong to partition {PARTITION}"),
    ],
)
def test_a_bad_row_is_refused_with_its_reason_and_content(changes: dict[str, Any], reason: str) -> None:
    found = admitted(batch(**changes))
    assert found.events["event_id"].to_pylist()[0] in ("e0", "e")
    assert found.events.num_rows == 1
    (row,) = found.refused.to_pylist()
    assert (row["log_offset"], row["reason"]) == (101, reason)
    assert orjson.loads(row["content"])["duration_ms"] == 10


def test_an_event_five_minutes_ahead_is_still_admitted() -> None:
    assert admitted(batch(event_time=pa.array([NOW_US, NOW_US + 300_000_000], TIME))).events.num_rows == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"event_id": None}, "event_id is missing"),
        ({"event_time": [1, 2]}, "event_time is int64, not timestamp[us, tz=UTC]"),
        ({"event_time": pa.array([1, 2], pa.timestamp("us"))}, "event_time is timestamp[us], not timestamp[us, tz=UTC]"),
        ({"entity_id": [1, 2]}, "entity_id is int64, not string"),
        ({"event_type": [1, 2]}, "event_type is int64, not string"),
    ],
)
def test_a_batch_without_a_usable_column_is_refused_whole(changes: dict[str, Any], reason: str) -> None:
    found = admitted(batch(**changes))
    assert found.events.num_rows == 0
    assert count_reasons(found.refused) == {reason: 2}


def test_the_first_reason_found_stands() -> None:
    found = admitted(batch(event_type=["sesion", "session"], region=["mars", "eu"]))
    assert count_reasons(found.refused) == {"quarantined: event type sesion is not declared": 1}


def test_nothing_gives_nothing() -> None:
    found = admitted()
    assert (found.events.num_rows, found.refused.num_rows) == (0, 0)
