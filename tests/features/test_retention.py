"""Old events are dropped, and every state is the one that the whole log gives; what would need them is refused in one line."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parity.adversarial import DAY_US, SPAN_US, START_US, draw_events, to_table

from features import retention
from features.catalogs import load_catalog
from features.checks import check_catalog
from features.codec import body_of
from features.deletion import Deletion, delete_entities
from features.errors import DeclarationError, EventLogError
from features.event_log.compaction import BatchHistory, compact, open_live_log
from features.event_log.files import FileLog
from features.event_log.port import STAMPED
from features.events import append_events, log_heads, read_events
from features.layout import DAY_S
from features.online.addresses import ViewVersion, open_store
from features.point_in_time import states_as_known
from features.predictions import SegmentWriter, list_segments
from features.retention import expire_events
from features.rows import PREDICTION, TIME, event_schema
from features.snapshots import read_base
from features.stream_fold import ShardFold
from features.workspace import Workspace
from transforms.materialize import FillJob, fill_shard

CATALOG = replace(load_catalog("subscription"), retention_s=(("eu", 20 * DAY_S), ("us", 30 * DAY_S)), log_partitions=1)
VIEW = CATALOG.view("subscriber")
VERSION = ViewVersion.of(CATALOG, VIEW)
SCHEMA = event_schema(CATALOG.attributes_of("user"))
END_US = START_US + 3 * SPAN_US


def awkward() -> pa.Table:
    """Events as they arrived, of both regions, late ones and copies around the horizon among them."""
    table = to_table(draw_events(14, 11, partitions=1), SCHEMA)
    regions = pa.array(["us" if row % 3 else "eu" for row in range(table.num_rows)], pa.string())
    return table.set_column(table.column_names.index("region"), "region", regions).drop_columns(
        ["log_partition", "log_offset", "ingest_day"]
    )


EVENTS = awkward()
NAMES = sorted(EVENTS["entity_id"].unique().to_pylist())
INGEST_US = EVENTS["ingest_time"].cast(pa.int64()).to_numpy()


def fill(workspace: Workspace, address: Path, *, as_of_us: int = END_US) -> dict[str, bytes]:
    open_store(str(address), VERSION, create=True).close()
    fill_shard(FillJob(workspace.root, CATALOG, VIEW, as_of_us, str(address)), 0)
    return bodies(address)


def bodies(address: Path) -> dict[str, bytes]:
    with open_store(str(address), VERSION) as store:
        return dict(zip(NAMES, map(body_of, store.get_many(NAMES).states), strict=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """States by a replay of the log from which nothing was dropped."""
    folder = tmp_path_factory.mktemp("whole")
    append_events(workspace := Workspace(folder / "w"), CATALOG, "user", EVENTS, source="all")
    return fill(workspace, folder / "store")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, EVENTS.num_rows), min_size=1, max_size=4), slack_days=st.integers(0, 40))
def test_snapshot_and_tail_give_the_bytes_of_the_whole_log_wherever_it_is_cut(
    whole: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, cuts: list[int], slack_days: int
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    workspace = Workspace(folder / "w")
    dropped, start = 0, 0
    for number, end in enumerate([*sorted(cuts), EVENTS.num_rows]):
        append_events(workspace, CATALOG, "user", EVENTS.slice(start, end - start), source=f"part {number}")
        if end:
            now_us = int(INGEST_US[end - 1]) + slack_days * DAY_US
            dropped += expire_events(workspace, CATALOG, "user", now_us=now_us).events
        start = end
    assert fill(workspace, folder / "store") == whole
    assert read_events(workspace, CATALOG, "user").num_rows == EVENTS.num_rows - dropped
    assert dropped > 0


def test_only_what_is_older_than_its_regions_retention_goes_and_no_version_has_it(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    append_events(workspace, CATALOG, "user", EVENTS, source="all")
    now_us = START_US + 60 * DAY_US
    days = INGEST_US // DAY_US
    regions = np.array(EVENTS["region"].to_pylist())
    # Whole days before those that hold something younger than 20 days in the EU, 30 in the US.
    doomed = ((regions == "eu") & (days < now_us // DAY_US - 20)) | ((regions == "us") & (days < now_us // DAY_US - 30))
    done = expire_events(workspace, CATALOG, "user", now_us=now_us)
    assert 0 < done.events == doomed.sum()
    assert sorted(read_events(workspace, CATALOG, "user")["event_id"].to_pylist()) == sorted(
        EVENTS.filter(pa.array(~doomed))["event_id"].to_pylist()
    )
    with pytest.raises(OSError, match="not found"):
        DeltaTable(workspace.events("user"), version=1).to_pyarrow_table()
    assert expire_events(workspace, CATALOG, "user", now_us=now_us).events == 0


def test_offsets_go_on_where_they_were_even_if_nothing_is_left(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    append_events(workspace, CATALOG, "user", EVENTS, source="all")
    before = log_heads(workspace, CATALOG, "user")
    assert expire_events(workspace, CATALOG, "user", now_us=END_US).events == EVENTS.num_rows
    after = log_heads(workspace, CATALOG, "user")
    assert (after[0].tolist(), after[1].tolist()) == (before[0].tolist(), before[1].tolist())


def test_offsets_never_go_back_when_a_region_that_keeps_longer_drops_earlier_events(tmp_path: Path) -> None:
    """The US event, offset 0, goes ten days after the EU's, offset 1: by then offset 1 was given out and is in a snapshot."""
    workspace = Workspace(tmp_path)
    times = pa.array([START_US, START_US + DAY_US], TIME)
    events = pa.table({
        "event_id": ["first", "second"], "entity_id": ["u1"] * 2, "event_type": ["session"] * 2, "event_time": times,
        "ingest_time": times, "region": ["us", "eu"], "duration_ms": [5, 5],
    })  # fmt: skip
    append_events(workspace, CATALOG, "user", events, source="all")
    dropped = [expire_events(workspace, CATALOG, "user", now_us=START_US + days * DAY_US).events for days in (25, 40)]
    heads = [each.tolist() for each in log_heads(workspace, CATALOG, "user")]
    assert (dropped, heads) == ([1, 1], [[2], [START_US + DAY_US]])


def die(*_arguments: object) -> None:
    raise KeyboardInterrupt


def test_a_crash_before_the_live_files_go_leaves_them_to_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, half = Workspace(tmp_path / "w"), EVENTS.num_rows // 2
    with open_live_log(workspace, CATALOG, "user", durability="process") as log:
        append_live(log, EVENTS.slice(0, half))
        compact(log, workspace, CATALOG, "user", now_us=END_US)
        log.begin_segment(0)
        append_live(log, EVENTS.slice(half, 1))
    with monkeypatch.context() as patched:
        patched.setattr(retention.delta, "remove_old_files", die)
        with pytest.raises(KeyboardInterrupt):
            expire_events(workspace, CATALOG, "user", now_us=END_US)
    done = expire_events(workspace, CATALOG, "user", now_us=END_US)
    assert (done.events, done.live_files) == (0, 1)


def test_a_crash_between_the_snapshot_and_the_drop_changes_no_state(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path / "w")
    append_events(workspace, CATALOG, "user", EVENTS, source="all")
    with monkeypatch.context() as patched:
        patched.setattr(retention.delta, "delete_rows", die)
        with pytest.raises(KeyboardInterrupt):
            expire_events(workspace, CATALOG, "user", now_us=START_US + 80 * DAY_US)
    assert read_events(workspace, CATALOG, "user").num_rows == EVENTS.num_rows
    assert fill(workspace, tmp_path / "one") == whole
    assert expire_events(workspace, CATALOG, "user", now_us=START_US + 80 * DAY_US).events > 0
    assert fill(workspace, tmp_path / "two") == whole


def test_a_store_as_of_a_time_before_the_snapshot_is_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    append_events(workspace, CATALOG, "user", EVENTS, source="all")
    expire_events(workspace, CATALOG, "user", now_us=START_US + 80 * DAY_US)
    with pytest.raises(EventLogError, match="events of that time are gone"):
        fill(workspace, tmp_path / "store", as_of_us=START_US + 10 * DAY_US)


def test_a_view_that_comes_after_its_events_have_gone_is_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    append_events(workspace, CATALOG, "user", EVENTS, source="all")
    expire_events(workspace, CATALOG, "user", now_us=START_US + 80 * DAY_US)
    later = replace(VIEW, version=2)
    catalog = replace(CATALOG, views=(later,))
    open_store(str(tmp_path / "s"), ViewVersion.of(catalog, later), create=True).close()
    with pytest.raises(EventLogError, match="before the log's retention are gone"):
        fill_shard(FillJob(workspace.root, catalog, later, END_US, str(tmp_path / "s")), 0)


@pytest.mark.parametrize("declared", [VIEW.version, VIEW.version + 1])
def test_a_deletion_reaches_snapshots_also_of_an_earlier_view_version(
    whole: dict[str, bytes], tmp_path: Path, declared: int
) -> None:
    workspace = Workspace(tmp_path / "w")
    append_events(workspace, CATALOG, "user", EVENTS, source="all")
    expire_events(workspace, CATALOG, "user", now_us=START_US + 80 * DAY_US)
    name = NAMES[0]
    catalog = replace(CATALOG, views=(replace(VIEW, version=declared),))
    done = delete_entities(Deletion(workspace, catalog, "user"), [name], who="ann", reason="asked", now_us=END_US)
    assert done.counts["snapshots"] == 1
    assert not any(name.encode() in path.read_bytes() for path in workspace.snapshots(VIEW.key).iterdir())
    assert fill(workspace, tmp_path / "store") == {**whole, name: b""}


def append_live(log: FileLog, events: pa.Table) -> None:
    ingest_us = events["ingest_time"].cast(pa.int64()).to_pylist()
    for row, at_us in enumerate(ingest_us):
        log.append(
            0, events.slice(row, 1).drop_columns([name for name in STAMPED if name in events.column_names]), now_us=at_us
        )


def test_a_stream_restarts_and_a_new_store_fills_from_snapshot_and_tail(whole: dict[str, bytes], tmp_path: Path) -> None:
    workspace, half = Workspace(tmp_path / "w"), EVENTS.num_rows // 2
    history = BatchHistory(workspace.root, CATALOG, "user")
    with (
        open_live_log(workspace, CATALOG, "user", durability="process") as log,
        open_store(str(tmp_path / "old"), VERSION, create=True) as store,
    ):
        append_live(log, EVENTS.slice(0, half))
        ShardFold(log, store, CATALOG, VIEW, 0, history).fold_next(10**9, END_US)
        compact(log, workspace, CATALOG, "user", now_us=END_US)
        log.begin_segment(0)
        append_live(log, EVENTS.slice(half, 1))
    assert expire_events(workspace, CATALOG, "user", now_us=END_US).live_files == 1
    fill(workspace, tmp_path / "new", as_of_us=int(INGEST_US[half]) + VIEW.lag_s * 1_000_000)
    with open_live_log(workspace, CATALOG, "user", durability="process") as log:
        assert log.start_offset(0) == half
        append_live(log, EVENTS.slice(half + 1))
        for address in (tmp_path / "old", tmp_path / "new"):
            with open_store(str(address), VERSION) as store:
                fold = ShardFold(log, store, CATALOG, VIEW, 0, history)
                while fold.fold_next(100, END_US):
                    pass
            assert bodies(address) == whole


def test_a_retention_shorter_than_repeats_are_known_is_no_retention() -> None:
    with pytest.raises(DeclarationError, match="twice the time"):
        check_catalog(replace(CATALOG, retention_s=(("eu", 7 * DAY_S),)))
    with pytest.raises(DeclarationError, match="a declared region"):
        check_catalog(replace(CATALOG, retention_s=(("mars", 90 * DAY_S),)))


def test_predictions_go_with_the_shortest_retention_of_their_catalog(tmp_path: Path) -> None:
    """END_US less 20 days ("eu") begins the first day that is kept: "us" keeps 30, but no row says where a user is."""
    workspace = Workspace(tmp_path)
    append_events(workspace, CATALOG, "user", EVENTS.slice(0, 1), source="all")
    first_day_us = (END_US - 20 * DAY_US) // DAY_US * DAY_US
    for model, view, at_us in (
        ("old", VIEW.key, first_day_us - 1), ("young", VIEW.key, first_day_us), ("other", "household@1", first_day_us - 1),
    ):  # fmt: skip
        with closing(SegmentWriter(workspace.predictions(model))) as writer:
            writer.append(prediction(view, at_us))
    assert expire_events(workspace, CATALOG, "user", now_us=END_US).prediction_files == {"old": 1}
    assert [len(list_segments(workspace.predictions(model))) for model in ("old", "young", "other")] == [0, 1, 1]


def prediction(view_key: str, at_us: int) -> pa.Table:
    filled: dict[str, object] = {field.name: 0 for field in PREDICTION if not field.nullable}
    named = dict.fromkeys(("request_id", "model", "revision", "entity_id"), "x")
    moment = datetime.fromtimestamp(at_us // 10**6, UTC) + timedelta(microseconds=at_us % 10**6)
    row = filled | named | {"view_key": view_key, "answered_at": moment, "now": moment, "score": 0.5, "cold": False}
    return pa.Table.from_pylist([row], schema=PREDICTION)


def test_a_catalog_without_retention_keeps_everything(tmp_path: Path) -> None:
    catalog = replace(CATALOG, retention_s=())
    append_events(workspace := Workspace(tmp_path), catalog, "user", EVENTS, source="all")
    assert expire_events(workspace, catalog, "user", now_us=END_US).events == 0


def test_rows_after_the_drop_are_those_of_the_whole_log_and_earlier_ones_are_refused(tmp_path: Path) -> None:
    whole, cut = Workspace(tmp_path / "whole"), Workspace(tmp_path / "cut")
    for workspace in (whole, cut):
        append_events(workspace, CATALOG, "user", EVENTS, source="all")
    expire_events(cut, CATALOG, "user", now_us=START_US + 80 * DAY_US)
    base = read_base(cut, CATALOG, VIEW)
    assert base is not None
    times_us = base.known_from_us + VIEW.lag_s * 1_000_000 + np.arange(6) * 9 * DAY_US
    names = pa.array([name for name in (*NAMES, "nobody") for _ in times_us], pa.string())
    now_us = np.tile(times_us, len(NAMES) + 1)
    expected = states_as_known(read_events(whole, CATALOG, "user"), CATALOG, VIEW, names, now_us)
    left = read_events(cut, CATALOG, "user")
    # Headers too: a snapshot keeps the offset of each entity's last event.
    assert states_as_known(left, CATALOG, VIEW, names, now_us, base).to_pylist() == expected.to_pylist()
    with pytest.raises(EventLogError, match="events of that time are gone"):
        states_as_known(left, CATALOG, VIEW, names, now_us - DAY_US, base)
    with pytest.raises(EventLogError, match="only what the log has kept"):
        states_as_known(left, CATALOG, VIEW, names, now_us)
