"""Errors of the transforms room."""

from __future__ import annotations

from features.errors import PermanentError


class GraphError(PermanentError):
    """A graph cannot be fitted, loaded or exported from what was given."""
