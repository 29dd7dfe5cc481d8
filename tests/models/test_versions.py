"""The registry of model versions: whole or not at all, one number each, and never an unblessed one by accident."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from features.workspace import Workspace
from models.errors import VersionError
from models.versions import NewVersion, list_versions, load, newest_blessed, register

NEW = NewVersion(
    model="churn",
    created_at_us=1_700_000_000_000_000,
    run_id="run-1",
    blessed=True,
    reason="beats recency",
    view_key="subscriber@1",
    view_hash="v",
    graph_hash="g",
    metrics={"network_auc": 0.8},
)
REFUSED = replace(NEW, blessed=False, reason="does not beat recency")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    folder = tmp_path / "artifacts"
    (folder / "saved_model").mkdir(parents=True)
    (folder / "saved_model" / "saved_model.pb").write_bytes(b"graph")
    (folder / "model.json").write_text("{}")
    return folder


def test_a_version_is_found_again_with_all_its_facts_and_files(workspace: Workspace, artifacts: Path) -> None:
    registered = register(workspace, NEW, artifacts)
    assert registered == load(workspace, "churn") == load(workspace, "churn", 1)
    assert registered.version == 1
    assert registered.path == workspace.model("churn", 1)
    assert (registered.path / "saved_model" / "saved_model.pb").read_bytes() == b"graph"
    assert registered.metrics == {"network_auc": 0.8}


def test_each_model_counts_for_itself_and_lists_its_newest_first(workspace: Workspace, artifacts: Path) -> None:
    for name in ("churn", "retail", "churn"):
        register(workspace, replace(NEW, model=name), artifacts)
    assert [(entry.model, entry.version) for entry in list_versions(workspace)] == [("churn", 2), ("churn", 1), ("retail", 1)]
    assert [entry.version for entry in list_versions(workspace, "retail")] == [1]


def test_the_newest_blessed_version_is_loaded_even_where_a_newer_one_was_refused(workspace: Workspace, artifacts: Path) -> None:
    for entry in (NEW, REFUSED):
        register(workspace, entry, artifacts)
    newest = newest_blessed(workspace, "churn")
    assert newest is not None
    assert newest.version == 1
    assert load(workspace, "churn").version == 1


def test_an_unblessed_version_is_loaded_only_by_someone_who_says_so(workspace: Workspace, artifacts: Path) -> None:
    register(workspace, REFUSED, artifacts)
    with pytest.raises(
        VersionError,
        match=r"^model version is not blessed: churn version 1; .* got not blessed: does not beat recency; [^\n]+$",
    ):
        load(workspace, "churn", 1)
    assert load(workspace, "churn", 1, require_blessed=False).version == 1
    with pytest.raises(VersionError, match="model has no blessed version: 'churn'; .* got 1 versions, none blessed"):
        load(workspace, "churn")


def test_a_missing_model_version_or_folder_is_told_in_one_line(workspace: Workspace, artifacts: Path) -> None:
    with pytest.raises(VersionError, match="got no version at all; next: train it: plumb pipelines run churn"):
        load(workspace, "churn")
    register(workspace, NEW, artifacts)
    with pytest.raises(VersionError, match="model version does not exist: churn version 7; expected one of 1"):
        load(workspace, "churn", 7)
    workspace.model("churn", 1).rename(workspace.root / "elsewhere")
    with pytest.raises(VersionError, match="model version has lost its files"):
        load(workspace, "churn")


def test_versions_registered_at_once_get_numbers_of_their_own(workspace: Workspace, artifacts: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        registered = list(
            pool.map(lambda number: register(workspace, replace(NEW, run_id=f"run-{number}"), artifacts), range(16))
        )
    assert sorted(entry.version for entry in registered) == list(range(1, 17))
    listed = {entry.version: entry.run_id for entry in list_versions(workspace, "churn")}
    assert listed == {entry.version: entry.run_id for entry in registered}
    assert sorted(path.name for path in workspace.model("churn", 1).parent.iterdir()) == sorted(map(str, listed))


def test_artifacts_that_are_missing_leave_nothing_behind(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(VersionError, match="model has no artifacts"):
        register(workspace, NEW, tmp_path / "nowhere")
    assert not workspace.root.exists()
    assert list_versions(workspace) == []


def test_a_folder_without_a_row_is_never_taken_for_a_version_nor_overwritten(workspace: Workspace, artifacts: Path) -> None:
    orphan = workspace.model("churn", 1)
    orphan.mkdir(parents=True)
    (orphan / "half").write_text("written before a crash")
    assert list_versions(workspace) == []
    assert register(workspace, NEW, artifacts).version == 2
    assert (orphan / "half").exists()


def test_a_row_that_cannot_be_written_leaves_no_folder(workspace: Workspace, artifacts: Path) -> None:
    register(workspace, NEW, artifacts)
    with sqlite3.connect(workspace.control_database) as connection:
        connection.execute("CREATE TRIGGER refuse BEFORE INSERT ON model_versions BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    connection.close()
    with pytest.raises(VersionError, match="disk full"):
        register(workspace, NEW, artifacts)
    assert [path.name for path in workspace.model("churn", 1).parent.iterdir()] == ["1"]


def test_a_control_database_that_is_no_database_is_told_in_one_line(workspace: Workspace) -> None:
    workspace.root.mkdir()
    workspace.control_database.write_bytes(b"not a database" * 100)
    with pytest.raises(VersionError, match=r"^control database cannot be read: [^\n]+; got file is not a database; [^\n]+$"):
        list_versions(workspace)
