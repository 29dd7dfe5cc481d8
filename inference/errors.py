"""Errors of the serving room."""

from __future__ import annotations

from features.errors import PermanentError, explain


class RequestError(PermanentError):
    """A request cannot be answered as it stands; the caller gets this line with status 400 or INVALID_ARGUMENT."""


class ArtifactError(PermanentError):
    """A model folder is incomplete, or was made from declarations that this process does not have."""


class ServerError(PermanentError):
    """The server cannot start: an address is taken, or the model does not answer."""


def bad_request(what: str, *, which: str, expected: str, got: str) -> RequestError:
    """A ``RequestError`` whose next step is always the same: the caller must change the request."""
    return RequestError(explain(what, which=which, expected=expected, got=got, next_step="correct the request"))
