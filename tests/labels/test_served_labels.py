"""What became of served predictions: nothing before its time, each once, as training would have labelled it."""

from __future__ import annotations

import random
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from labels.dying import PROCESSES, label_and_count, label_and_die
from labels.predicted import DAY_US, START_US, Asked, events, log_predictions

from components.label_maturity import summarize_labels
from components.served_labels import Labelled, label_served
from features import predictions, served_labels
from features.catalogs import load_catalog
from features.deletion import Deletion, delete_entities
from features.errors import EventLogError, TemporaryError
from features.event_log.compaction import compact, open_live_log
from features.events import append_events, deduplicate, read_events
from features.retention import expire_events
from features.workspace import Workspace
from models.labels import label_rows
from models.specs import load_spec

CATALOG = load_catalog("subscription")
RIPE = 104
"""Days from a score of churn to its label: 90 of the horizon, 14 until a cancellation is surely known."""
KILLS = 9
END = ("late", "session", 400.0, 400.0)
"""An event so late that the log ends after everything else."""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def bring(workspace: Workspace, *rows: tuple[str, str, float, float], source: str = "file") -> None:
    table = events(*rows).append_column("plan", pa.array(["pro"] * len(rows)))
    append_events(workspace, CATALOG, "user", table, source=source)


def label(workspace: Workspace, day: float, **changes: Any) -> Labelled:
    return label_served(workspace, "churn", now_us=START_US + round(day * DAY_US), **changes)


def found(workspace: Workspace, model: str = "churn") -> list[tuple[str, float, int]]:
    """(entity, day of the score, label) of every row in the table."""
    rows = served_labels.read_labels(workspace.served_labels(model)).to_pylist()
    days = [(row["now"].timestamp() * 1_000_000 - START_US) / DAY_US for row in rows]
    return sorted((row["entity_id"], round(day, 6), row["label"]) for row, day in zip(rows, days, strict=True))


def test_no_label_is_written_before_its_horizon_and_delay_have_passed_even_where_the_outcome_is_known(
    workspace: Workspace,
) -> None:
    bring(workspace, ("a", "cancellation", 5, 6), END)
    log_predictions(workspace, "churn", [Asked("a", 1), Asked("b", 1)])
    # Day 1 + 90 + 14 = day 105; a microsecond before, "a" has cancelled 99 days ago and "b" has been silent all along.
    early = label_served(workspace, "churn", now_us=START_US + 105 * DAY_US - 1)
    assert (early.statuses["labelled"], early.open, found(workspace)) == (0, 2, [])
    on_time = label(workspace, 105)
    assert (on_time.statuses["labelled"], on_time.positives, on_time.open) == (2, 1, 0)
    assert found(workspace) == [("a", 1, 1), ("b", 1, 0)]
    (row,) = [row for row in served_labels.read_labels(workspace.served_labels("churn")).to_pylist() if row["label"]]
    times = {name: round((row[name].timestamp() * 1_000_000 - START_US) / DAY_US) for name in ("matured_at", "known_at")}
    assert times == {"matured_at": 105, "known_at": 105}


def test_silence_after_the_logs_end_is_no_evidence(workspace: Workspace) -> None:
    bring(workspace, ("a", "session", 50, 50))
    log_predictions(workspace, "churn", [Asked("a", 1)])
    assert label(workspace, 500).statuses["labelled"] == 0
    bring(workspace, ("a", "cancellation", 60, 61), END, source="more")
    assert label(workspace, 500).positives == 1


def test_an_event_that_becomes_known_later_than_the_run_does_not_count(workspace: Workspace) -> None:
    # Both cancelled on day 80; of "a" it is known on day 93, within the 14 days of delay, of "b" on day 110, after the run.
    bring(workspace, ("a", "cancellation", 80, 93), ("b", "cancellation", 80, 110), END)
    log_predictions(workspace, "churn", [Asked("a", 1), Asked("b", 1)])
    label(workspace, 106)
    assert found(workspace) == [("a", 1, 1), ("b", 1, 0)]
    # Written once: a straggler of beyond the delay changes no row, and brings no second one.
    assert label(workspace, 200).statuses["labelled"] == 0
    assert found(workspace) == [("a", 1, 1), ("b", 1, 0)]


def test_each_prediction_is_labelled_once_by_its_own_time_whatever_the_cuts(workspace: Workspace) -> None:
    """As training's kernel labels the same rows, as known at the run that wrote them; two requests may be alike."""
    chance = random.Random(3)
    names = [f"u{number}" for number in range(12)]
    happened = sorted((chance.uniform(0, 300), name) for name in names for _ in range(2))
    rows = [(name, "cancellation", day, day + chance.uniform(0, 20)) for day, name in happened]
    bring(workspace, *sorted(rows, key=lambda row: row[3]), END)
    asked: list[Asked] = []
    for day in range(0, 200, 40):
        fresh = [
            Asked(chance.choice(names), day + chance.choice((0.0, -30.0, 7.5)), request=f"r{number % 5}") for number in range(9)
        ]
        log_predictions(workspace, "churn", fresh[:4], fresh[4:], fresh[:2])
        asked += fresh + fresh[:2]
        label(workspace, day + RIPE)
        label(workspace, day + 60)  # an earlier instant adds nothing and loses nothing
    label(workspace, 399)
    kept = served_labels.read_labels(workspace.served_labels("churn"))
    assert sorted(zip(kept["request_id"].to_pylist(), kept["entity_id"].to_pylist(), strict=True)) == sorted(
        (row.request, row.entity) for row in asked
    )
    log, spec = deduplicate(read_events(workspace, CATALOG, "user")), load_spec("churn").label
    now_us, known_us = (kept[name].cast(pa.int64()).to_numpy() for name in ("now", "known_at"))
    assert len(np.unique(known_us)) >= 5
    for at_us in np.unique(known_us).tolist():
        of_run = known_us == at_us
        ids = kept["entity_id"].filter(pa.array(of_run)).combine_chunks()
        expected = label_rows(log, spec, ids, now_us[of_run], known_at_us=at_us)["label"].to_pylist()
        assert kept["label"].filter(pa.array(of_run)).to_pylist() == expected
    assert (known_us >= now_us + RIPE * DAY_US).all()
    assert 0 < sum(kept["label"].to_pylist()) < kept.num_rows


def test_a_replayed_request_that_is_old_when_it_is_asked_is_labelled_by_the_next_run(workspace: Workspace) -> None:
    bring(workspace, ("a", "cancellation", 5, 6), END)
    log_predictions(workspace, "churn", [Asked("a", 1)])
    label(workspace, 120)
    log_predictions(workspace, "churn", [Asked("a", 2, answered_day=121), Asked("a", 100, answered_day=121)])
    done = label(workspace, 122)
    assert (done.statuses["labelled"], done.open) == (1, 1)
    assert found(workspace) == [("a", 1, 1), ("a", 2, 1)]


def test_a_file_that_ends_before_since_is_left_for_later(workspace: Workspace) -> None:
    bring(workspace, END)
    log_predictions(workspace, "churn", [Asked("a", 1)])
    log_predictions(workspace, "churn", [Asked("b", 20)])
    label(workspace, 300, since_us=START_US + 10 * DAY_US)
    assert found(workspace) == [("b", 20, 0)]
    label(workspace, 301)
    assert found(workspace) == [("a", 1, 0), ("b", 20, 0)]


def test_a_run_that_is_killed_anywhere_is_completed_by_the_next(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    bring(workspace, ("a", "cancellation", 5, 6), END)
    for number in range(3):
        log_predictions(workspace, "churn", [Asked(name, 1 + number, request=f"{number}") for name in "ab"], [Asked("c", 150)])
    expected = sorted((name, 1 + number, int(name == "a")) for number in range(3) for name in "ab")
    shutil.copytree(workspace.root, tmp_path / "whole")
    calls, partly = label_and_count(tmp_path / "whole", START_US + 110 * DAY_US), set()
    for number in range(KILLS):
        root = tmp_path / f"{number}"
        shutil.copytree(workspace.root, root)
        arguments = (root, START_US + 110 * DAY_US, 1 + number * (calls - 1) // KILLS)
        process = PROCESSES.Process(target=label_and_die, args=arguments)
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        left = found(Workspace(root))
        assert all(left.count(row) <= expected.count(row) for row in left)
        partly.add(len(left))
        label(Workspace(root), 110)
        assert found(Workspace(root)) == expected
        assert label(Workspace(root), 110).statuses["labelled"] == 0
    assert partly >= {0, 2, 4}, "it never died between two commits"


def test_two_runs_at_a_time_are_refused(workspace: Workspace) -> None:
    bring(workspace, END)
    with served_labels.writing(workspace.served_labels("churn")), pytest.raises(TemporaryError, match="table is being written"):
        label(workspace, 200)


def test_a_deleted_user_leaves_the_table_and_late_rows_of_hers_get_no_label(workspace: Workspace) -> None:
    bring(workspace, ("a", "session", 1, 1), ("b", "session", 1, 1), ("a", "cancellation", 5, 6), ("c", "session", 200, 200))
    log_predictions(workspace, "churn", [Asked("a", 2), Asked("b", 2)])
    label(workspace, 150)
    folder = workspace.served_labels("churn")
    request = delete_entities(
        Deletion(workspace, CATALOG, "user"), ["a"], who="ann", reason="by mail", now_us=START_US + 201 * DAY_US
    )
    assert request.counts["labels of churn"] == 1
    assert found(workspace) == [("b", 2, 0)]
    assert b"cancel" not in b"".join(path.read_bytes() for path in folder.glob("*.parquet"))
    # A row of hers that was in a server's queue reaches the log after the deletion; of what she does later there are new ones.
    log_predictions(workspace, "churn", [Asked("a", 200), Asked("a", 210), Asked("b", 210)])
    bring(workspace, ("a", "cancellation", 220, 220), END, source="more")
    done = label(workspace, 400)
    assert (done.statuses["erased"], done.statuses["labelled"]) == (1, 2)
    assert found(workspace) == [("a", 210, 1), ("b", 2, 0), ("b", 210, 0)]


def test_progress_survives_a_deletion_that_rewrites_the_prediction_log(workspace: Workspace) -> None:
    bring(workspace, END)
    log_predictions(workspace, "churn", [Asked("a", 1), Asked("b", 1)], [Asked("b", 1, request="again"), Asked("b", 150)])
    label(workspace, 110)
    predictions.erase(workspace.predictions("churn"), ["a"])
    assert label(workspace, 120).statuses["labelled"] == 0
    assert label(workspace, 300).statuses["labelled"] == 1
    assert len(found(workspace)) == 4


def test_a_row_whose_events_the_log_has_dropped_is_counted_and_gets_no_label(workspace: Workspace) -> None:
    month = replace(CATALOG, retention_s=(("eu", 30 * 86_400),))
    bring(workspace, ("a", "cancellation", 5, 6), ("b", "session", 6, 6), END)
    log_predictions(workspace, "churn", [Asked("a", 1), Asked("a", 300 - RIPE), Asked("b", 395 - RIPE)])
    # What came before day 10 goes: the cancellation too, which made the first row a positive.
    expire_events(workspace, month, "user", now_us=START_US + 40 * DAY_US)
    done = label(workspace, 400)
    assert done.statuses["expired"] == 1
    assert [day for _, day, _ in found(workspace)] == [300 - RIPE, 395 - RIPE]


def test_events_that_only_the_live_log_holds_count_up_to_where_the_batch_log_ends(workspace: Workspace) -> None:
    with open_live_log(workspace, CATALOG, "user", durability="process") as log:
        assert label(workspace, 400).known_at_us == 0
        compact(log, workspace, CATALOG, "user", now_us=START_US)
    assert label(workspace, 400).statuses["labelled"] == 0


def test_a_label_that_is_credited_to_a_touch_needs_the_one_touch_at_its_now(workspace: Workspace) -> None:
    """Redemption, within 66 days and a day of delay; "a" got two campaigns at once on day 3."""
    catalog = load_catalog("complete_journey")
    rows = (("a", "campaign_received", 1.0, 1.0), ("a", "campaign_received", 3.0, 3.0), ("a", "coupon_redeemed", 9.0, 9.0),
            ("a", "campaign_received", 3.0, 3.0), ("b", "campaign_received", 4.0, 4.0),
            ("b", "basket", 200.0, 200.0))  # fmt: skip
    table = events(*rows, campaign=["1", "2", "1", "3", "1", None])
    table = table.set_column(0, "event_id", pa.array([f"e{number}" for number in range(len(rows))]))
    table = table.set_column(table.column_names.index("region"), "region", pa.array([catalog.regions[0]] * len(rows)))
    append_events(workspace, catalog, "household", table.sort_by("ingest_time"), source="file")
    log_predictions(workspace, "redemption", [Asked("a", 1), Asked("a", 2), Asked("a", 3), Asked("b", 4)])
    done = label_served(workspace, "redemption", now_us=START_US + 150 * DAY_US)
    assert (done.statuses["untouched"], done.statuses["labelled"]) == (2, 2)
    assert found(workspace, "redemption") == [("a", 1, 1), ("b", 4, 0)]


def test_progress_that_is_gone_is_an_error_and_not_a_second_labelling(workspace: Workspace) -> None:
    bring(workspace, END)
    log_predictions(workspace, "churn", [Asked("a", 1)])
    label(workspace, 200)
    (path,) = (workspace.served_labels("churn") / served_labels.PROGRESS).iterdir()
    path.unlink()
    with pytest.raises(EventLogError, match="progress of labels cannot be read"):
        label(workspace, 300)


def test_a_summary_counts_what_is_open_due_and_labelled_and_measures_each_version(workspace: Workspace) -> None:
    bring(workspace, ("a", "cancellation", 5, 6), ("b", "cancellation", 5, 6), END)
    # Of version 1, "a" (1) scores above "c" (0) but "b" (1) below: 1 of 2 pairs is in order, an AUC of 0.5.
    log_predictions(
        workspace, "churn",
        [Asked("a", 1, 0.8), Asked("b", 1, 0.2), Asked("c", 1, 0.5), Asked("c", 100, 0.5)],
        [Asked("a", 1, 0.8, version=2, revision="canary-1")],
    )  # fmt: skip
    label(workspace, 110)
    log_predictions(workspace, "churn", [Asked("d", 2, 0.1, version=2, revision="canary-1", answered_day=110)])
    newest, oldest = summarize_labels(workspace, "churn", now_us=START_US + 110 * DAY_US)
    assert (oldest.model_version, oldest.revision) == (1, "stable")
    assert (oldest.open, oldest.due, oldest.labelled, oldest.users, oldest.positives) == (1, 0, 3, 3, 2)
    assert oldest.auc == {"value": 0.5}
    # (ln 1/0.8 + ln 1/0.2 + ln 1/0.5) / 3 = (0.22314 + 1.60944 + 0.69315) / 3
    assert oldest.log_loss is not None
    assert oldest.log_loss["value"] == pytest.approx(0.84191, abs=1e-5)
    assert (newest.open, newest.due, newest.labelled, newest.positives, newest.auc) == (0, 1, 1, 1, None)


def test_a_summary_of_many_users_gives_intervals(workspace: Workspace) -> None:
    names = [f"u{number}" for number in range(40)]
    bring(workspace, *((name, "cancellation", 5.0, 6.0) for name in names[::2]), END)
    log_predictions(workspace, "churn", [Asked(name, 1, 0.6 if number % 2 == 0 else 0.4) for number, name in enumerate(names)])
    label(workspace, 110)
    (entry,) = summarize_labels(workspace, "churn", now_us=START_US + 110 * DAY_US)
    assert entry.auc == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert entry.mean_score == pytest.approx(0.5)
