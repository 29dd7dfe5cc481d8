"""Run a function with one line of it altered, to show that a test notices."""

from __future__ import annotations

import inspect
import textwrap
from types import ModuleType
from typing import Any

import pytest


def mutate(monkeypatch: pytest.MonkeyPatch, module: ModuleType, function: str, old: str, new: str) -> None:
    """Replace ``module.function`` by a copy in which ``old``, found exactly once, reads ``new``; no file changes."""
    source = textwrap.dedent(inspect.getsource(getattr(module, function)))
    assert source.count(old) == 1, f"{module.__name__}.{function} holds {old!r} {source.count(old)} times, not once"
    defined: dict[str, Any] = {}
    exec(compile(source.replace(old, new), f"<{function}, altered>", "exec"), vars(module), defined)
    monkeypatch.setattr(module, function, defined[function])
