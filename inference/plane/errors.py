"""Errors of the local data plane."""

from __future__ import annotations

from features.errors import PermanentError, TemporaryError


class DocumentError(PermanentError):
    """An InferenceService is not one that this plane can run; the admin API answers 422 with this line."""


class ConflictError(PermanentError):
    """A document has changed since the caller read it; the admin API answers 409 with this line."""


class NotRecorded(TemporaryError):
    """A document could not be written, and nothing was changed; the admin API answers 507 with this line."""


class PatchError(PermanentError):
    """A JSON patch cannot be read or applied; the admin API answers 422 with this line."""


class PlaneError(PermanentError):
    """The plane cannot start: another one runs on this workspace, a port is taken, or it has nothing to serve."""
