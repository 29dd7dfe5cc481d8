"""Champion and candidate: who stands where, one winner of two promotions at once, and a history that cannot be changed."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from services.servers import process_environment
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DatabaseError

from features.control_database import control_url as url_of
from features.workspace import Workspace
from models.aliases import Change, champion_of, history, list_aliases, promote
from models.errors import VersionError
from models.lineage import Lineage
from models.versions import NewVersion, Verdict, load, register

NEW = NewVersion("churn", 1_700_000_000_000_000, "run-1", True, "beats recency", "subscriber@1", "v", "g", {"network_auc": 0.8})
REFUSED = replace(NEW, blessed=False, reason="does not beat recency")
BETTER = Verdict(promoted=True, why="beats the champion")
ANN = Change("ann", "looks better in the field", 1_700_000_100_000_000)

PROMOTER = """
import sys
from pathlib import Path
from features.control_database import control_url as url_of
from features.workspace import Workspace
from models.aliases import Change, promote
from models.errors import VersionError
workspace, version = Workspace(Path(sys.argv[1]), sys.argv[2]), int(sys.argv[3])
sys.stdin.readline()
try:
    promote(workspace, "churn", version, Change(f"process {version}", "race", 1), expected=1)
    print("won")
except VersionError as error:
    print(error)
"""


@pytest.fixture
def workspace(tmp_path: Path, control_url: str) -> Workspace:
    """Four blessed versions, the first of them champion, and a refused one."""
    (tmp_path / "artifacts").mkdir()
    workspace = Workspace(tmp_path / "workspace", control_url)
    for new in (NEW, NEW, NEW, NEW, REFUSED):
        register(workspace, new, tmp_path / "artifacts")
    return workspace


def test_the_first_blessed_version_is_champion_and_every_blessed_one_becomes_the_candidate(workspace: Workspace) -> None:
    assert [(entry.alias, entry.to_version) for entry in list_aliases(workspace, "churn")] == [
        ("champion", 1), ("candidate", 4),
    ]  # fmt: skip
    assert load(workspace, "churn").version == 1
    assert champion_of(workspace, "retail") is None


def test_a_promotion_moves_the_champion_and_a_rollback_is_the_promotion_of_the_one_before(workspace: Workspace) -> None:
    promote(workspace, "churn", 3, ANN, expected=1)
    assert load(workspace, "churn").version == 3
    promote(workspace, "churn", 1, Change("bob", "errors since", 1_700_000_200_000_000), expected=3)
    assert load(workspace, "churn").version == 1
    champions = [entry for entry in history(workspace, "churn") if entry.alias == "champion"]
    assert [(entry.from_version, entry.to_version, entry.who, entry.why) for entry in champions] == [
        (3, 1, "bob", "errors since"),
        (1, 3, "ann", "looks better in the field"),
        (None, 1, "registration of run run-1", "beats recency"),
    ]


def test_what_may_not_be_champion_is_refused_in_one_line_and_leaves_no_trace(workspace: Workspace) -> None:
    before = history(workspace)
    workspace.model("churn", 2).rename(workspace.root / "elsewhere")
    for version, expected, message in (
        (5, 1, r"^model version is not blessed: churn version 5; [^\n]*got not blessed: does not beat recency"),
        (9, 1, r"^model version does not exist: churn version 9; expected one of 5, 4, 3, 2, 1"),
        (2, 1, r"^model version has lost its files: churn version 2"),
        (1, 1, r"^model version is the champion already: churn version 1"),
        (3, 2, r"^champion has changed meanwhile: churn; expected version 2; got version 1; next: [^\n]*history churn$"),
        (3, None, r"^champion has changed meanwhile: churn; expected no version; got version 1"),
    ):  # fmt: skip
        with pytest.raises(VersionError, match=message):
            promote(workspace, "churn", version, ANN, expected=expected)
    with pytest.raises(VersionError, match="^promotion has no reason: churn version 3"):
        promote(workspace, "churn", 3, replace(ANN, why=" "), expected=1)
    assert history(workspace) == before


def test_of_promotions_by_several_processes_at_once_one_wins_and_the_history_tells_it(workspace: Workspace) -> None:
    command = [sys.executable, "-c", PROMOTER, str(workspace.root), workspace.control_url]
    processes = {
        version: subprocess.Popen(
            [*command, str(version)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=process_environment()
        )
        for version in (2, 3, 4)
    }
    for process in processes.values():
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = {version: process.communicate(timeout=60)[0].strip() for version, process in processes.items()}
    winner = next(version for version, text in said.items() if text == "won")
    assert sum(text == "won" for text in said.values()) == 1, said
    losers = [text for text in said.values() if text != "won"]
    assert all(text.startswith("champion has changed meanwhile: churn; expected version 1; got version") for text in losers)
    newest = next(entry for entry in history(workspace, "churn") if entry.alias == "champion")
    assert (newest.sequence, newest.from_version, newest.to_version, newest.who) == (2, 1, winner, f"process {winner}")
    assert champion_of(workspace, "churn") == winner


def test_a_version_is_promoted_at_registration_only_over_the_champion_it_was_judged_against(
    workspace: Workspace, tmp_path: Path
) -> None:
    beaten = register(workspace, NEW, tmp_path / "artifacts", verdict=BETTER)
    assert champion_of(workspace, "churn") == beaten.version == 6
    lineage = Lineage("c", {}, 0, 0, 0, {}, {}, {}, {}, {}, {}, {}, 0, parent_champion=1)
    late = register(workspace, replace(NEW, lineage=lineage), tmp_path / "artifacts", verdict=BETTER)
    assert champion_of(workspace, "churn") == 6
    candidate = next(entry for entry in list_aliases(workspace, "churn") if entry.alias == "candidate")
    assert candidate.to_version == late.version
    assert candidate.why == "kept a candidate, because it was judged against 1 and 6 is champion now; beats the champion"


@pytest.mark.parametrize("statement", ["UPDATE model_promotions SET who = 'x'", "DELETE FROM model_promotions"])
def test_the_history_cannot_be_changed(workspace: Workspace, statement: str) -> None:
    before = history(workspace)
    engine = create_engine(url_of(workspace))
    with pytest.raises(DatabaseError, match="promotions are history and never change"), engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()
    assert history(workspace) == before


def test_a_file_from_before_aliases_keeps_serving_the_newest_blessed_version(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    write_old_database(workspace, blessed={1: True, 2: True, 3: False})
    for version in (1, 2, 3):
        workspace.model("churn", version).mkdir(parents=True)
    assert load(workspace, "churn").version == 2
    (entry, _) = list_aliases(workspace, "churn")
    assert (entry.alias, entry.who, entry.at_us) == ("champion", "migration", 20)
    assert load(workspace, "churn").lineage is None
    (tmp_path / "artifacts").mkdir()
    assert register(workspace, NEW, tmp_path / "artifacts").version == 4
    assert champion_of(workspace, "churn") == 2


def test_a_database_of_a_newer_release_is_refused_in_one_line(workspace: Workspace) -> None:
    engine = create_engine(url_of(workspace))
    with engine.begin() as connection:
        connection.execute(text("UPDATE models_schema SET version = 99"))
    engine.dispose()
    with pytest.raises(
        VersionError, match=r"^control database is of a newer release: [^\n]+; expected schema 2 or older; got schema 99"
    ):
        history(workspace)


def write_old_database(workspace: Workspace, blessed: dict[int, bool]) -> None:
    """As the release before aliases made it."""
    with sqlite3.connect(workspace.control_database) as connection:
        connection.execute(
            "CREATE TABLE model_versions (id INTEGER NOT NULL, model VARCHAR NOT NULL, version INTEGER NOT NULL, "
            "created_at_us BIGINT NOT NULL, run_id VARCHAR NOT NULL, path VARCHAR NOT NULL, blessed BOOLEAN NOT NULL, "
            "reason VARCHAR NOT NULL, view_key VARCHAR NOT NULL, view_hash VARCHAR NOT NULL, graph_hash VARCHAR NOT NULL, "
            "metrics JSON NOT NULL, PRIMARY KEY (id), UNIQUE (model, version))"
        )
        for version, is_blessed in blessed.items():
            connection.execute(
                "INSERT INTO model_versions VALUES (?, 'churn', ?, ?, 'run', ?, ?, 'why', 'k', 'v', 'g', '{}')",
                (version, version, version * 10, f"models/churn/{version}", is_blessed),
            )
    connection.close()
