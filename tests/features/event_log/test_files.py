"""What a crash, damage or a second writer does to log files."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from features.errors import EventLogError, TemporaryError
from features.event_log import files
from features.event_log.files import FileLog
from features.event_log.frames import HEADER_BYTES
from features.rows import TIME


def event(name: str) -> pa.Table:
    return pa.table(
        {"event_id": [name], "entity_id": ["u"], "event_type": ["session"], "event_time": pa.array([1], TIME), "region": ["eu"]}
    )


def segment(folder: Path) -> Path:
    return sorted((folder / "partition-000").glob("*.log"))[-1]


def read_ids(log: FileLog) -> list[str]:
    return [name for batch in log.read(0, log.start_offset(0), 99) for name in batch["event_id"].to_pylist()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A log with three appends."""
    with FileLog.create(tmp_path / "log", [0], durability="process") as log:
        for number, name in enumerate("abc"):
            log.append(0, event(name), now_us=number)
    return tmp_path / "log"


def frame_bytes(folder: Path) -> int:
    return segment(folder).stat().st_size // 3


@pytest.mark.parametrize("kept", [1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 40])
def test_a_torn_append_is_not_read_and_cut_by_the_next_writer(folder: Path, kept: int) -> None:
    whole = frame_bytes(folder)
    data = segment(folder).read_bytes()
    segment(folder).write_bytes(data[: 2 * whole + kept])
    with FileLog.open(folder, 1) as log:
        assert read_ids(log) == ["a", "b"]
        assert log.append(0, event("d"), now_us=9) == range(2, 3)
        assert read_ids(log) == ["a", "b", "d"]
    assert read_ids(FileLog.open(folder, 1)) == ["a", "b", "d"]


def test_a_last_append_of_other_bytes_is_cut(folder: Path) -> None:
    whole = frame_bytes(folder)
    data = segment(folder).read_bytes()
    segment(folder).write_bytes(data[: 2 * whole + HEADER_BYTES] + bytes(whole - HEADER_BYTES))
    reader = FileLog.open(folder, 1)
    assert read_ids(reader) == ["a", "b"]
    with FileLog.open(folder, 1) as log:
        assert log.append(0, event("d"), now_us=9) == range(2, 3)
    assert read_ids(reader) == ["a", "b", "d"]


def test_a_tail_of_zeros_is_cut(folder: Path) -> None:
    with segment(folder).open("ab") as file:
        file.write(bytes(10_000))
    with FileLog.open(folder, 1) as log:
        assert log.append(0, event("d"), now_us=9) == range(3, 4)
        assert read_ids(log) == ["a", "b", "c", "d"]


def test_damage_before_the_end_is_an_error_and_nothing_is_cut(folder: Path) -> None:
    whole = frame_bytes(folder)
    data = bytearray(segment(folder).read_bytes())
    data[whole + HEADER_BYTES + 50] ^= 0xFF
    segment(folder).write_bytes(data)
    with pytest.raises(EventLogError, match="damaged"):
        read_ids(FileLog.open(folder, 1))
    data[whole + 5] ^= 0xFF
    segment(folder).write_bytes(data)
    with pytest.raises(EventLogError, match="damaged"):
        FileLog.open(folder, 1).append(0, event("d"), now_us=9)
    assert len(segment(folder).read_bytes()) == 3 * whole


def test_a_partition_has_one_writer(folder: Path) -> None:
    with FileLog.open(folder, 1) as first, FileLog.open(folder, 1) as second:
        first.append(0, event("d"), now_us=9)
        with pytest.raises(TemporaryError, match="one writer"):
            second.append(0, event("e"), now_us=9)
        first.close()
        assert second.append(0, event("e"), now_us=9) == range(4, 5)


def test_a_log_goes_on_in_a_new_segment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SEGMENT_BYTES", 1)
    reader = FileLog.open(folder, 1)
    assert reader.end_offset(0) == 3
    with FileLog.open(folder, 1) as log:
        for name in "def":
            log.append(0, event(name), now_us=9)
    assert len(list((folder / "partition-000").glob("*.log"))) == 4
    assert read_ids(reader) == read_ids(FileLog.open(folder, 1)) == list("abcdef")


def test_the_oldest_segments_may_be_gone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SEGMENT_BYTES", 1)
    with FileLog.open(folder, 1) as log:
        log.append(0, event("d"), now_us=9)
    min((folder / "partition-000").glob("*.log")).unlink()
    left = FileLog.open(folder, 1)
    assert (left.start_offset(0), left.end_offset(0), read_ids(left)) == (3, 4, ["d"])
    with pytest.raises(EventLogError, match="expected 3 to 4; got 0.*materialize"):
        left.read(0, 0, 9)


def test_a_segment_that_is_dropped_under_an_open_reader_is_an_offset_that_is_gone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SEGMENT_BYTES", 1)
    reader = FileLog.open(folder, 1)
    assert reader.end_offset(0) == 3  # it has found the segment
    with FileLog.open(folder, 1) as log:
        log.append(0, event("d"), now_us=9)
        assert log.drop_segments(0, 3) == 1
    with pytest.raises(EventLogError, match="offset is not in the event log: .*expected 3 to 4; got 1; next: materialize"):
        reader.read(0, 1, 9)
    assert read_ids(reader) == ["d"]


def test_a_log_may_begin_behind_the_batch_log(tmp_path: Path) -> None:
    with FileLog.create(tmp_path / "log", [7]) as log:
        assert log.start_offset(0) == log.end_offset(0) == 7
        assert log.append(0, event("a"), now_us=1) == range(7, 8)


def test_a_log_of_another_layout_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EventLogError, match="laid out differently"):
        FileLog.open(folder, 2)
    with pytest.raises(EventLogError, match="cannot be opened"):
        FileLog.open(tmp_path / "none", 1)
