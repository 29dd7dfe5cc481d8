"""The event log: places, times, repeats, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from features import delta
from features.declarations import Attribute, Catalog, EventType
from features.errors import EventLogError, TemporaryError
from features.events import append_events, count_repeats, deduplicate, read_events, stamp_events
from features.rows import event_schema
from features.workspace import Workspace

SHOP = Catalog(
    name="shop",
    attributes=(Attribute("amount_cents", "int64", "cents"),),
    event_types=(EventType("order", "customer", ("amount_cents",)),),
    log_partitions=2,
)
S = 1_000_000
TIME = pa.timestamp("us", tz="UTC")
Row = tuple[str, str, int]


def make_batch(rows: Sequence[Row], event_time_s: int | None = None) -> pa.Table:
    """Rows of (event_id, entity_id, ingest second); events happen when they are ingested unless stated."""
    times = pa.array([row[2] * S for row in rows], pa.int64())
    happened = times if event_time_s is None else pa.array([event_time_s * S] * len(rows), pa.int64())
    return pa.table(
        {
            "event_id": pa.array([row[0] for row in rows], pa.string()),
            "entity_id": pa.array([row[1] for row in rows], pa.string()),
            "event_type": pa.array(["order"] * len(rows), pa.string()),
            "event_time": happened.cast(TIME),
            "ingest_time": times.cast(TIME),
            "region": pa.array(["global"] * len(rows), pa.string()),
            "amount_cents": pa.array(range(len(rows)), pa.int64()),
        }
    )


def read_ids(workspace: Workspace, **options: int) -> list[str]:
    ids: list[str] = read_events(workspace, SHOP, "customer", **options)["event_id"].to_pylist()
    return ids


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def test_offsets_are_contiguous_by_ingest_time_then_source_order_and_go_on_after_the_last_append(workspace: Workspace) -> None:
    # CRC-32 of "a" is 3904355907, odd: partition 1. Of "b" it is 1908338681, odd too; of "c" 112844655, odd; of "d"
    # 2564639436, even: partition 0.
    append_events(
        workspace,
        SHOP,
        "customer",
        make_batch([("e1", "a", 30), ("e2", "d", 20), ("e3", "b", 20), ("e4", "a", 20)]),
        source="one",
    )
    append_events(workspace, SHOP, "customer", make_batch([("e5", "d", 40), ("e6", "c", 30)]), source="two")
    table = read_events(workspace, SHOP, "customer")
    assert table.schema == event_schema(SHOP.attributes_of("customer"))
    places = list(zip(*(table[name].to_pylist() for name in ("event_id", "log_partition", "log_offset")), strict=True))
    assert places == [("e2", 0, 0), ("e5", 0, 1), ("e3", 1, 0), ("e4", 1, 1), ("e1", 1, 2), ("e6", 1, 3)]
    assert read_ids(workspace, partition=0) == ["e2", "e5"]


def test_a_log_lies_in_folders_of_region_and_ingest_day(workspace: Workspace) -> None:
    append_events(workspace, SHOP, "customer", make_batch([("e1", "a", 86_399), ("e2", "a", 86_400)]), source="one")
    root = workspace.events("customer")
    assert {path.parent.relative_to(root).as_posix() for path in root.rglob("*.parquet")} == {
        "region=global/ingest_day=1970-01-01", "region=global/ingest_day=1970-01-02",
    }  # fmt: skip


def test_an_event_is_known_from_its_ingest_time_plus_lag_on_and_not_before(workspace: Workspace) -> None:
    append_events(workspace, SHOP, "customer", make_batch([("e1", "a", 86_390), ("e2", "a", 86_410)]), source="one")
    assert read_ids(workspace, known_by_us=86_450 * S, lag_s=60) == ["e1"]
    assert read_ids(workspace, known_by_us=86_450 * S - 1, lag_s=60) == []
    assert read_ids(workspace, known_by_us=86_470 * S, lag_s=60) == ["e1", "e2"]


def test_a_log_that_was_never_written_reads_as_empty(workspace: Workspace) -> None:
    assert read_events(workspace, SHOP, "customer").schema == event_schema(SHOP.attributes_of("customer"))
    assert read_events(workspace, SHOP, "customer", columns=["event_id"]).column_names == ["event_id"]
    assert not workspace.events("customer").exists()


def test_the_same_source_adds_nothing_the_second_time(workspace: Workspace) -> None:
    batch = make_batch([("e1", "a", 10)])
    assert append_events(workspace, SHOP, "customer", batch, source="one") == 1
    assert append_events(workspace, SHOP, "customer", batch, source="one") == 0
    assert append_events(workspace, SHOP, "customer", batch.slice(0, 0), source="nothing") == 0
    assert read_ids(workspace) == ["e1"]


def test_events_older_than_their_partition_are_refused_and_with_late_are_known_from_then_on(workspace: Workspace) -> None:
    append_events(workspace, SHOP, "customer", make_batch([("e1", "a", 100)]), source="one")
    behind = make_batch([("e2", "b", 99), ("e3", "d", 50), ("e4", "a", 100)])
    with pytest.raises(EventLogError) as caught:
        append_events(workspace, SHOP, "customer", behind, source="two")
    assert str(caught.value) == (
        f"events are older than the log: {workspace.events('customer')}; expected ingest_time from "
        "1970-01-01T00:01:40.000000Z on; got 1 events behind their partition, the "
        "oldest of 1970-01-01T00:00:50.000000Z; next: import files in time order, "
        "or pass --late to have them known from the log's last ingest time on"
    )
    assert read_ids(workspace) == ["e1"]
    append_events(workspace, SHOP, "customer", behind, source="two", late=True)
    table = read_events(workspace, SHOP, "customer")
    ingested = dict(zip(table["event_id"].to_pylist(), table["ingest_time"].cast(pa.int64()).to_pylist(), strict=True))
    assert ingested == {"e1": 100 * S, "e2": 100 * S, "e3": 50 * S, "e4": 100 * S}


def test_an_attribute_added_later_is_null_before_and_a_changed_type_is_refused(workspace: Workspace) -> None:
    append_events(workspace, SHOP, "customer", make_batch([("e1", "a", 10)]), source="one")
    attributes = (*SHOP.attributes, Attribute("coupon", "string"))
    wider = Catalog("shop", attributes, (EventType("order", "customer", ("amount_cents", "coupon")),), log_partitions=2)
    assert read_events(workspace, wider, "customer")["coupon"].to_pylist() == [None]
    batch = make_batch([("e2", "a", 11)]).append_column("coupon", pa.array(["SPRING"]))
    append_events(workspace, wider, "customer", batch, source="two")
    assert read_events(workspace, wider, "customer")["coupon"].to_pylist() == [None, "SPRING"]
    assert read_ids(workspace) == ["e1", "e2"]
    changed = Catalog("shop", (Attribute("amount_cents", "string"),), SHOP.event_types, log_partitions=2)
    with pytest.raises(EventLogError) as caught:
        read_events(workspace, changed, "customer")
    assert str(caught.value) == (
        f"column changed its type: 'amount_cents' of {workspace.events('customer')}; expected int64; got string; "
        "next: declare the changed attribute under a new name"
    )


def test_a_log_of_another_number_of_partitions_is_refused(workspace: Workspace) -> None:
    append_events(workspace, SHOP, "customer", make_batch([("e1", "a", 10)]), source="one")
    other = Catalog("shop", SHOP.attributes, SHOP.event_types, log_partitions=4)
    with pytest.raises(EventLogError) as caught:
        read_events(workspace, other, "customer")
    assert str(caught.value) == (
        f"event log is partitioned differently: {workspace.events('customer')}; expected crc32 over 4 partitions; "
        "got crc32 over 2 partitions; next: use the catalog that the log was made with, or import into another workspace"
    )


def test_a_second_writer_is_told_to_wait(workspace: Workspace) -> None:
    with delta.writing(workspace.events("customer")), pytest.raises(TemporaryError) as caught:
        append_events(workspace, SHOP, "customer", make_batch([("e1", "a", 10)]), source="one")
    assert str(caught.value) == (
        f"table is being written: {workspace.events('customer')}; expected one writer at a time; got a second writer; "
        "next: wait for the other command to end and try again"
    )
    assert append_events(workspace, SHOP, "customer", make_batch([("e1", "a", 10)]), source="one") == 1


def test_a_corrupted_log_gives_one_line_whatever_is_broken(workspace: Workspace) -> None:
    path = workspace.events("customer")
    append_events(workspace, SHOP, "customer", make_batch([("e1", "a", 10)]), source="one")
    data = next(path.rglob("*.parquet"))
    commit = path / "_delta_log" / "00000000000000000001.json"
    whole, log = data.read_bytes(), commit.read_bytes()
    damages = {
        "missing file": (data.unlink, lambda: data.write_bytes(whole)),
        "cut file": (lambda: data.write_bytes(whole[:-9]), lambda: data.write_bytes(whole)),
        "overwritten file": (
            lambda: data.write_bytes(b"PAR1" + bytes(len(whole) - 8) + b"PAR1"),
            lambda: data.write_bytes(whole),
        ),
        "broken commit": (lambda: commit.write_text("{"), lambda: commit.write_bytes(log)),
        "no log": (lambda: (path / "_delta_log").rename(path / "gone"), lambda: (path / "gone").rename(path / "_delta_log")),
    }
    for name, (damage, repair) in damages.items():
        damage()
        with pytest.raises(EventLogError, match="^Delta table cannot be read: ") as caught:
            read_events(workspace, SHOP, "customer")
        assert "\n" not in str(caught.value), name
        with pytest.raises(EventLogError, match="^Delta table cannot be read: "):
            append_events(workspace, SHOP, "customer", make_batch([("e2", "a", 20)]), source="two")
        repair()
    assert read_ids(workspace) == ["e1"]


@pytest.mark.parametrize(
    ("batch", "expected", "got"),
    [
        (make_batch([("e1", "a", 0)], event_time_s=301),
         "event_time at most 300 s after ingest_time", "1 events dated further ahead"),
        (make_batch([("e1", "a", 10)], event_time_s=-1), "event_time since 1970", "an earlier one"),
        (make_batch([("e1", "a", 10)]).set_column(2, "event_type", pa.array(["ordr"])), "event types order", "ordr"),
        (make_batch([("e1", "a", 10)]).set_column(5, "region", pa.array(["eu"])), "regions global", "eu"),
        (make_batch([("e1", "a", 10)]).set_column(1, "entity_id", pa.array([None], pa.string())),
         "a value of entity_id in every row", "1 nulls"),
        (make_batch([("e1", "a", 10)]).append_column("colour", pa.array(["red"])),
         "columns that the catalog declares", "colour"),
    ],
)  # fmt: skip
def test_a_batch_that_breaks_a_rule_is_refused_whole(workspace: Workspace, batch: pa.Table, expected: str, got: str) -> None:
    with pytest.raises(EventLogError) as caught:
        append_events(workspace, SHOP, "customer", batch, source="one")
    assert str(caught.value) == (
        f"events cannot be appended: log of 'customer'; expected {expected}; got {got}; "
        "next: correct the batch, or send its bad rows to the dead letters"
    )
    assert read_ids(workspace) == []


def test_an_event_dated_exactly_the_limit_ahead_is_taken(workspace: Workspace) -> None:
    assert append_events(workspace, SHOP, "customer", make_batch([("e1", "a", 0)], event_time_s=300), source="one") == 1


def deduplicate_slowly(rows: list[tuple[str, str, int, int]], horizon_us: int) -> list[int]:
    """The rule in plain Python: positions of rows kept, of rows (entity_id, event_id, ingest microseconds, offset)."""
    kept_at: dict[tuple[str, str], int] = {}
    kept = []
    for position in sorted(range(len(rows)), key=lambda position: rows[position][3]):
        entity_id, event_id, ingest_us, _ = rows[position]
        last = kept_at.get((entity_id, event_id))
        if last is None or ingest_us - last > horizon_us:
            kept_at[entity_id, event_id] = ingest_us
            kept.append(position)
    return sorted(kept)


@given(
    steps=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from([0, 1, 4, 5, 6])), max_size=30),
    order=st.randoms(use_true_random=False),
)
def test_deduplication_keeps_what_the_plain_rule_keeps(steps: list[tuple[str, str, int]], order: object) -> None:
    now_us = 0
    rows = []
    for offset, (entity_id, event_id, step_us) in enumerate(steps):
        now_us += step_us * S
        rows.append((entity_id, event_id, now_us, offset))
    order.shuffle(rows)  # type: ignore[attr-defined]
    table = pa.table(
        {
            "entity_id": pa.array([row[0] for row in rows], pa.string()),
            "event_id": pa.array([row[1] for row in rows], pa.string()),
            "ingest_time": pa.array([row[2] for row in rows], pa.int64()).cast(TIME),
            "log_offset": pa.array([row[3] for row in rows], pa.int64()),
        }
    )
    kept = deduplicate(table, horizon_s=10)
    assert kept.equals(table.take(pa.array(deduplicate_slowly(rows, 10 * S), pa.int64())))


def test_a_copy_exactly_one_horizon_later_is_a_repeat_and_one_microsecond_more_is_a_new_event() -> None:
    def table(second_us: int) -> pa.Table:
        times = pa.array([0, second_us], pa.int64()).cast(TIME)
        return pa.table({"entity_id": ["a", "a"], "event_id": ["e", "e"], "ingest_time": times, "log_offset": [0, 1]})

    week_us = 7 * 86_400 * S
    assert deduplicate(table(week_us)).num_rows == 1
    assert deduplicate(table(week_us + 1)).num_rows == 2


def test_repeats_are_counted_against_the_batch_and_the_log(workspace: Workspace) -> None:
    append_events(workspace, SHOP, "customer", make_batch([("e1", "a", 10)]), source="one")
    rows = [("e1", "a", 20), ("e2", "a", 20), ("e2", "a", 30), ("e1", "b", 30)]
    batch = stamp_events(workspace, SHOP, "customer", make_batch(rows))
    # e1 of a is in the log, e2 stands twice; e1 of b is another customer's event.
    assert count_repeats(workspace, SHOP, "customer", batch) == 2


def test_the_hash_and_the_number_of_partitions_stand_in_the_tables_own_metadata(workspace: Workspace) -> None:
    append_events(workspace, SHOP, "customer", make_batch([("e1", "a", 10)]), source="one")
    configuration = DeltaTable(workspace.events("customer")).metadata().configuration
    assert json.loads(json.dumps(configuration)) == {"plumbline.log_partitions": "2", "plumbline.partition_hash": "crc32"}
