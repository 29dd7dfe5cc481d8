"""Errors of compiling and running pipelines."""

from __future__ import annotations

from features.errors import PermanentError, TemporaryError


class PipelineError(PermanentError):
    """A compiled pipeline is missing, invalid or not up to date with the code."""


class StepFailed(PermanentError):
    """A step of a run ended with an error; the line names the step and its last error line."""


class RunNotFound(PermanentError):
    """There is no record of this run, or its file cannot be read."""


class SubmissionError(PermanentError):
    """A cluster refuses what was submitted, or already has something else of that name."""


class ClusterUnavailable(TemporaryError):
    """A cluster does not answer, or has an error of its own."""
