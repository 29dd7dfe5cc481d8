"""A marker erases what stands before it, wherever it stands and however the log is read; what happens later counts anew."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parity.adversarial import draw_events, to_table

from features.catalogs import load_catalog
from features.checks import check_catalog
from features.codec import body_of
from features.declarations import Catalog, EventType
from features.erasure import ERASED, NONE, REASON, Markers
from features.errors import DeclarationError
from features.event_log.compaction import BatchHistory, compact, open_live_log
from features.event_log.files import FileLog
from features.event_log.port import STAMPED
from features.events import deduplicate, read_events
from features.layout import MAX_FUTURE_S, US_PER_S
from features.online.lmdb import LmdbStore
from features.partitions import partition_of
from features.point_in_time import states_as_known
from features.rows import TIME, event_schema
from features.stream_fold import Folded, ShardFold
from features.workspace import Workspace
from transforms.materialize import FillJob, fill_shard

CATALOG = load_catalog("subscription")
VIEW = CATALOG.view("subscriber")
SCHEMA = event_schema(CATALOG.attributes_of("user"))
PARTITIONS = CATALOG.log_partitions
LATER_US = 2_000_000_000 * US_PER_S
NOW_US = 1_767_571_200_000_000
U1 = int(partition_of(["u1"], PARTITIONS)[0])


class NoHistory:
    """That of a log which starts at offset 0 and was never compacted."""

    def __call__(self, partition: int, since_us: int, before: int) -> pa.Table:
        raise AssertionError("a log that starts at offset 0 needs no history")

    def markers(self, partition: int, before: int) -> tuple[Markers, int]:
        return NONE, 0


def rows_of(partition: int) -> list[dict[str, Any]]:
    """Awkward events of one partition as they were sent, by arrival, with ``at_us``."""
    table = to_table(draw_events(40, 5, partitions=PARTITIONS, admissible=False), SCHEMA)
    rows: list[dict[str, Any]] = table.filter(pa.array(table["log_partition"].to_numpy() == partition)).to_pylist()
    ingest_us = table.filter(pa.array(table["log_partition"].to_numpy() == partition))["ingest_time"].cast(pa.int64())
    for row, at_us in zip(rows, ingest_us.to_pylist(), strict=True):
        for name in (*STAMPED, "log_partition", "ingest_day"):
            del row[name]
        row["at_us"] = at_us
    return rows


ROWS = rows_of(3)
NAMES = sorted({row["entity_id"] for row in ROWS})
SENT = pa.schema([field for field in SCHEMA if field.name not in (*STAMPED, "log_partition", "ingest_day")])


def marker(entity_id: str, number: int, at_us: int, ahead_us: int = 0) -> dict[str, Any]:
    moment = pa.scalar(at_us + ahead_us, TIME).as_py()
    return {"event_id": f"erasure-{number}", "entity_id": entity_id, "event_type": ERASED, "event_time": moment,
            "region": "eu", "at_us": at_us}  # fmt: skip


def append_rows(log: FileLog, rows: list[dict[str, Any]]) -> None:
    for at_us, together in groupby(rows, key=lambda row: row["at_us"]):
        table = pa.Table.from_pylist([{k: v for k, v in row.items() if k != "at_us"} for row in together], schema=SENT)
        log.append(3, table, now_us=at_us)


def expected_bodies(rows: list[dict[str, Any]]) -> dict[str, bytes]:
    """By a plain loop: what stays of the log, folded at once by the batch path's function."""
    last: dict[str, tuple[int, Any]] = {}
    for offset, row in enumerate(rows):
        if row["event_type"] == ERASED:
            moment = max(row["event_time"], last.get(row["entity_id"], (0, row["event_time"]))[1])
            last[row["entity_id"]] = (offset, moment)
    kept = []
    for offset, row in enumerate(rows):
        erased_to, erased_at = last.get(row["entity_id"], (-1, None))
        event_us = pa.scalar(row["event_time"], TIME).cast(pa.int64()).as_py()
        admissible = event_us - row["at_us"] <= MAX_FUTURE_S * US_PER_S
        after = offset > erased_to and (erased_at is None or row["event_time"] > erased_at)
        if row["event_type"] != ERASED and admissible and after:
            kept.append({**row, "log_offset": offset, "log_partition": 3, "ingest_time": row["at_us"]})
    names = sorted({row["entity_id"] for row in rows})
    for row in kept:
        row["ingest_time"] = pa.scalar(row.pop("at_us"), TIME).as_py()
        row["ingest_day"] = row["ingest_time"].date()
    events = deduplicate(pa.Table.from_pylist(kept, schema=SCHEMA))
    everyone = pa.array(names, pa.string())
    states = states_as_known(events, CATALOG, VIEW, everyone, pa.array([LATER_US] * len(names)).to_numpy())
    return {name: body_of(state) for name, state in zip(names, states.to_pylist(), strict=True)}


def open_store(folder: Path) -> LmdbStore:
    return LmdbStore.open(folder, view_key=VIEW.key, view_hash=CATALOG.view_hash(VIEW), partitions=PARTITIONS, create=True)


def bodies(folder: Path, names: list[str]) -> dict[str, bytes]:
    with open_store(folder) as store:
        return dict(zip(names, map(body_of, store.get_many(names).states), strict=True))


markers_drawn = st.lists(
    st.tuples(st.integers(0, len(ROWS)), st.sampled_from(NAMES), st.sampled_from([0, 0, 1, 60_000_000, 200_000_000])),
    min_size=1, max_size=5,
)  # fmt: skip


def with_markers(places: list[tuple[int, str, int]]) -> list[dict[str, Any]]:
    """The rows with a marker before each of these places."""
    rows = []
    for number, row in enumerate([*ROWS, None]):
        for order, (place, name, ahead_us) in enumerate(places):
            if place == number:
                rows.append(marker(name, 1000 * number + order, ROWS[max(number - 1, 0)]["at_us"], ahead_us))
        if row is not None:
            rows.append(row)
    return rows


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    places=markers_drawn,
    limits=st.lists(st.integers(5, 400), min_size=1, max_size=6),
    restarts=st.sets(st.integers(0, 8), max_size=3),
    compactions=st.sets(st.integers(0, 8), max_size=2),
)
def test_a_stream_gives_the_bytes_of_what_is_left_whatever_the_batching_restarts_and_compactions(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[int, str, int]], limits: list[int], restarts: set[int],
    compactions: set[int],
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("any")
    workspace, rows = Workspace(folder / "workspace"), with_markers(places)
    history = BatchHistory(workspace.root, CATALOG, "user")
    with open_live_log(workspace, CATALOG, "user", durability="process") as log, open_store(folder / "store") as store:
        append_rows(log, rows)
        fold, turn = ShardFold(log, store, CATALOG, VIEW, 3, history), 0
        while fold.fold_next(limits[turn % len(limits)] + turn, LATER_US):
            turn += 1
            if turn in compactions:
                compact(log, workspace, CATALOG, "user", now_us=LATER_US)
            if turn in restarts:
                fold = ShardFold(log, store, CATALOG, VIEW, 3, history)
        compact(log, workspace, CATALOG, "user", now_us=LATER_US)
    expected = expected_bodies(rows)
    assert bodies(folder / "store", list(expected)) == expected
    job = FillJob(workspace.root, CATALOG, VIEW, 2 * LATER_US, str(folder / "batch"))
    open_store(folder / "batch").close()
    fill_shard(job, 3)
    assert bodies(folder / "batch", list(expected)) == expected


def session(number: int, at_us: int, *, event_us: int | None = None) -> dict[str, Any]:
    return {"event_id": f"u1/{number}", "entity_id": "u1", "event_type": "session", "region": "eu", "duration_ms": 5,
            "event_time": pa.scalar(at_us if event_us is None else event_us, TIME).as_py(), "at_us": at_us}  # fmt: skip


def fold_all(log: FileLog, store: LmdbStore) -> Folded:
    done = ShardFold(log, store, CATALOG, VIEW, U1, NoHistory()).fold_next(10**9, LATER_US)
    assert done is not None
    return done


def append_u1(log: FileLog, *rows: dict[str, Any]) -> None:
    for row in rows:
        table = pa.Table.from_pylist([{k: v for k, v in row.items() if k != "at_us"}], schema=SENT)
        log.append(U1, table, now_us=row["at_us"])


def test_a_marker_in_the_middle_of_a_micro_batch_leaves_what_comes_after_it(tmp_path: Path) -> None:
    with FileLog.create(tmp_path / "log", [0] * PARTITIONS, durability="process") as log, open_store(tmp_path / "s") as store:
        append_u1(log, session(0, NOW_US), session(1, NOW_US), marker("u1", 0, NOW_US + 1), session(2, NOW_US + 2))
        done = fold_all(log, store)
        append_u1(log, session(3, NOW_US + 3))
    alone = tmp_path / "alone"
    with FileLog.create(alone, [0] * PARTITIONS, durability="process") as log, open_store(tmp_path / "t") as other:
        append_u1(log, session(2, NOW_US + 2))
        fold_all(log, other)
    assert (done.events, done.erased, done.entity_ids) == (4, 1, ["u1"])
    assert bodies(tmp_path / "s", ["u1"]) == bodies(tmp_path / "t", ["u1"]) != {"u1": b""}


def test_a_marker_takes_the_state_and_the_profile_and_tells_subscribers(tmp_path: Path) -> None:
    with FileLog.create(tmp_path / "log", [0] * PARTITIONS, durability="process") as log, open_store(tmp_path / "s") as store:
        append_u1(log, session(0, NOW_US))
        fold = ShardFold(log, store, CATALOG, VIEW, U1, NoHistory())
        fold.fold_next(9, NOW_US)
        store.commit(U1, {}, {"u1": b'{"plan":"pro"}'}, fold.position, expected_previous=0)
        before = store.changes(U1).cursor
        append_u1(log, marker("u1", 0, NOW_US + 1))
        fold.fold_next(9, NOW_US + 1)
        found = store.get_many(["u1"])
        assert (found.states, found.profiles, found.watermarks[U1].log_offset) == ([b""], [None], 1)
        assert store.changes(U1, before).entity_ids == ("u1",)


def test_an_old_event_that_comes_after_the_marker_is_refused_and_counted(tmp_path: Path) -> None:
    with FileLog.create(tmp_path / "log", [0] * PARTITIONS, durability="process") as log, open_store(tmp_path / "s") as store:
        append_u1(log, session(0, NOW_US), marker("u1", 0, NOW_US + 9))
        fold = ShardFold(log, store, CATALOG, VIEW, U1, NoHistory())
        fold.fold_next(9, NOW_US)
        # A phone that was offline, and the moment itself: both happened by then.
        append_u1(log, session(1, NOW_US + 10, event_us=NOW_US + 3), session(2, NOW_US + 11, event_us=NOW_US + 9))
        done = fold.fold_next(9, NOW_US + 11)
        assert done is not None
        assert (done.refused, done.repeats, done.entity_ids) == ({REASON: 2}, 0, [])
        assert store.get_many(["u1"]).states == [b""]


def test_compaction_brings_the_marker_and_nothing_that_it_erases(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with open_live_log(workspace, CATALOG, "user", durability="process") as log:
        append_u1(log, session(0, NOW_US), marker("u1", 0, NOW_US + 1), session(1, NOW_US + 2))
        done = compact(log, workspace, CATALOG, "user", now_us=NOW_US)
        assert (done.events, done.erased, done.refused) == (2, 1, 0)
        assert read_events(workspace, CATALOG, "user", columns=["event_id"]).to_pylist() == [{"event_id": "u1/1"}]


def test_no_catalog_may_declare_a_marker() -> None:
    with pytest.raises(DeclarationError, match="reserved name"):
        check_catalog(Catalog("mine", (), (EventType(ERASED, "user"),)))


@pytest.mark.parametrize("restart", [False, True])
def test_an_erased_event_makes_no_later_one_its_repeat(tmp_path: Path, restart: bool) -> None:
    """The batch path cannot know of the erased copy once its row is gone, so the stream must have forgotten it too."""
    ahead_us = NOW_US + 120_000_000  # by a clock two minutes fast: the copy happened after the moment of the erasure
    with FileLog.create(tmp_path / "log", [0] * PARTITIONS, durability="process") as log, open_store(tmp_path / "s") as store:
        fold = ShardFold(log, store, CATALOG, VIEW, U1, NoHistory())
        for row in (session(0, NOW_US, event_us=ahead_us), marker("u1", 0, NOW_US + 1)):
            append_u1(log, row)
            fold.fold_next(9, NOW_US)
        if restart:
            fold = ShardFold(log, store, CATALOG, VIEW, U1, NoHistory())
        append_u1(log, session(0, NOW_US + 2, event_us=ahead_us), session(0, NOW_US + 3, event_us=ahead_us))
        done = fold.fold_next(9, NOW_US)
    with FileLog.create(tmp_path / "alone", [0] * PARTITIONS, durability="process") as log, open_store(tmp_path / "t") as other:
        append_u1(log, session(0, NOW_US + 2, event_us=ahead_us))
        fold_all(log, other)
    assert done is not None
    assert (done.repeats, done.refused) == (1, {})
    assert bodies(tmp_path / "s", ["u1"]) == bodies(tmp_path / "t", ["u1"]) != {"u1": b""}
