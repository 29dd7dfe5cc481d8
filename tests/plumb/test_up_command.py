"""``plumb up`` and ``plumb down`` as an operator meets them before anything runs; with servers: tests/inference/plane."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest


def plumb(workspace: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from plumb.app import main; main()", "--workspace", str(workspace), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "service cannot be read: "),
        ("- a\n", "service cannot be read: "),
        ("a: [", "service cannot be read: "),
        ("kind: Pod\n", "document is of another kind: apiVersion; expected serving.kserve.io/v1beta1; got None"),
    ],
)
def test_a_file_that_holds_no_service_is_refused_in_one_line(tmp_path: Path, text: str | None, expected: str) -> None:
    path = tmp_path / "service.yaml"
    if text is not None:
        path.write_text(text)
    done = plumb(tmp_path / "workspace", "up", "--service", path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"plumb: {expected}")
    assert done.stderr.count("\n") == 1


def test_there_is_nothing_to_stop_where_nothing_runs(tmp_path: Path) -> None:
    done = plumb(tmp_path / "workspace", "down")
    assert (done.returncode, done.stderr) == (0, "plumb: no plane runs on this workspace\n")


def test_a_plane_that_cannot_write_where_it_is_scraped_runs_all_the_same_and_tries_again(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "monitoring").write_text("in the way")
    words = ["--workspace", str(workspace), "up", "--port", "0", "--admin-port", "0", "--no-prometheus"]
    command = [sys.executable, "-c", "from plumb.app import main; main()", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("plumb: plane at ")
        said = [process.stderr.readline() for _ in range(2)]  # the first says that there is no service yet
        assert said[1].startswith("plumb: Prometheus cannot be told where to look: ")
        (workspace / "monitoring").unlink()
        targets = workspace / "monitoring" / "targets"
        deadline = time.monotonic() + 60
        while not list(targets.glob("plane-*.json")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.terminate()
        assert process.wait(60) == 0
    assert list(targets.glob("*.json")) == []
