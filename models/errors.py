"""Errors of the models room; all are permanent: the spec, the rows or the request must change."""

from __future__ import annotations

from features.errors import PermanentError


class SpecError(PermanentError):
    """A model spec does not exist or contradicts itself."""


class TrainingError(PermanentError):
    """Rows are too few, of one class, or lack a column that training needs."""


class EvaluationError(PermanentError):
    """An evaluation cannot be made or read."""


class VersionError(PermanentError):
    """A model version does not exist, or may not be used as asked."""
