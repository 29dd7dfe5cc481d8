"""The registry of model versions: whole or not at all, one number each, and never an unblessed one by accident.

The same suite runs over SQLite and over a PostgreSQL server.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from features.errors import StoreUnavailable
from features.workspace import Workspace
from models.aliases import history
from models.errors import VersionError
from models.lineage import Lineage
from models.versions import ModelVersion, NewVersion, Verdict, list_versions, load, register

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
def workspace(tmp_path: Path, control_url: str) -> Workspace:
    return Workspace(tmp_path / "workspace", control_url)


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    folder = tmp_path / "artifacts"
    (folder / "saved_model").mkdir(parents=True)
    (folder / "saved_model" / "saved_model.pb").write_bytes(b"graph")
    (folder / "model.json").write_text("{}")
    return folder


LINEAGE = Lineage(
    catalog="subscription",
    tables={"events/subscriber": 12, "profiles/accounts": -1},
    log_end_us=1_700_000_000_000_000,
    known_at_us=1_699_000_000_000_000,
    test_begins_us=1_696_000_000_000_000,
    rows={"rows_train": 900, "positives_train": 90},
    code={"package": "0.1.0", "git_sha": "abc", "git_dirty": False},
    label={"outcome": ["cancel"], "horizon_s": 2_592_000},
    population={"entered_by": ["start"]},
    cutoffs={"every_s": 86_400},
    learning={"method": "matured", "learner": "network"},
    network={"hidden": [32, 16]},
    seed=3,
    parent_champion=None,
)


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


def test_a_version_keeps_its_lineage(workspace: Workspace, artifacts: Path) -> None:
    register(workspace, replace(NEW, lineage=LINEAGE), artifacts)
    register(workspace, NEW, artifacts)
    assert load(workspace, "churn", 1).lineage == LINEAGE
    assert load(workspace, "churn", 2).lineage is None


def test_texts_about_a_version_know_its_number_and_whether_it_became_champion(workspace: Workspace, artifacts: Path) -> None:
    def describe(made: ModelVersion, promoted: bool) -> dict[str, str]:
        return {"card.md": f"{made.model} {made.version} {'champion' if promoted else 'candidate'} ä"}

    first = register(workspace, NEW, artifacts, documents=describe)
    # Judged against version 7, which is not champion: the verdict comes too late.
    outrun = replace(NEW, lineage=replace(LINEAGE, parent_champion=7))
    second = register(workspace, outrun, artifacts, verdict=Verdict(promoted=True, why="beats it"), documents=describe)
    texts = [(version.path / "card.md").read_text(encoding="utf-8") for version in (first, second)]
    assert texts == ["churn 1 champion ä", "churn 2 candidate ä"]


def test_an_unblessed_version_is_loaded_only_by_someone_who_says_so(workspace: Workspace, artifacts: Path) -> None:
    register(workspace, REFUSED, artifacts)
    with pytest.raises(
        VersionError,
        match=r"^model version is not blessed: churn version 1; .* got not blessed: does not beat recency; [^\n]+$",
    ):
        load(workspace, "churn", 1)
    assert load(workspace, "churn", 1, require_blessed=False).version == 1
    with pytest.raises(VersionError, match="model has no champion: 'churn'; .* got 1 versions, 0 of them blessed"):
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


def test_a_row_that_cannot_be_written_leaves_no_folder_and_no_alias(workspace: Workspace, artifacts: Path) -> None:
    register(workspace, NEW, artifacts)
    with pytest.raises(ZeroDivisionError):
        register(workspace, NEW, artifacts, documents=lambda *_: {"card.md": str(1 / 0)})
    assert [path.name for path in workspace.model("churn", 1).parent.iterdir()] == ["1"]
    assert [entry.version for entry in list_versions(workspace)] == [1]
    assert [(entry.alias, entry.to_version) for entry in history(workspace)] == [("candidate", 1), ("champion", 1)]


def test_a_control_database_that_is_no_database_is_told_in_one_line(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    workspace.root.mkdir()
    workspace.control_database.write_bytes(b"not a database" * 100)
    with pytest.raises(VersionError, match=r"^control database cannot be used: [^\n]+; got file is not a database; [^\n]+$"):
        list_versions(workspace)


def test_a_server_that_does_not_answer_is_told_in_one_line_without_its_password(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "postgresql://plumb:secret@127.0.0.1:1/plumbline")
    with pytest.raises(StoreUnavailable, match=r"^control database did not answer: [^\n]+refused[^\n]+$") as failure:
        list_versions(workspace)
    assert "secret" not in str(failure.value)
