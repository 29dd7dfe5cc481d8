"""What is shipped, and what importing it costs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {"features", "transforms", "models", "inference", "monitoring", "components", "pipelines", "simulation", "plumb"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel's file names, built with what the environment holds."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_the_wheel_holds_the_rooms_and_nothing_else(wheel):
    assert {name.split("/")[0] for name in wheel} == ROOMS | {"plumbline-0.1.0.dist-info"}


def test_every_file_of_a_room_travels_in_the_wheel(wheel):
    command = ["git", "ls-files", "--", *sorted(ROOMS)]
    tracked = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    assert set(tracked) - set(wheel) == set()


def test_no_other_installed_distribution_uses_a_name_of_ours():
    owners = packages_distributions()
    shared = {room: owners[room] for room in ROOMS if set(owners.get(room, [])) - {"plumbline"}}
    assert shared == {}


def test_every_direct_requirement_is_in_its_lock():
    def locked(name: str) -> set[str]:
        lines = (ROOT / "locks" / name).read_text().splitlines()
        return {line.partition("==")[0] for line in lines if line[:1].isalnum()}

    def name_of(requirement: str) -> str:
        return re.match(r"[\w.-]+", requirement)[0].lower()

    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    declared = requires("plumbline") or []
    main = {name_of(line) for line in declared if "extra == 'monitoring'" not in line}
    monitoring = {name_of(line) for line in declared if "extra == 'main'" not in line}
    assert main | {name_of(line) for line in groups["dev"]} <= locked("main.txt")
    assert monitoring | {name_of(line) for line in groups["monitoring-dev"]} <= locked("monitoring.txt")


@pytest.mark.parametrize("lock", ["main.txt", "monitoring.txt", "tools.txt"])
def test_a_lock_pins_with_hashes_and_names_no_place(lock):
    text = (ROOT / "locks" / lock).read_text()
    assert "://" not in text
    assert "index-url" not in text
    pins = [line for line in text.splitlines() if line[:1].isalnum()]
    assert pins
    assert all("==" in line and line.endswith("\\") for line in pins)


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in ``sys.modules`` of a fresh interpreter after one statement."""
    script = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=120)
    return set(done.stdout.split())


@pytest.mark.parametrize("heavy", ["tensorflow", "apache_beam", "kfp", "kserve", "lightgbm", "sklearn", "matplotlib"])
def test_the_command_line_starts_without_heavy_libraries(command_line_modules, heavy):
    assert heavy not in command_line_modules


@pytest.fixture(scope="module")
def command_line_modules():
    return loaded_by("import plumb.app")
