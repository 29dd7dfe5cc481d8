"""What every event log promises; a new adapter adds itself to ``open_log`` and passes all of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.errors import EventLogError
from features.event_log.files import FileLog
from features.event_log.kafka import KafkaLog
from features.event_log.port import EventLog, append_by_entity
from features.partitions import partition_of
from features.rows import TIME

PARTITIONS = 3


def open_files(folder: Path) -> EventLog:
    return FileLog.create(folder / "log", [0] * PARTITIONS, durability="process")


@pytest.fixture(params=["files", "kafka"])
def open_log(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], EventLog]:
    if request.param == "files":
        return lambda: open_files(tmp_path)
    servers, topic = request.getfixturevalue("kafka_server"), uuid.uuid4().hex
    return lambda: KafkaLog.create(servers, topic, PARTITIONS, stamped_by="writer")


@pytest.fixture
def log(open_log: Callable[[], EventLog]) -> Iterator[EventLog]:
    with open_log() as opened:
        yield opened


def sent(*ids: str, **attributes: list[Any]) -> pa.Table:
    """Events of user u with these ids, sent with attributes."""
    count = len(ids)
    columns = {
        "event_id": pa.array(ids, pa.string()),
        "entity_id": pa.array(["u"] * count, pa.string()),
        "event_type": pa.array(["session"] * count, pa.string()),
        "event_time": pa.array(range(count), TIME),
        "region": pa.array(["eu"] * count, pa.string()),
    }
    return pa.table(columns | {name: pa.array(values) for name, values in attributes.items()})


def ids_of(batches: list[pa.Table]) -> list[str]:
    return [name for batch in batches for name in batch["event_id"].to_pylist()]


def test_an_empty_log_has_nothing_to_read(log: EventLog) -> None:
    assert (log.start_offset(1), log.end_offset(1), log.read(1, 0, 10)) == (0, 0, [])


def test_offsets_are_dense_within_a_partition(log: EventLog) -> None:
    assert log.append(0, sent("a", "b"), now_us=5) == range(2)
    assert log.append(1, sent("c"), now_us=5) == range(1)
    assert log.append(0, sent("d", "e", "f"), now_us=6) == range(2, 5)
    assert [log.end_offset(partition) for partition in range(PARTITIONS)] == [5, 1, 0]
    offsets = [offset for batch in log.read(0, 0, 99) for offset in batch["log_offset"].to_pylist()]
    assert offsets == [0, 1, 2, 3, 4]


def test_a_read_starts_in_the_middle_of_what_was_appended_together(log: EventLog) -> None:
    log.append(0, sent("a", "b", "c"), now_us=5)
    log.append(0, sent("d"), now_us=6)
    assert ids_of(log.read(0, 1, 99)) == ["b", "c", "d"]
    assert ids_of(log.read(0, 3, 99)) == ["d"]
    assert log.read(0, 4, 99) == []


def test_a_limit_ends_a_read_between_appends(log: EventLog) -> None:
    for number in range(5):
        log.append(0, sent(f"{number}a", f"{number}b"), now_us=number)
    got = ids_of(log.read(0, 0, 3))
    assert got[:3] == ["0a", "0b", "1a"]
    assert len(got) <= 4


def test_the_log_stamps_the_time_and_it_never_goes_back(log: EventLog) -> None:
    for now_us in (1_000_000, 3_000_000, 2_000_000):
        log.append(0, sent("a"), now_us=now_us)
    times = [time for batch in log.read(0, 0, 9) for time in batch["ingest_time"].cast(pa.int64()).to_pylist()]
    assert times == [1_000_000, 3_000_000, 3_000_000]


def test_attributes_come_back_as_they_were_sent(log: EventLog) -> None:
    log.append(0, sent("a", "b", amount_cents=[2**53 + 1, None], plan=["p\u00e9", None]), now_us=1)
    log.append(0, sent("c", amount_cents=["12"]), now_us=2)
    first, second = log.read(0, 0, 9)
    assert first["amount_cents"].to_pylist() == [2**53 + 1, None]
    assert first["plan"].to_pylist() == ["p\u00e9", None]
    assert second["amount_cents"].to_pylist() == ["12"]
    assert first["event_time"].type == TIME


def test_what_was_appended_is_there_for_another_reader(open_log: Callable[[], EventLog], log: EventLog) -> None:
    log.append(0, sent("a"), now_us=1)
    with open_log() as reader:
        assert ids_of(reader.read(0, 0, 9)) == ["a"]
        log.append(0, sent("b"), now_us=2)
        assert reader.end_offset(0) == 2
        assert ids_of(reader.read(0, 1, 9)) == ["b"]


def test_a_later_writer_goes_on_from_the_last_offset_and_time(open_log: Callable[[], EventLog]) -> None:
    with open_log() as first:
        first.append(0, sent("a"), now_us=9_000_000)
    with open_log() as second:
        assert second.append(0, sent("b"), now_us=1_000_000) == range(1, 2)
        (both,) = [pa.concat_tables(second.read(0, 0, 9))]
        assert both["ingest_time"].cast(pa.int64()).to_pylist() == [9_000_000, 9_000_000]


def test_an_offset_is_found_by_time(log: EventLog) -> None:
    for number in range(6):
        log.append(0, sent("a", "b"), now_us=number * 1_000_000)
    assert log.offset_at(0, 0) == 0
    assert log.offset_at(0, 2_000_001) <= 6
    assert log.offset_at(0, 3_000_000) == 6
    assert log.offset_at(0, 99_000_000) == 12


@pytest.mark.parametrize("offset", [-1, 3])
def test_an_offset_outside_the_log_is_refused(log: EventLog, offset: int) -> None:
    log.append(0, sent("a", "b"), now_us=1)
    with pytest.raises(EventLogError, match=f"expected 0 to 2; got {offset}"):
        log.read(0, offset, 9)


def test_columns_of_the_logs_own_are_refused(log: EventLog) -> None:
    with pytest.raises(EventLogError, match="columns of the log's own: log_offset"):
        log.append(0, sent("a", log_offset=[7]), now_us=1)
    with pytest.raises(EventLogError, match="no region"):
        log.append(0, sent("a").drop_columns(["region"]), now_us=1)


def test_events_go_to_the_partition_of_their_entity(log: EventLog) -> None:
    names = [f"u{number}" for number in range(40)]
    events = sent(*names).set_column(1, "entity_id", pa.array(names))
    assert append_by_entity(log, events, now_us=1) == 40
    for partition in range(PARTITIONS):
        found = [name for batch in log.read(partition, 0, 99) for name in batch["entity_id"].to_pylist()]
        assert found == [name for name in names if partition_of([name], PARTITIONS)[0] == partition]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 5), max_size=8), start=st.integers(0, 40), limit=st.integers(1, 12))
def test_a_read_gives_the_events_from_an_offset_in_order(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], start: int, limit: int
) -> None:
    with open_files(tmp_path_factory.mktemp("any")) as log:
        names = [f"e{number}" for number in range(sum(sizes))]
        for number, size in enumerate(sizes):
            before = sum(sizes[:number])
            log.append(0, sent(*names[before : before + size]), now_us=number)
        start = min(start, len(names))
        got = ids_of(log.read(0, start, limit))
        assert got == names[start : start + len(got)]
        assert len(got) >= min(limit, len(names) - start)
