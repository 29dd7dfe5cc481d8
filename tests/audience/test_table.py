"""The table of audiences, its figures and the commands that read it, on four users written by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from features import audiences
from features.audiences import AUDIENCE, Sweep
from features.errors import EventLogError, TemporaryError
from models.audience_figures import measure_audiences, measure_moves, measure_overlap
from models.audience_page import render_page
from plumb.app import root

NOW_US = 1_740_830_400_000_000
SWEEP = Sweep(NOW_US, "audience", 3, 10, 0, {"a": 0.1, "b": 0.2, "empty": 0.0}, {"campaigns": []}, {"0": (7, 0), "1": None})


def rows(*pairs: tuple[str, str, float, str], sequence: int = 0) -> pa.Table:
    return pa.table(
        [
            [pair[0] for pair in pairs], [pair[1] for pair in pairs], pa.array([pair[2] for pair in pairs], pa.float32()),
            [pair[3] == "selected" for pair in pairs], [pair[3] for pair in pairs], [3] * len(pairs),
            pa.array([NOW_US] * len(pairs)).cast(AUDIENCE.field("scored_at").type), [sequence] * len(pairs),
        ],
        schema=AUDIENCE,
    )  # fmt: skip


FIRST = rows(
    ("a", "u1", 0.5, "selected"), ("a", "u2", 0.25, "selected"), ("a", "u3", 0.25, "over_size"), ("b", "u1", 0.5, "selected"),
    ("b", "u4", 0.75, "no_consent"),
)  # fmt: skip
SECOND = rows(("a", "u1", 0.1, "below_threshold"), ("a", "u3", 0.25, "selected"), sequence=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep, then a change: u1 leaves a, and u3 gets his place."""
    path = tmp_path / "audiences" / "audience"
    before = audiences.write_sweep(path, FIRST, SWEEP)
    audiences.append_changes(
        path, SECOND, replace(SWEEP, sequence=1, cursors={"0": (9, 1), "1": (0, 0)}), expected_version=before
    )
    return path


def test_of_a_pairs_rows_the_newest_counts_and_every_version_stays_readable(folder: Path) -> None:
    now, before = audiences.read_audiences(folder), audiences.read_audiences(folder, version=0)
    assert now.rows.select("campaign", "entity_id", "member").rows() == [
        ("a", "u2", True), ("a", "u3", True), ("b", "u1", True), ("b", "u4", False),
    ]  # fmt: skip
    assert (now.sweep.sequence, now.sweep.cursors) == (1, {"0": (9, 1), "1": (0, 0)})
    assert (before.rows.height, before.sweep) == (5, SWEEP)
    assert [number for number, _ in audiences.versions(folder)] == [1, 0]


def test_a_sweep_takes_the_place_of_all_rows(folder: Path) -> None:
    audiences.write_sweep(folder, rows(("b", "u4", 0.5, "selected")), replace(SWEEP, now_us=NOW_US + 1))
    assert audiences.read_audiences(folder).rows["entity_id"].to_list() == ["u4"]


def test_a_change_to_another_version_than_the_newest_is_refused(folder: Path) -> None:
    with pytest.raises(TemporaryError, match="written by somebody else"):
        audiences.append_changes(folder, SECOND, SWEEP, expected_version=0)


def test_erased_users_leave_no_file_behind(folder: Path) -> None:
    assert audiences.erase(folder, ["u1", "nobody"]) == 3
    assert audiences.erase(folder, ["u1"]) == 0
    assert not [path for path in folder.glob("*.parquet") if b"u1" in path.read_bytes()]
    assert audiences.read_audiences(folder).sweep.sequence == 1
    with pytest.raises(EventLogError):
        audiences.read_audiences(folder, version=0)


def test_figures_are_those_done_by_hand(folder: Path) -> None:
    # Of ten users a holds u1 at 0.5 and u2 at 0.25: mean 0.375 over 0.1 of all makes a lift of 3.75; b holds u1: 0.5 over 0.2.
    first, second, nobody = measure_audiences(audiences.read_audiences(folder, version=0))
    assert (first.members, first.share, first.mean_score, first.lift, first.expected) == (2, 0.2, 0.375, 3.75, 0.75)
    assert first.reasons == {"over_size": 1, "below_threshold": 7}
    assert (second.members, second.lift, second.reasons) == (1, 2.5, {"no_consent": 1, "below_threshold": 8})
    assert (nobody.members, nobody.lift) == (0, 0.0)


def test_overlap_is_the_share_of_the_rows_members(folder: Path) -> None:
    # u1 is in both: half of a's two, all of b's one.
    names, shares = measure_overlap(audiences.read_audiences(folder, version=0))
    assert names == ["a", "b", "empty"]
    assert np.array_equal(shares, [[1, 0.5, 0], [1, 1, 0], [0, 0, 0]])


def test_moves_say_why_somebody_went(folder: Path) -> None:
    moves = measure_moves(audiences.read_audiences(folder, version=0), audiences.read_audiences(folder))
    assert [(entry.campaign, entry.came, entry.went, entry.stayed) for entry in moves] == [
        ("a", 1, 1, 1), ("b", 0, 0, 1), ("empty", 0, 0, 0),
    ]  # fmt: skip
    assert moves[0].reasons == {"below_threshold": 1}


def test_commands_show_figures_reasons_and_changes(folder: Path, tmp_path: Path) -> None:
    def ask(*words: str) -> str:
        done = CliRunner().invoke(root, ["--workspace", str(tmp_path), "audience", *words])
        assert done.exit_code == 0, done.output
        return done.output

    page = tmp_path / "page.html"
    shown = json.loads(ask("show", "--json", "--html", str(page)))
    assert [entry["members"] for entry in shown["campaigns"]] == [2, 1, 0]
    assert json.loads(ask("show", "--json", "--user", "u1")) == [
        {"campaign": "a", "member": False, "reason": "below_threshold", "score": None},
        {"campaign": "b", "member": True, "reason": "selected", "score": 0.5},
        {"campaign": "empty", "member": False, "reason": "below_threshold", "score": None},
    ]
    assert "below_threshold 1" in ask("diff", "0")
    assert "change 1" in ask("history")
    assert page.read_text().count("<svg") == 2


def test_a_page_escapes_what_people_have_named() -> None:
    figures = measure_audiences(audiences.Audiences(0, replace(SWEEP, mean_scores={"<b>": 0.5}), pl_rows()))
    assert "<b>" not in render_page("x", figures, (["<b>"], np.zeros((1, 1))))


def pl_rows():
    import polars as pl

    return pl.DataFrame(rows(("<b>", "u1", 0.5, "selected")))
