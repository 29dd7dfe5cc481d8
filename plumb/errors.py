"""Errors of the command line itself."""

from __future__ import annotations

from features.errors import PermanentError


class SettingsError(PermanentError):
    """An environment variable of ours is unknown or unusable."""


class CommandError(PermanentError):
    """A command was asked for something that does not exist here: a model, a run, a file."""
