from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from plumb.errors import SettingsError
from plumb.features import store_of
from plumb.settings import Settings, prepare_native_libraries, read_settings


def test_nothing_given_means_the_folder_workspace():
    assert read_settings({}) == Settings(Path("workspace"))


def test_only_our_prefix_is_looked_at():
    assert read_settings({"HOME": "/root", "PLUMBER": "x"}) == Settings(Path("workspace"))


def test_the_current_folder_may_be_a_workspace():
    assert read_settings({"PLUMB_WORKSPACE": "."}).workspace_root == Path(".")


def test_an_empty_variable_is_refused():
    with pytest.raises(SettingsError, match="empty setting: PLUMB_WORKSPACE"):
        read_settings({"PLUMB_WORKSPACE": ""})


def test_an_unknown_key_of_ours_is_refused_even_where_the_option_is_given():
    with pytest.raises(SettingsError, match="PLUMB_WORKSPCE"):
        read_settings({"PLUMB_WORKSPCE": "x"}, workspace=Path("w"))


def test_a_file_is_no_workspace(tmp_path):
    file = tmp_path / "notes.txt"
    file.touch()
    with pytest.raises(SettingsError, match="workspace is not a folder"):
        read_settings({}, workspace=file)


def test_the_control_database_is_named_by_its_variable_or_its_option():
    url = "postgresql://plumb@db.internal:5432/plumbline"
    assert read_settings({"PLUMB_CONTROL_DATABASE": url}).workspace.control_url == url
    assert read_settings({"PLUMB_CONTROL_DATABASE": url}, control_database="sqlite:////a/b.db").control_database.endswith(
        "b.db"
    )
    assert read_settings({}).workspace.control_url == ""


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://plumb:secret@db/p", r"^control database has a password in its URL: postgresql://plumb:\*\*\*@db/p;"),
        ("mysql://plumb@db/p", "^control database cannot be used: mysql://plumb@db/p; expected postgresql://"),
        ("postgresql:///p", "^control database cannot be used"),
        ("sqlite://", "^control database cannot be used"),
        ("control.db", "got no scheme; next: correct the URL$"),
    ],
)
def test_a_control_database_that_cannot_be_used_is_refused_before_anything_starts(url, message):
    with pytest.raises(SettingsError, match=message) as failure:
        read_settings({"PLUMB_CONTROL_DATABASE": url})
    assert "secret" not in str(failure.value)


def test_the_kernels_are_forced_and_the_log_level_only_defaulted():
    environment = {"TF_ENABLE_ONEDNN_OPTS": "1", "TF_CPP_MIN_LOG_LEVEL": "0"}
    prepare_native_libraries(environment)
    assert environment["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert environment["TF_CPP_MIN_LOG_LEVEL"] == "0"


def test_the_entry_sets_the_kernels_before_tensorflow_can_load():
    script = (
        "import os, sys; sys.argv = ['plumb', '--version']\n"
        "from plumb.app import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    print(os.environ['TF_ENABLE_ONEDNN_OPTS'], 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "0 False"


def test_the_online_store_is_the_workspaces_own_unless_an_address_is_given(tmp_path):
    settings = read_settings({}, workspace=tmp_path)
    assert store_of(settings, "buyer@1", None) == str(settings.workspace.online("buyer@1"))
    assert store_of(settings, "buyer@1", "/data/stores") == "/data/stores/buyer@1"
    assert store_of(settings, "buyer@1", "redis://h:1/0") == "redis://h:1/0"


def test_an_address_from_the_environment_stands_where_none_is_given(tmp_path):
    settings = read_settings({"PLUMB_STORE": "redis://:secret@h:1/0"}, workspace=tmp_path)
    assert store_of(settings, "buyer@1", None) == "redis://:secret@h:1/0"
    assert store_of(settings, "buyer@1", "redis://other:1/0") == "redis://other:1/0"
