"""The live log's tail reaches the batch log once, whenever a run ends, and a batch reader sees what the stream saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from features.catalogs import load_catalog
from features.errors import EventLogError
from features.event_log import compaction
from features.event_log.compaction import BatchHistory, compact, compacted_to, open_live_log
from features.event_log.port import append_by_entity
from features.events import append_events, read_events
from features.rows import TIME
from features.workspace import Workspace

CATALOG = load_catalog("subscription")
NOW_US = 1_767_571_200_000_000


def sent(names: list[str], **changes: Any) -> pa.Table:
    """One session of each of these users, two hours before ``NOW_US``."""
    count = len(names)
    columns = {
        "event_id": [f"{name}/1" for name in names],
        "entity_id": names,
        "event_type": ["session"] * count,
        "event_time": pa.array([NOW_US - 7_200_000_000] * count, TIME),
        "region": ["eu"] * count,
        "duration_ms": [5] * count,
    }
    return pa.table(columns | changes)


def stored(workspace: Workspace) -> list[tuple[str, int, int]]:
    events = read_events(workspace, CATALOG, "user", columns=["entity_id", "log_partition", "log_offset"])
    return [(row["entity_id"], row["log_partition"], row["log_offset"]) for row in events.to_pylist()]


def test_the_tail_moves_once_with_its_partitions_and_offsets(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    names = [f"u{number}" for number in range(20)]
    with open_live_log(workspace, CATALOG, "user", durability="process") as log:
        append_by_entity(log, sent(names), now_us=NOW_US)
        assert compact(log, workspace, CATALOG, "user", now_us=NOW_US).events == 20
        assert compact(log, workspace, CATALOG, "user", now_us=NOW_US).events == 0
        append_by_entity(log, sent(["u0"]), now_us=NOW_US + 1)
        assert compact(log, workspace, CATALOG, "user", now_us=NOW_US).events == 1
        live = [
            (row["entity_id"], partition, row["log_offset"])
            for partition in range(log.partitions)
            for batch in log.read(partition, 0, 99)
            for row in batch.to_pylist()
        ]
        assert stored(workspace) == live
        ends = [log.end_offset(partition) for partition in range(log.partitions)]
        assert [compacted_to(log, workspace, CATALOG, "user", partition) for partition in range(log.partitions)] == ends


def test_a_refused_row_is_a_dead_letter_once_and_its_offset_stays_empty(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with open_live_log(workspace, CATALOG, "user", durability="process") as log:
        append_by_entity(log, sent(["u1", "u1", "u1"], event_type=["session", "sesion", "session"]), now_us=NOW_US)
        for _ in range(2):
            compact(log, workspace, CATALOG, "user", now_us=NOW_US)
    assert [offset for _, _, offset in stored(workspace)] == [0, 2]
    (letter,) = pl.scan_delta(DeltaTable(workspace.dead_letters)).collect().to_dicts()
    assert (letter["row"], letter["entity"]) == (1, "user")
    assert letter["reason"] == "quarantined: event type sesion is not declared"
    assert letter["source"].startswith("stream:user/")


def test_a_run_that_ended_between_the_two_tables_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(tmp_path)

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    with open_live_log(workspace, CATALOG, "user", durability="process") as log:
        append_by_entity(log, sent(["u1", "u1"], region=["eu", "mars"]), now_us=NOW_US)
        with monkeypatch.context() as patched:
            patched.setattr(compaction, "commit_events", die)
            with pytest.raises(KeyboardInterrupt):
                compact(log, workspace, CATALOG, "user", now_us=NOW_US)
        done = compact(log, workspace, CATALOG, "user", now_us=NOW_US)
    assert (done.events, done.refused) == (1, 0)
    assert len(stored(workspace)) == pl.scan_delta(DeltaTable(workspace.dead_letters)).collect().height == 1


def test_a_live_log_goes_on_where_the_batch_log_ends_and_closes_it_to_imports(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    imported = sent(["u1", "u1"], event_id=["a", "b"]).append_column("ingest_time", pa.array([NOW_US] * 2, TIME))
    append_events(workspace, CATALOG, "user", imported, source="file")
    with open_live_log(workspace, CATALOG, "user", durability="process") as log:
        append_by_entity(log, sent(["u1"], event_id=["c"]), now_us=NOW_US - 5_000_000)
        compact(log, workspace, CATALOG, "user", now_us=NOW_US)
    events = read_events(workspace, CATALOG, "user")
    assert events["log_offset"].to_pylist() == [0, 1, 2]
    assert events["event_id"].to_pylist() == ["a", "b", "c"]
    assert events["ingest_time"].cast(pa.int64()).to_pylist() == [NOW_US] * 3
    partition = events["log_partition"][0].as_py()
    history = BatchHistory(tmp_path, CATALOG, "user")
    assert history(partition, NOW_US, 2)["event_id"].to_pylist() == ["a", "b"]
    assert history(partition, NOW_US + 1, 2).num_rows == 0
    with pytest.raises(EventLogError, match="arrive by its live log.*plumb stream append"):
        append_events(workspace, CATALOG, "user", imported, source="later")
