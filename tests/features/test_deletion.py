"""A deleted user is gone from every place, stays gone, and the record says so without naming anybody."""

from __future__ import annotations

import json
import signal
import uuid
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from e2e.dying import PROCESSES, delete_and_die

from features import delta, predictions
from features.catalogs import load_catalog
from features.codec import body_of
from features.deletion import Deletion, delete_entities
from features.deletion_records import DeletionRecords, Request
from features.erasure import ERASED, REASON
from features.errors import EventLogError
from features.event_log.compaction import BatchHistory, compact, open_live_log
from features.event_log.kafka import KafkaLog
from features.event_log.port import EventLog
from features.events import append_events, find_markers, read_events
from features.importing import Report, import_files, prepare_import
from features.marking import mark_live_log
from features.online.addresses import ViewVersion, open_store, stored_version
from features.partitions import partition_of
from features.profiles import append_profiles, profiles_current
from features.rows import DEAD_LETTER, PREDICTION, TIME
from features.stream_fold import ShardFold
from features.workspace import Workspace
from transforms.materialize import FillJob, fill_shard

CATALOG = load_catalog("subscription")
VIEW = CATALOG.view("subscriber")
VERSION = ViewVersion.of(CATALOG, VIEW)
DAY_US = 86_400_000_000
THEN_US = 1_767_571_200_000_000
"""2026-01-05 00:00 UTC: when the events happened."""
NOW_US = THEN_US + 40 * DAY_US
U1 = int(partition_of(["u1"], CATALOG.log_partitions)[0])


def sessions(name: str, days: list[int], *, tag: str = "") -> pa.Table:
    times = pa.array([THEN_US + day * DAY_US for day in days], TIME)
    count = len(days)
    return pa.table({
        "event_id": [f"{name}/{day}{tag}" for day in days], "entity_id": [name] * count, "event_type": ["session"] * count,
        "event_time": times, "ingest_time": times, "region": ["eu"] * count, "duration_ms": [5] * count,
    })  # fmt: skip


def fill(workspace: Workspace, address: str, *, as_of_us: int = NOW_US) -> None:
    open_store(address, VERSION, create=True).close()
    fill_shard(FillJob(workspace.root, CATALOG, VIEW, as_of_us, address), U1)


def state_of(address: str, name: str) -> tuple[bytes, bytes | None]:
    with open_store(address, VERSION, readonly=True) as store:
        found = store.get_many([name])
    return body_of(found.states[0]), found.profiles[0]


def neighbour() -> str:
    """Another user of the same partition."""
    return next(name for name in (f"v{n}" for n in range(99)) if partition_of([name], CATALOG.log_partitions)[0] == U1)


V1 = neighbour()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A log that files were imported into, an account each, a dead letter each, a filled LMDB store."""
    workspace = Workspace(tmp_path / "workspace")
    append_events(workspace, CATALOG, "user", pa.concat_tables([sessions("u1", [0, 1]), sessions(V1, [0, 1])]), source="old")
    accounts = pa.table({
        "entity_id": ["u1", V1], "valid_from": pa.array([THEN_US] * 2, TIME), "created_time": pa.array([THEN_US] * 2, TIME),
        "plan": ["pro", "free"],
    })  # fmt: skip
    append_profiles(workspace, CATALOG, "account", accounts, source="accounts")
    letters = [{"source": "f", "row": row, "entity": "user", "reason": "bad", "content": json.dumps({"user": name, "x": 1}),
                "recorded_at": pa.scalar(THEN_US, TIME).as_py()} for row, name in enumerate(("u1", V1))]  # fmt: skip
    table = delta.create_table(workspace.dead_letters, DEAD_LETTER, [], {})
    delta.append(table, pa.Table.from_pylist(letters, schema=DEAD_LETTER), {"f": 0})
    fill(workspace, str(workspace.online(VIEW.key)))
    return workspace


def deletion(workspace: Workspace, *addresses: str) -> Deletion:
    openers = {address: partial(open_store, address, VERSION) for address in (str(workspace.online(VIEW.key)), *addresses)}
    live = partial(open_live_log, workspace, CATALOG, "user") if workspace.live_log("user").exists() else None
    return Deletion(workspace, CATALOG, "user", live, openers)


def delete(task: Deletion, *names: str, now_us: int = NOW_US) -> Request:
    return delete_entities(task, list(names), who="ann", reason="asked by mail", now_us=now_us)


def names_in_log(workspace: Workspace) -> set[str]:
    return set(read_events(workspace, CATALOG, "user", columns=["entity_id"])["entity_id"].to_pylist())


def rows_on_disk(folder: Path, name: str) -> int:
    """Rows of a user in any Parquet file below a folder, whichever version it belongs to; markers do not count."""
    count = 0
    for path in folder.rglob("*.parquet"):
        if "_delta_log" not in path.parts:
            frame = pl.read_parquet(path)
            if "event_type" in frame.columns:
                frame = frame.filter(pl.col("event_type") != ERASED)
            count += sum(name in map(str, row) or any(f'"{name}"' in str(value) for value in row) for row in frame.iter_rows())
    return count


def test_a_deleted_user_is_gone_from_lmdb_redis_and_every_table(workspace: Workspace, redis_url: str) -> None:
    fill(workspace, redis_url)
    files = str(workspace.online(VIEW.key))
    for address in (files, redis_url):
        assert all(state_of(address, "u1"))
    done = delete(deletion(workspace, redis_url), "u1")
    assert done.counts == {
        "markers": 1, f"online store {files}": 1, f"online store {redis_url}": 1, "event log": 2, "dead letters": 1,
        "profile account": 1, "profile whereabouts": 0, "snapshots": 0, "rows of past runs": 0,
    }  # fmt: skip
    assert (done.completed_us, done.waiting) == (NOW_US, [])
    for address in (files, redis_url):
        assert state_of(address, "u1") == (b"", None)
        assert all(state_of(address, V1))
    assert names_in_log(workspace) == {V1}
    assert profiles_current(workspace, CATALOG, "account", as_of_us=NOW_US)["entity_id"].to_pylist() == [V1]
    assert rows_on_disk(workspace.root, "u1") == 0
    assert rows_on_disk(workspace.root, V1) > 0
    # The next fill brings nobody back.
    fill(workspace, redis_url)
    assert state_of(redis_url, "u1") == (b"", None)


def test_stores_of_earlier_view_versions_are_found_and_emptied(workspace: Workspace, redis_url: str) -> None:
    fill(workspace, redis_url)
    renewed = replace(CATALOG, views=(replace(VIEW, version=2),))
    (key,) = renewed.views[0].former_keys
    assert key == VIEW.key
    former = {}
    for address in (str(workspace.online(key)), redis_url):
        version = stored_version(address, key)
        assert version == VERSION
        former[address] = partial(open_store, address, version)
    assert stored_version(redis_url, "nobody@1") is stored_version(str(workspace.online("nobody@1")), "nobody@1") is None
    done = delete(Deletion(workspace, renewed, "user", former=former), "u1")
    assert done.waiting == []
    for address in former:
        assert state_of(address, "u1") == (b"", None)
        assert state_of(address, V1)[0]


def test_no_older_version_of_the_log_can_be_read(workspace: Workspace) -> None:
    delete(deletion(workspace), "u1")
    with pytest.raises(OSError, match="not found"):
        DeltaTable(workspace.events("user"), version=1).to_pyarrow_table()


def test_a_deletion_twice_is_one_deletion(workspace: Workspace) -> None:
    delete(deletion(workspace), "u1")
    again = delete(deletion(workspace), "u1", now_us=NOW_US + 1)
    assert {place: count for place, count in again.counts.items() if count} == {}
    assert find_markers(workspace, CATALOG, "user").last["erased_to"].to_list() == [
        int(read_raw(workspace).filter(pl.col("event_type") == ERASED)["log_offset"].item())
    ]


def read_raw(workspace: Workspace) -> pl.DataFrame:
    return pl.scan_delta(DeltaTable(workspace.events("user"))).collect()


def test_a_user_who_comes_back_counts_anew_and_can_be_deleted_again(workspace: Workspace) -> None:
    delete(deletion(workspace), "u1")
    append_events(workspace, CATALOG, "user", sessions("u1", [41], tag="new"), source="new")
    assert read_events(workspace, CATALOG, "user", columns=["event_id"])["event_id"].to_pylist()[-1] == "u1/41new"
    fill(workspace, str(workspace.online(VIEW.key)), as_of_us=NOW_US + 5 * DAY_US)
    assert state_of(str(workspace.online(VIEW.key)), "u1")[0]
    done = delete(deletion(workspace), "u1", now_us=NOW_US + 6 * DAY_US)
    assert (done.counts["markers"], done.counts["event log"]) == (1, 1)
    assert names_in_log(workspace) == {V1}


def test_the_record_names_nobody_and_answers_whoever_has_the_id(workspace: Workspace) -> None:
    done = delete(deletion(workspace), "u1")
    records = DeletionRecords(workspace.deletions)
    (document,) = workspace.deletions.glob("*.json")
    assert b"u1" not in document.read_bytes()
    assert (document.stat().st_mode & 0o777, (workspace.deletions / "key").stat().st_mode & 0o777) == (0o600, 0o600)
    assert (done.who, done.reason, done.hashes) == ("ann", "asked by mail", [records.hash_of("u1")])
    assert list(records.list_requests("u1")) == [done]
    assert list(records.list_requests(V1)) == []


OLD_FILE = [
    {"event_id": f"u1/{day}", "user_id": "u1", "event_type": "session", "event_time": THEN_US + day * DAY_US,
     "ingest_time": THEN_US + day * DAY_US, "region": "eu", "duration_ms": 5, "amount_cents": 0, "channel": "push",
     "platform": "ios", "plan": "pro", "offer_id": "o1", "utc_offset_minutes": 60}
    for day in (0, 1, 30)
]  # fmt: skip


def import_rows(workspace: Workspace, path: Path, rows: list[dict[str, Any]]) -> Report:
    times = [pl.col(name).cast(pl.Datetime("us", "UTC")) for name in ("event_time", "ingest_time")]
    pl.DataFrame(rows, infer_schema_length=None).with_columns(times).write_parquet(path)
    return import_files(prepare_import(workspace, "subscription", catalog=None, now_us=NOW_US, late=True), [path])


def test_importing_an_old_file_again_does_not_bring_a_user_back(workspace: Workspace, tmp_path: Path) -> None:
    delete(deletion(workspace), "u1")
    # The same events in a file that was never seen, and one that this log never had.
    report = import_rows(workspace, tmp_path / "old.parquet", OLD_FILE)
    assert (report.erased, report.events, report.bad) == (3, {}, {})
    assert names_in_log(workspace) == {V1}
    assert rows_on_disk(workspace.root, "u1") == 0
    back = {**OLD_FILE[0], "event_id": "u1/new", "event_time": NOW_US + 1, "ingest_time": NOW_US + 1}
    report = import_rows(workspace, tmp_path / "new.parquet", [*OLD_FILE, back])
    assert (report.erased, report.events) == (3, {"session": 1})
    assert names_in_log(workspace) == {"u1", V1}


def test_a_clock_that_ran_ahead_does_not_bring_a_user_back(workspace: Workspace, tmp_path: Path) -> None:
    # Dated after the time at which the deletion is asked for.
    append_events(workspace, CATALOG, "user", sessions("u1", [60]), source="ahead")
    delete(deletion(workspace), "u1")
    ahead = {**OLD_FILE[0], "event_id": "u1/60", "event_time": THEN_US + 60 * DAY_US, "ingest_time": THEN_US + 61 * DAY_US}
    assert import_rows(workspace, tmp_path / "old.parquet", [ahead]).erased == 1
    assert names_in_log(workspace) == {V1}


def test_somebody_unknown_can_be_deleted_before_the_old_file_comes(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    task = Deletion(workspace, CATALOG, "user")
    assert delete(task, "u1").counts["markers"] == 1
    assert import_rows(workspace, tmp_path / "old.parquet", OLD_FILE).erased == 3
    assert names_in_log(workspace) == set()


def test_prediction_rows_go_too(workspace: Workspace) -> None:
    folder = workspace.predictions("churn")
    base = {"answered_at": THEN_US, "now": THEN_US, "model": "churn", "model_version": 1, "view_key": VIEW.key,
            "revision": "stable", "score": 0.5, "cold": False, "degraded": ""}  # fmt: skip
    rows = []
    for number, name in enumerate(("u1", V1, "u1")):
        row = {field.name: base.get(field.name, 0 if pa.types.is_integer(field.type) else None) for field in PREDICTION}
        rows.append({**row, "request_id": str(number), "entity_id": name})
    writer = predictions.SegmentWriter(folder)
    writer.append(pa.Table.from_pylist(rows, schema=PREDICTION))
    writer.close()
    done = delete(deletion(workspace), "u1")
    assert done.counts["predictions of churn"] == 2


def test_rows_of_past_runs_go_too(workspace: Workspace) -> None:
    path = workspace.runs() / "run" / "steps" / "rows"
    path.parent.mkdir(parents=True)
    (path.parent / "run.json").write_text("{}")
    pq.write_table(pa.table({"entity_id": ["u1", V1, "u1"], "state": [b"a", b"b", b"c"]}), path)
    assert delete(deletion(workspace), "u1").counts["rows of past runs"] == 2
    assert pq.read_table(path).to_pylist() == [{"entity_id": V1, "state": b"b"}]
    assert sorted(each.name for each in path.parent.iterdir()) == ["rows", "run.json"]


def append_live(log: EventLog, name: str, day: int, *, at_day: int | None = None) -> None:
    sent = sessions(name, [day]).drop_columns(["ingest_time"])
    place = int(partition_of([name], CATALOG.log_partitions)[0])
    log.append(place, sent, now_us=THEN_US + (at_day or day) * DAY_US)


def follow(workspace: Workspace, log: EventLog, address: str) -> dict[str, int]:
    """Fold what there is; returns what was refused."""
    refused: dict[str, int] = {}
    with open_store(address, VERSION, create=True) as store:
        fold = ShardFold(log, store, CATALOG, VIEW, U1, BatchHistory(workspace.root, CATALOG, "user"))
        while done := fold.fold_next(10_000, NOW_US):
            refused |= done.refused
    return refused


def test_a_stream_beside_it_drops_the_user_and_the_log_files_go_once_it_has_passed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    address = str(workspace.online(VIEW.key))
    with open_live_log(workspace, CATALOG, "user", durability="process") as log:
        for name in ("u1", V1):
            append_live(log, name, 1)
        follow(workspace, log, address)
    reader = open_live_log(workspace, CATALOG, "user")  # a stream that goes on meanwhile
    assert reader.end_offset(U1) == 2
    asked = delete(deletion(workspace), "u1")
    assert state_of(address, "u1")[0] == b""
    assert asked.completed_us == 0
    assert "must read to offset 2 first" in asked.waiting[0]
    follow(workspace, reader, address)
    done = delete(deletion(workspace), "u1", now_us=NOW_US + 5)
    assert (done.id, done.waiting, done.counts["live log files"], done.counts["markers"]) == (asked.id, [], 1, 1)
    assert not any(b"u1/1" in path.read_bytes() for path in workspace.live_log("user").rglob("*.log"))
    assert reader.start_offset(U1) == 2
    reader.close()
    with open_live_log(workspace, CATALOG, "user", durability="process") as log:
        append_live(log, "u1", 2, at_day=50)  # a phone that was offline
        append_live(log, "u1", 51)
        append_live(log, V1, 51)
        assert follow(workspace, log, address) == {REASON: 1}
        compact(log, workspace, CATALOG, "user", now_us=NOW_US)
    batch = str(tmp_path / "batch")
    fill(workspace, batch, as_of_us=NOW_US + 99 * DAY_US)
    for name in ("u1", V1):
        assert state_of(address, name)[0] == state_of(batch, name)[0] != b""


def test_a_user_is_deleted_in_a_topic_which_keeps_its_events_and_tells_nobody(kafka_server: str, tmp_path: Path) -> None:
    workspace, topic = Workspace(tmp_path / "workspace"), uuid.uuid4().hex
    address = str(workspace.online(VIEW.key))
    open_topic = partial(KafkaLog.create, kafka_server, topic, CATALOG.log_partitions, stamped_by="writer")
    stores = {"lmdb": partial(open_store, address, VERSION, create=True)}
    with open_topic() as log:
        for name in ("u1", V1):
            append_live(log, name, 1)
        follow(workspace, log, address)
    waiting = delete(Deletion(workspace, CATALOG, "user", open_topic, stores), "u1")
    assert [reason.partition(":")[2] for reason in waiting.waiting] == [" lmdb must read to offset 2 first"]
    with open_topic() as log:
        follow(workspace, log, address)
    done = delete(Deletion(workspace, CATALOG, "user", open_topic, stores), "u1")
    assert (done.waiting, done.counts["markers"], done.counts["event log"]) == ([], 1, 1)
    assert names_in_log(workspace) == {V1}
    with open_topic() as log:
        append_live(log, "u1", 2, at_day=50)
        assert follow(workspace, log, address) == {REASON: 1}
        # A store that begins with the topic meets the events and, behind them, the marker.
        follow(workspace, log, str(tmp_path / "anew"))
    for store in (address, str(tmp_path / "anew")):
        assert state_of(store, "u1") == (b"", None)
        assert state_of(store, V1)[0]


def test_beside_a_producer_that_holds_the_log_what_serves_is_emptied_and_the_rest_waits(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    address = str(workspace.online(VIEW.key))
    with open_live_log(workspace, CATALOG, "user", durability="process") as log:
        append_live(log, "u1", 1)
        follow(workspace, log, address)
        assert state_of(address, "u1")[0]
        waiting = delete(deletion(workspace), "u1")
        assert [reason.partition(":")[0] for reason in waiting.waiting] == ["event log"]
        assert "log partition is being written" in waiting.waiting[0]
        assert state_of(address, "u1") == (b"", None)
        assert waiting.completed_us == 0
        append_live(log, "u1", 2)
        follow(workspace, log, address)
    done = delete(deletion(workspace), "u1")
    assert done.counts["markers"] == 1
    assert state_of(address, "u1") == (b"", None), "what came in between is gone too"


def test_rows_that_are_refused_do_not_spoil_the_marker_behind_them(tmp_path: Path) -> None:
    """A marker takes the region and the latest time of its entity's events: one of a region that nobody declared is none."""
    workspace = Workspace(tmp_path / "workspace")
    with open_live_log(workspace, CATALOG, "user", durability="process") as log:
        append_live(log, "u1", 1)
        bad = sessions("u1", [2]).drop_columns(["ingest_time", "region"]).append_column("region", pa.array(["mars"]))
        log.append(U1, bad, now_us=NOW_US)
        assert mark_live_log(log, workspace, CATALOG, "user", ["u1"], "request", now_us=NOW_US) == 1
        compact(log, workspace, CATALOG, "user", now_us=NOW_US)
    assert find_markers(workspace, CATALOG, "user").entity_ids == ["u1"]
    assert names_in_log(workspace) == set()


def test_a_log_whose_offsets_come_from_elsewhere_gets_no_marker_of_its_own(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    with open_live_log(workspace, CATALOG, "user", durability="process") as log:
        append_live(log, "u1", 1)
        compact(log, workspace, CATALOG, "user", now_us=NOW_US)
    # As with Kafka, whose topic leaves no folder in the workspace.
    workspace.live_log("user").rename(tmp_path / "elsewhere")
    with pytest.raises(EventLogError, match="--from kafka"):
        delete(Deletion(workspace, CATALOG, "user"), "u1")


@pytest.mark.parametrize("calls", [40, 150, 300, 420, 520, 590])
def test_killed_anywhere_it_is_completed_by_asking_again(workspace: Workspace, calls: int) -> None:
    child = PROCESSES.Process(target=delete_and_die, args=(workspace.root, calls))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    done = delete(deletion(workspace), "u1", now_us=NOW_US + 1)
    assert done.completed_us
    assert names_in_log(workspace) == {V1}
    assert rows_on_disk(workspace.root, "u1") == 0
    assert state_of(str(workspace.online(VIEW.key)), "u1") == (b"", None)
    assert all(request.completed_us for request in DeletionRecords(workspace.deletions).list_requests())
    assert read_raw(workspace).filter(pl.col("event_type") == ERASED).height == 1
