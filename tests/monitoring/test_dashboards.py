"""Dashboards as they are committed: what the code makes, and complete as Grafana needs them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from monitoring.dashboards.boards import BOARDS, dump, file_name
from monitoring.dashboards.panels import COLUMNS, Board, Panel, Query, Row, render

FOLDER = Path(__file__).parents[2] / "manifests" / "monitoring" / "dashboards"


def panels(board: Board) -> list[dict[str, Any]]:
    return list(render(board)["panels"])


def test_the_committed_files_are_what_the_code_makes() -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
    assert committed == {file_name(board): dump(board) for board in BOARDS}, "run: python -m monitoring.dashboards"


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_a_dashboards_panels_are_named_explained_and_do_not_overlap(board: Board) -> None:
    taken: set[tuple[int, int]] = set()
    numbers = [panel["id"] for panel in panels(board)]
    assert numbers == list(range(1, len(numbers) + 1))
    for panel in panels(board):
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken
        assert place["x"] + place["w"] <= COLUMNS
        taken |= cells
        if panel["type"] != "row":
            assert panel["title"]
            assert panel["description"]
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_every_variable_that_a_query_uses_is_one_of_the_dashboard(board: Board) -> None:
    text = json.dumps(render(board))
    known = {variable["name"] for variable in render(board)["templating"]["list"]} | {"__rate_interval", "__all"}
    assert set(re.findall(r"\$\{?(\w+)", text)) <= known
    assert all("$" + variable.label in text for variable in board.variables)


def test_dashboards_have_names_of_their_own() -> None:
    assert len({board.uid for board in BOARDS}) == len({board.title for board in BOARDS}) == len(BOARDS)


def test_panels_go_from_left_to_right_and_below_each_other() -> None:
    # Widths 12, 12 and 8 below a heading of height 1: two beside each other, the third below them, at 1 + 8.
    wide, narrow = (Panel("timeseries", "a", "b", [Query("up")], width=width) for width in (12, 8))
    rows = [Row("first", [wide, wide, narrow]), Row("second", [narrow])]
    places = [panel["gridPos"] for panel in panels(Board("uid", "title", "text", rows))]
    assert [(place["x"], place["y"]) for place in places] == [(0, 0), (0, 1), (12, 1), (0, 9), (0, 17), (0, 18)]
