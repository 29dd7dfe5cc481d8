"""Files and functions stay small enough to be read in one go; blank lines and docstrings count."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("features", "transforms", "models", "inference", "monitoring", "components", "pipelines", "simulation", "plumb")
MOST_FILE_LINES = 350
MOST_FUNCTION_LINES = 60


def find_oversized(source: str, name: str) -> list[str]:
    """One line for each thing in a module that is too long."""
    lines = source.count("\n")
    found = [f"{name}: {lines} lines; at most {MOST_FILE_LINES}"] if lines > MOST_FILE_LINES else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            if length > MOST_FUNCTION_LINES:
                found.append(f"{name}:{node.lineno} {node.name}: {length} lines; at most {MOST_FUNCTION_LINES}")
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_no_file_or_function_of_a_room_is_too_long(room):
    paths = sorted((ROOT / room).rglob("*.py"))
    assert paths, f"{room} holds no module"
    found = [line for path in paths for line in find_oversized(path.read_text(), str(path.relative_to(ROOT)))]
    assert not found, "\n" + "\n".join(found)


def test_a_long_file_and_a_long_function_are_found():
    body = "    x = 1\n" * MOST_FUNCTION_LINES
    assert find_oversized(f"def grow():\n{body}", "a.py") == ["a.py:1 grow: 61 lines; at most 60"]
    assert find_oversized("\n" * 351, "b.py") == ["b.py: 351 lines; at most 350"]
    assert find_oversized("\n" * 350, "c.py") == []
