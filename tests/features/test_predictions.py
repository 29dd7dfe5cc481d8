"""Segments of logged predictions: whole or absent rows, readers that go on, deletion beside a writer."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from features import predictions
from features.errors import EventLogError
from features.event_log.frames import Frame, read_header
from features.predictions import SegmentWriter, erase, expire, list_segments, read_new, read_predictions
from features.rows import PREDICTION

NOON_US = 1_740_830_400_000_000


@pytest.fixture
def new_writer() -> Iterator[Callable[..., SegmentWriter]]:
    """Makes writers and closes them at the end."""
    with ExitStack() as opened:
        yield lambda folder, **limits: opened.enter_context(closing(SegmentWriter(folder, **limits)))


NewWriter = Callable[..., SegmentWriter]


def rows_of(names: list[str], at_us: int = NOON_US, revision: str = "stable") -> pa.Table:
    moment = datetime.fromtimestamp(at_us / 1e6, UTC)
    row = {
        "answered_at": moment, "now": moment, "model": "churn", "model_version": 1, "view_key": "v", "revision": revision,
        "log_partition": 0, "log_offset": 3, "shard_offset": 5, "state_hash": 1, "profile_hash": 2, "inputs_hash": 3,
        "score": 0.5, "cold": False,
    }  # fmt: skip
    listed = [row | {"request_id": f"r-{name}", "entity_id": name} for name in names]
    return pa.Table.from_pylist(listed, schema=PREDICTION)


def read_names(folder: Path, **narrowed: object) -> list[str]:
    return [name for rows in read_predictions(folder, **narrowed) for name in rows["entity_id"].to_pylist()]  # type: ignore[arg-type]


def test_rows_come_back_as_they_were_written(new_writer: NewWriter, tmp_path: Path) -> None:
    writer = new_writer(tmp_path)
    first, second = rows_of(["u1", "u2"]), rows_of(["u3"])
    writer.append(first)
    writer.append(second)
    assert pa.concat_tables(read_predictions(tmp_path)).equals(pa.concat_tables([first, second]))


def test_a_range_is_from_its_first_microsecond_until_before_its_last(new_writer: NewWriter, tmp_path: Path) -> None:
    writer = new_writer(tmp_path)
    for number in range(4):
        writer.append(rows_of([f"u{number}"], NOON_US + number))
    assert read_names(tmp_path, since_us=NOON_US + 1, until_us=NOON_US + 3) == ["u1", "u2"]


def test_a_revision_is_read_alone(new_writer: NewWriter, tmp_path: Path) -> None:
    writer = new_writer(tmp_path)
    writer.append(rows_of(["u1"], revision="stable"))
    writer.append(rows_of(["u2"], revision="canary"))
    assert read_names(tmp_path, revision="canary") == ["u2"]


def test_a_cursor_goes_on_where_it_was_over_several_writers(new_writer: NewWriter, tmp_path: Path) -> None:
    one, other = new_writer(tmp_path), new_writer(tmp_path)
    one.append(rows_of(["u1"]))
    other.append(rows_of(["u2"], NOON_US + 1))
    first = read_new(tmp_path, {}, limit=100)
    assert first.rows["entity_id"].to_pylist() == ["u1", "u2"]
    one.append(rows_of(["u3"]))
    other.append(rows_of(["u4"]))
    second = read_new(tmp_path, first.cursor, limit=1)
    third = read_new(tmp_path, second.cursor, limit=1)
    assert second.rows["entity_id"].to_pylist() + third.rows["entity_id"].to_pylist() == ["u3", "u4"]
    assert read_new(tmp_path, third.cursor, limit=100).rows.num_rows == 0


def test_a_segment_is_rolled_by_its_age_and_by_its_size(new_writer: NewWriter, tmp_path: Path) -> None:
    writer = new_writer(tmp_path, segment_age_s=10)
    for at_s in (0, 9, 10, 19):
        writer.append(rows_of(["u"], NOON_US + at_s * 1_000_000))
    assert len(list_segments(tmp_path)) == 2
    small = new_writer(tmp_path / "small", segment_bytes=1)
    small.append(rows_of(["u1"]))
    small.append(rows_of(["u2"], NOON_US + 1))
    assert len(list_segments(tmp_path / "small")) == 2


@pytest.mark.parametrize("missing_bytes", [1, 100, 10_000_000])
def test_a_torn_end_is_not_there_yet(new_writer: NewWriter, tmp_path: Path, missing_bytes: int) -> None:
    writer = new_writer(tmp_path)
    writer.append(rows_of(["u1"]))
    (segment,) = list_segments(tmp_path)
    whole = segment.stat().st_size
    writer.append(rows_of(["u2"]))
    os.truncate(segment, max(segment.stat().st_size - missing_bytes, whole))
    assert read_names(tmp_path) == ["u1"]


def test_damage_before_the_end_is_an_error(new_writer: NewWriter, tmp_path: Path) -> None:
    writer = new_writer(tmp_path)
    for name in ("u1", "u2", "u3"):
        writer.append(rows_of([name]))
    (segment,) = list_segments(tmp_path)
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    with pytest.raises(EventLogError, match="segment of predictions is damaged"):
        read_names(tmp_path)


def test_frames_that_come_while_a_reader_is_at_the_end_are_no_damage(
    new_writer: NewWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = new_writer(tmp_path)
    writer.append(rows_of(["u1"]))
    coming = iter([["u2"], ["u3"]])

    def look(data: bytes) -> Frame | None:
        if not data:
            for names in coming:
                writer.append(rows_of(names))
        return read_header(data)

    monkeypatch.setattr(predictions, "read_header", look)
    assert read_names(tmp_path) == ["u1"]
    assert read_names(tmp_path) == ["u1", "u2", "u3"]


def write_until_killed(folder: Path) -> None:
    writer = SegmentWriter(folder)
    for number in range(1_000_000):
        writer.append(rows_of([f"u{number}"] * 1_000))


def test_a_writer_killed_at_any_point_leaves_whole_frames(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["features.predictions", "pyarrow.parquet"])
    for life in range(2):
        child = processes.Process(target=write_until_killed, args=(tmp_path / str(life),))
        child.start()
        while not list_segments(tmp_path / str(life)) or not read_names(tmp_path / str(life)):
            assert child.is_alive()
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        names = read_names(tmp_path / str(life))
        assert names == [f"u{number}" for number in range(len(names) // 1_000) for _ in range(1_000)]


def test_a_full_disk_tears_nothing_and_is_written_to_again_when_it_has_room(
    new_writer: NewWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of a file's size is the real error of a write that finds no room."""
    writer = new_writer(tmp_path)
    writer.append(rows_of(["u1"]))
    cut, cuts = os.ftruncate, []

    def cut_locked(file: int, length: int) -> None:
        # A deletion that got the lock before could have put a rewritten segment under the name.
        (path,) = (each for each in list_segments(tmp_path) if each.stat().st_ino == os.fstat(file).st_ino)
        with path.open("rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        cuts.append(length)
        cut(file, length)

    monkeypatch.setattr(os, "ftruncate", cut_locked)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try:
        for _ in range(3):
            with pytest.raises(OSError, match="File too large"):
                writer.append(rows_of(["lost"]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    writer.append(rows_of(["u2"], NOON_US + 1))
    assert len(cuts) == 3
    assert read_names(tmp_path) == ["u1", "u2"]
    assert len(list_segments(tmp_path)) == 2


def test_an_erased_entity_is_gone_beside_a_live_writer_whose_later_rows_stay(new_writer: NewWriter, tmp_path: Path) -> None:
    writer = new_writer(tmp_path)
    writer.append(rows_of(["u1", "gone", "u2"]))
    cursor = read_new(tmp_path, {}, limit=100).cursor
    writer.append(rows_of(["gone", "u3"]))
    assert erase(tmp_path, {"gone"}) == 2
    writer.append(rows_of(["u4"], NOON_US + 1))
    assert read_names(tmp_path) == ["u1", "u2", "u3", "u4"]
    assert read_new(tmp_path, cursor, limit=100).rows["entity_id"].to_pylist() == ["u3", "u4"]
    assert not any(b"gone" in path.read_bytes() for path in tmp_path.iterdir())
    assert erase(tmp_path, {"gone"}) == 0


def test_what_a_crash_of_a_deletion_left_is_no_segment_and_is_replaced(new_writer: NewWriter, tmp_path: Path) -> None:
    new_writer(tmp_path).append(rows_of(["u1", "gone"]))
    (segment,) = list_segments(tmp_path)
    segment.with_name(f"{segment.name}.partial").write_bytes(segment.read_bytes()[:50])
    assert erase(tmp_path, {"gone"}) == 1
    assert [path.name for path in tmp_path.iterdir()] == [segment.name]


def test_segments_expire_when_all_their_rows_are_older(new_writer: NewWriter, tmp_path: Path) -> None:
    writer = new_writer(tmp_path, segment_bytes=1)
    for number in range(3):
        writer.append(rows_of([f"u{number}"], NOON_US + number))
    assert expire(tmp_path, NOON_US + 2) == 2
    assert read_names(tmp_path) == ["u2"]


def test_only_segments_of_the_views_named_expire(new_writer: NewWriter, tmp_path: Path) -> None:
    place = PREDICTION.get_field_index("view_key")
    for number, view in enumerate(("v", "w")):
        rows = rows_of([view], NOON_US - number)
        new_writer(tmp_path).append(rows.set_column(place, PREDICTION.field(place), [[view]]))
    assert expire(tmp_path, NOON_US + 1, views=["w", "x"]) == 1
    assert read_names(tmp_path) == ["v"]
    assert expire(tmp_path, NOON_US + 1) == 1


def test_what_a_writer_appends_while_its_segment_expires_is_kept(new_writer: NewWriter, tmp_path: Path) -> None:
    """The writer waits for the segment's lock, finds its name gone, and goes on in another one."""
    writer = new_writer(tmp_path)
    writer.append(rows_of(["old"], NOON_US))
    (segment,) = list_segments(tmp_path)
    with segment.open("rb") as held, ThreadPoolExecutor(2) as threads:
        fcntl.flock(held, fcntl.LOCK_EX)
        expiring = threads.submit(expire, tmp_path, NOON_US + 1)
        appending = threads.submit(writer.append, rows_of(["new"], NOON_US + 5))
        time.sleep(0.2)
        assert not expiring.done()  # nothing goes while somebody writes
        fcntl.flock(held, fcntl.LOCK_UN)
        appending.result(20)
        removed = expiring.result(20)
    # Whoever came first: the new row is there, beside the old one if it came in time to keep the segment.
    assert read_names(tmp_path) == (["new"] if removed else ["old", "new"])
