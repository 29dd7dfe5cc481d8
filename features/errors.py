"""Errors of the feature contract.

Every message is one line: what is wrong, which thing, what was expected, what was found, what to do next. The command
line prints that line and exits non-zero; the server turns it into a 4xx or 5xx reply.
"""

from __future__ import annotations


class PlumblineError(Exception):
    """Base of every error that Plumbline raises on purpose; its text is one line fit for an operator."""


class PermanentError(PlumblineError):
    """Trying again cannot help: the input, the declaration or the stored bytes are wrong."""


class TemporaryError(PlumblineError):
    """Trying again may help: a store is busy, locked or down."""


class DeclarationError(PermanentError):
    """A signal, event type, profile or view is declared inconsistently, or is not declared at all."""


class MappingError(PermanentError):
    """A mapping file does not fit the catalog or the file it maps."""


class EventLogError(PermanentError):
    """The event log cannot be read or appended to as asked."""


class StateError(PermanentError):
    """State bytes are truncated, unsorted, or of another format version."""


class StoreError(PermanentError):
    """An online store's files are of another version, corrupted, or belong to another view."""


class ControlDatabaseError(PermanentError):
    """The control database cannot be read, or its tables are of a newer release."""


class StoreMissing(StoreError):
    """Nothing was ever written under an online store's address and view."""


class StoreUnavailable(TemporaryError):
    """An online store did not answer in time."""


def explain(what: str, *, which: str, expected: str, got: str, next_step: str) -> str:
    """Put an error's five parts into one line, in the order that every Plumbline message uses.

    Example:
        >>> explain("unknown event type", which="'ordr'", expected="order", got="'ordr'", next_step="declare it")
        "unknown event type: 'ordr'; expected order; got 'ordr'; next: declare it"
    """
    line = f"{what}: {which}; expected {expected}; got {got}; next: {next_step}"
    return " ".join(line.split())
