"""``plumb models``: what is registered and what can be trained."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path

import pytest
from typer.testing import CliRunner

from features.workspace import Workspace
from models.errors import SpecError, VersionError
from models.versions import NewVersion, register
from plumb import app


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A blessed version and, after it, one that is not."""
    (tmp_path / "artifacts").mkdir()
    workspace = Workspace(tmp_path / "workspace")
    for blessed, reason in ((True, "auc beats recency"), (False, "auc does not beat recency")):
        new = NewVersion("churn", 0, "run-1", blessed, reason, "subscriber@1", "v", "g", {"network_auc": 0.8125})
        register(workspace, new, tmp_path / "artifacts")
    return workspace


def call(workspace: Workspace, *arguments: str) -> str:
    done = CliRunner().invoke(app.root, ["--workspace", str(workspace.root), "models", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_versions_are_listed_as_a_table_and_as_json(workspace: Workspace) -> None:
    assert "churn" in call(workspace, "list")
    listed = json.loads(call(workspace, "list", "--json"))
    assert [(entry["version"], entry["blessed"]) for entry in listed] == [(2, False), (1, True)]
    assert listed[0]["created_at"] == "1970-01-01T00:00:00Z"


def test_the_list_says_which_version_is_champion(workspace: Workspace) -> None:
    assert [entry["aliases"] for entry in json.loads(call(workspace, "list", "--json"))] == [[], ["champion", "candidate"]]


def test_a_promotion_is_told_kept_with_its_author_and_rolled_back_by_another(workspace: Workspace) -> None:
    better = NewVersion("churn", 0, "run-3", True, "better", "subscriber@1", "v", "g", {})
    register(workspace, better, workspace.root.parent / "artifacts")
    said = json.loads(call(workspace, "promote", "churn", "3", "--why", "better in the field", "--json"))
    assert (said["from_version"], said["to_version"], said["why"]) == (1, 3, "better in the field")
    assert said["who"] == pwd.getpwuid(os.getuid()).pw_name
    assert "version 1 is champion; version 3 was" in call(
        workspace, "promote", "churn", "1", "--why", "errors", "--expect", "3"
    )
    aliases = json.loads(call(workspace, "aliases", "churn", "--json"))
    assert [(entry["alias"], entry["to_version"]) for entry in aliases] == [("champion", 1), ("candidate", 3)]
    history = [entry for entry in json.loads(call(workspace, "history", "churn", "--json")) if entry["alias"] == "champion"]
    assert [(entry["from_version"], entry["to_version"]) for entry in history] == [(3, 1), (1, 3), (None, 1)]
    assert "errors" in call(workspace, "history", "churn")
    with pytest.raises(VersionError, match="champion has changed meanwhile: churn; expected version 3; got version 1"):
        call(workspace, "promote", "churn", "3", "--why", "again", "--expect", "3")
    with pytest.raises(VersionError, match="model version is not blessed: churn version 2"):
        call(workspace, "promote", "churn", "2", "--why", "please")


def test_a_card_is_printed_as_it_was_written_and_its_absence_told(workspace: Workspace) -> None:
    folder = workspace.model("churn", 1)
    with pytest.raises(VersionError, match="^model version has no card: churn version 1"):
        call(workspace, "card", "churn")
    (folder / "card.md").write_text("# churn version 1\n", encoding="utf-8")
    (folder / "card.html").write_text("<h1>churn</h1>\n", encoding="utf-8")
    assert call(workspace, "card", "churn") == "# churn version 1\n"
    assert call(workspace, "card", "churn", "--version", "1", "--html") == "<h1>churn</h1>\n"
    assert json.loads(call(workspace, "card", "churn", "--json"))["path"] == str(folder / "card.md")


def test_an_empty_workspace_lists_nothing(tmp_path: Path) -> None:
    assert json.loads(call(Workspace(tmp_path), "list", "--json")) == []


def test_one_version_is_shown_blessed_or_not_the_champion_by_default(workspace: Workspace) -> None:
    assert json.loads(call(workspace, "show", "churn", "--json"))["version"] == 1
    assert json.loads(call(workspace, "show", "churn", "--version", "2", "--json"))["reason"] == "auc does not beat recency"
    assert "network_auc = 0.8125" in call(workspace, "show", "churn")


def test_an_unknown_model_or_version_is_refused(workspace: Workspace) -> None:
    with pytest.raises(SpecError, match="unknown model: 'chrun'"):
        call(workspace, "show", "chrun")
    with pytest.raises(VersionError, match="model version does not exist: churn version 9; expected one of 2, 1"):
        call(workspace, "show", "churn", "--version", "9")


def test_specs_say_what_can_be_trained() -> None:
    specs = {entry["name"]: entry for entry in json.loads(call(Workspace(Path()), "specs", "--json"))}
    assert specs["churn_retail"]["label"]["positive"] == "absent"
    assert "lightgbm" in call(Workspace(Path()), "specs")
