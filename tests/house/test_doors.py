"""Each door is shown to hold: a planted import through it makes import-linter fail on that contract, and on it alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("features", "transforms", "models", "inference", "monitoring", "components", "pipelines", "simulation", "plumb")

# (room that gets the import, what is imported, name of the contract that must break)
FLOORS = "Imports go down the floors; middle rooms do not know each other"
SIMULATION = "Only the command line and the tests start the simulator"
BEAM = "Beam and tf.Transform only in transforms"
FRAMEWORKS = "No machine-learning framework in features or simulation"
KFP = "kfp only in components and pipelines"
PLANTS = [
    ("features", "import models", FLOORS),
    ("models", "import transforms", FLOORS),
    ("inference", "def late():\n    import models", FLOORS),
    ("monitoring", "import inference", FLOORS),
    ("components", "import pipelines", FLOORS),
    ("pipelines", "import plumb", FLOORS),
    ("simulation", "import transforms", FLOORS),
    ("pipelines", "import simulation", SIMULATION),
    ("components", "import apache_beam", BEAM),
    ("inference", "import tensorflow_transform", BEAM),
    ("inference", "import alibi_detect", "alibi-detect only in monitoring"),
    ("features", "import tensorflow", FRAMEWORKS),
    ("simulation", "import lightgbm", FRAMEWORKS),
    ("monitoring", "import tensorflow", "No TensorFlow in monitoring"),
    ("plumb", "import kfp", KFP),
]


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    """The rooms' outlines, without what they import, so that only a planted import can break a contract."""
    copy = tmp_path_factory.mktemp("house")
    for room in ROOMS:
        (copy / room).mkdir()
        (copy / room / "__init__.py").touch()
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_rooms_alone_keep_every_contract(rooms):
    done = lint(rooms)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(("room", "statement", "contract"), PLANTS, ids=[f"{p[0]}-{p[1].split()[-1]}" for p in PLANTS])
def test_a_planted_import_breaks_its_door(rooms, room, statement, contract):
    planted = rooms / room / "planted.py"
    planted.write_text(f"{statement}\n")
    try:
        done = lint(rooms)
    finally:
        planted.unlink()
    assert done.returncode == 1, done.stdout
    assert f"{contract} BROKEN" in done.stdout
    assert "1 broken" in done.stdout


def test_our_code_keeps_every_contract():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
