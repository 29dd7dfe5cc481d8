"""Errors of the simulator."""

from __future__ import annotations

from features.errors import PermanentError


class SimulationError(PermanentError):
    """The simulation cannot be played as asked."""
