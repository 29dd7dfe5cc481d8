"""The skew audit: silent where nothing differs, and right about where something does."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from zlib import crc32

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from audit.site import (
    CATALOG,
    ENTITY,
    MEASURED_US,
    MODEL,
    PARTS,
    audit,
    make_site,
    run,
)
from parity.adversarial import SPAN_US, START_US
from parity.mutation import mutate

from components.served_rows import CHECKED, ERASED, EXPIRED
from features import stream_fold
from features.deletion import Deletion, delete_entities
from features.event_log.compaction import compact, open_live_log
from features.layout import DAY_S
from features.predictions import SegmentWriter, read_predictions
from features.retention import expire_events
from models.versions import load
from monitoring.errors import SkewError
from monitoring.skew import KINDS, STATE, UNNAMED


def test_an_honest_run_with_late_repeated_and_refused_events_and_restarts_shows_none(artifacts: Path, tmp_path: Path) -> None:
    site, version = make_site(tmp_path, artifacts)
    run(site, version)
    found = audit(site)
    assert found.rows == found.whole == found.statuses[CHECKED] == PARTS * site.rows_a_part
    assert found.mismatched == dict.fromkeys(KINDS, 0)
    assert found.checked == dict.fromkeys(KINDS, found.rows)
    assert found.first is None


def test_a_deleted_users_rows_are_gone_and_those_that_came_meanwhile_are_counted(artifacts: Path, tmp_path: Path) -> None:
    site, version = make_site(tmp_path, artifacts)
    run(site, version)
    kept = pa.concat_tables(read_predictions(site.workspace.predictions(MODEL)))
    opener = partial(open_live_log, site.workspace, CATALOG, ENTITY)
    task = Deletion(site.workspace, CATALOG, ENTITY, opener, {})
    delete_entities(task, ["user-1"], who="tester", reason="asked", now_us=MEASURED_US)
    assert audit(site).rows == kept.num_rows - pc.sum(pc.equal(kept["entity_id"], "user-1")).as_py()
    # A row that a writer still held while its entity was erased.
    late = kept.filter(pc.equal(kept["entity_id"], "user-1")).slice(0, 1)
    with closing(SegmentWriter(site.workspace.predictions(MODEL))) as writer:
        writer.append(late)
    found = audit(site)
    assert found.statuses[ERASED] == 1
    assert found.mismatches == 0


def test_rows_of_before_the_logs_retention_are_counted_and_later_ones_are_checked_from_its_snapshot(
    artifacts: Path, tmp_path: Path
) -> None:
    site, version = make_site(tmp_path, artifacts)
    run(site, version)
    total = audit(site).rows
    with open_live_log(site.workspace, CATALOG, ENTITY) as log:
        compact(log, site.workspace, CATALOG, ENTITY, now_us=MEASURED_US)
    keeping = replace(CATALOG, retention_s=tuple((region, 30 * DAY_S) for region in CATALOG.regions))
    # Their rows go with the events, a file at a time; a file with younger rows stays, and its old ones with it.
    rows_folder = site.workspace.predictions(MODEL)
    shutil.copytree(rows_folder, tmp_path / "rows")
    expired = expire_events(site.workspace, keeping, ENTITY, now_us=(START_US + SPAN_US))
    assert expired.events > 0
    shutil.copytree(tmp_path / "rows", rows_folder, dirs_exist_ok=True)
    found = audit(site)
    assert found.mismatches == 0
    assert found.statuses[EXPIRED] >= total // 4
    assert found.statuses[CHECKED] >= total // 4
    assert found.statuses[EXPIRED] + found.statuses[CHECKED] == total


def test_silence_is_no_pass(artifacts: Path, tmp_path: Path) -> None:
    site, _ = make_site(tmp_path, artifacts)
    with pytest.raises(SkewError, match="no predictions to audit"):
        audit(site)


def test_rows_of_a_view_that_is_declared_otherwise_by_now_are_neither_a_mismatch_nor_a_pass(
    artifacts: Path, tmp_path: Path
) -> None:
    site, version = make_site(tmp_path, artifacts)
    run(site, version)
    path = load(site.workspace, MODEL, version, require_blessed=False).path / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"view_hash": "another"}))
    rows = PARTS * site.rows_a_part
    with pytest.raises(SkewError, match=f"no served row can be made again: churn.*{rows} undeclared"):
        audit(site)


def test_hashes_alone_find_what_no_whole_row_shows(artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, version = make_site(tmp_path, artifacts, whole_rate=0.0)
    with monkeypatch.context() as planted:
        mutate(planted, stream_fold, "drop_repeats", "return repeats.drop(events)", "return events")
        run(site, version)
    found = audit(site)
    assert found.whole == 0
    assert found.mismatched[STATE] > 0
    assert found.first is not None
    assert (found.first.kind, found.first.signal) == (STATE, UNNAMED)


def test_a_share_of_users_is_audited_with_all_their_rows(artifacts: Path, tmp_path: Path) -> None:
    site, version = make_site(tmp_path, artifacts)
    run(site, version)
    rows = pa.concat_tables(read_predictions(site.workspace.predictions(MODEL), columns=["entity_id"]))
    counts = {entry["values"]: entry["counts"] for entry in rows["entity_id"].value_counts().to_pylist()}
    some = audit(site, rate=0.5)
    assert 0 < some.rows < rows.num_rows
    assert some.mismatches == 0
    names = [name for name in counts if crc32(b"audit" + name.encode()) < 2**31]
    assert some.rows == sum(counts[name] for name in names)
