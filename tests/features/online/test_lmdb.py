from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import lmdb
import orjson
import pytest

from features.errors import StoreError, StoreUnavailable
from features.online import lmdb_files
from features.online.lmdb import LmdbStore
from features.online.store import Watermark
from features.partitions import partition_of

PARTITIONS = 2
ROOT = Path(__file__).parents[3]


def open_store(path: Path, **changes: Any) -> LmdbStore:
    arguments = {"view_key": "buyer@1", "view_hash": "abc", "partitions": PARTITIONS, "create": True}
    return LmdbStore.open(path, **arguments | changes)


def fill(store: LmdbStore, count: int, size: int = 640) -> None:
    names = [f"u{i}" for i in range(count)]
    for shard in range(PARTITIONS):
        own = [name for name, place in zip(names, partition_of(names, PARTITIONS), strict=True) if place == shard]
        before = store.watermark(shard)
        after = Watermark(before.log_offset + 1, 1, 1, before.epoch)
        store.commit(shard, dict.fromkeys(own, bytes(size)), {}, after, expected_previous=before.log_offset)


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    with open_store(tmp_path / "store") as store:
        fill(store, 2_000)
    return tmp_path / "store"


def assert_refused(path: Path, expected: str, **changes: Any) -> None:
    with pytest.raises(StoreError, match=expected) as caught:
        open_store(path, create=False, readonly=True, **changes)
    assert "\n" not in str(caught.value)
    assert "next:" in str(caught.value)


def test_a_missing_store_is_not_made_by_a_reader(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none", "does not exist.*materialize")
    with pytest.raises(StoreError, match="does not exist"):
        open_store(tmp_path / "none", create=True, readonly=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"view_hash": "other"}, "another view hash.*expected 'other'; got 'abc'"),
        ({"view_key": "buyer@2"}, "another view key"),
        ({"partitions": 1}, "another partitions: .*expected 1; got 2"),
    ],
)
def test_a_store_of_another_view_is_refused(filled: Path, changes: dict[str, Any], expected: str) -> None:
    assert_refused(filled, expected, **changes)


@pytest.mark.parametrize("field", ["store_format", "state_format", "partition_hash"])
def test_a_store_of_another_version_is_refused(filled: Path, field: str) -> None:
    with lmdb.open(str(filled / "shard-001"), max_dbs=4) as environment:
        meta = environment.open_db(b"meta")
        with environment.begin(write=True, db=meta) as transaction:
            identity = orjson.loads(transaction.get(b"identity"))
            transaction.put(b"identity", orjson.dumps(identity | {field: 99}))
    assert_refused(filled, f"another {field.replace('_', ' ')}: .*shard-001.* got 99")


def test_shards_in_each_others_place_are_refused(filled: Path) -> None:
    (filled / "shard-000").rename(filled / "spare")
    (filled / "shard-001").rename(filled / "shard-000")
    (filled / "spare").rename(filled / "shard-001")
    assert_refused(filled, "another shard")


def test_a_missing_shard_is_refused(filled: Path) -> None:
    shutil.rmtree(filled / "shard-001")
    assert_refused(filled, "incomplete")


@pytest.mark.parametrize("keep", [0, 100, 8_192, 50_000, -1])
def test_a_truncated_file_is_refused_and_not_read(filled: Path, keep: int) -> None:
    data = filled / "shard-000" / "data.mdb"
    content = data.read_bytes()
    data.write_bytes(content[:keep])
    assert_refused(filled, "damaged|truncated")


def test_a_file_of_other_content_is_refused(filled: Path) -> None:
    (filled / "shard-000" / "data.mdb").write_bytes(b"not a store " * 10_000)
    assert_refused(filled, "damaged")


def test_a_file_with_overwritten_roots_is_refused(filled: Path) -> None:
    data = filled / "shard-000" / "data.mdb"
    content = bytearray(data.read_bytes())
    content[8_192:] = bytes(len(content) - 8_192)
    data.write_bytes(content)
    assert_refused(filled, "damaged")


def test_a_file_covers_every_page_that_it_counts_after_each_commit(tmp_path: Path) -> None:
    with open_store(tmp_path / "store") as store:
        for size in (16, 8_000, 64_000, 0, 16, 4_000):
            fill(store, 300, size - size % 16)
    with open_store(tmp_path / "store", create=False, readonly=True) as store:
        assert len(store.get_many(["u1"]).states[0]) == 4_000


def test_a_full_store_says_so_and_keeps_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_files, "MAX_SHARD_BYTES", 1 << 20)
    with open_store(tmp_path / "store") as store:
        fill(store, 10)
        with pytest.raises(StoreError, match="online store is full.*at most 1048576 bytes"):
            fill(store, 5_000)
        assert len(store.get_many(["u1"]).states[0]) == 640
        assert store.watermark(0).log_offset == 0
        fill(store, 20)


def test_a_store_opened_for_reading_refuses_a_commit(filled: Path) -> None:
    with (
        open_store(filled, readonly=True) as store,
        pytest.raises(StoreError, match="opened for reading"),
    ):
        store.claim(0)


def test_opening_a_store_twice_in_one_process_says_so(filled: Path) -> None:
    with open_store(filled), pytest.raises(StoreUnavailable, match="already open"):
        open_store(filled, readonly=True)


def test_a_refused_store_is_closed_again(filled: Path) -> None:
    assert_refused(filled, "another view hash", view_hash="other")
    open_store(filled).close()


def test_a_half_made_store_leaves_its_place_free(tmp_path: Path) -> None:
    place = tmp_path / f"store.{lmdb_files.os.getpid()}.partial"
    (place / "shard-000").mkdir(parents=True)
    (place / "shard-000" / "data.mdb").write_bytes(b"left behind")
    open_store(tmp_path / "store").close()
    assert not place.exists()


def test_a_reader_sees_what_another_process_writes_meanwhile(filled: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from features.online.lmdb import LmdbStore\n"
        "from features.online.store import Watermark\n"
        "store = LmdbStore.open(Path(sys.argv[1]), view_key='buyer@1', view_hash='abc', partitions=2)\n"
        "for shard, name in ((0, sys.argv[2]), (1, sys.argv[3])):\n"
        "    mine = store.claim(shard)\n"
        "    store.commit(shard, {name: bytes(32)}, {name: b'{}'}, Watermark(9, 9, 9, mine.epoch),\n"
        "                 expected_previous=mine.log_offset)\n"
    )
    names = ["u0", "u1", "u2", "u3", "u4"]
    chosen = [next(n for n in names if partition_of([n], 2)[0] == shard) for shard in (0, 1)]
    with open_store(filled, readonly=True) as store:
        assert [len(value) for value in store.get_many(chosen).states] == [640, 640]
        command = [sys.executable, "-c", script, str(filled), *chosen]
        subprocess.run(command, cwd=ROOT, check=True, env={"PYTHONPATH": str(ROOT)})
        found = store.get_many(chosen)
        assert found.states == [bytes(32)] * 2
        assert found.watermarks == {shard: Watermark(9, 9, 9, 1) for shard in (0, 1)}


def test_threads_read_side_by_side(filled: Path) -> None:
    names = [f"u{i}" for i in range(2_000)]
    wrong: list[int] = []
    with open_store(filled, readonly=True) as store:

        def read() -> None:
            for start in range(0, 2_000, 50):
                found = store.get_many(names[start : start + 50])
                wrong.extend(len(value) for value in found.states if len(value) != 640)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
