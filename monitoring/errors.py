"""Errors of the monitoring room."""

from __future__ import annotations

from features.errors import PermanentError, TemporaryError


class RolloutError(PermanentError):
    """A rollout does not exist, or may not be changed as asked."""


class TrafficError(PermanentError):
    """A data plane cannot do what was asked: no such service or revision, or it refuses the document."""


class TrafficUnavailable(TemporaryError):
    """A data plane does not answer."""


class TrafficChanged(TemporaryError):
    """A data plane's weights have been changed since they were read; nothing was done."""


class LeaseLost(TemporaryError):
    """Another controller has taken over; this one may record nothing more."""


class PlanError(PermanentError):
    """A rollout plan contradicts itself or is not one."""


class ObservationError(PermanentError):
    """Columns of one tick of observations do not fit together."""


class SkewError(PermanentError):
    """There is nothing to audit, or what was served cannot be compared."""


class VerdictError(PermanentError):
    """A verdict cannot be recorded, or the database of verdicts cannot be used."""


class ForwardingError(PermanentError):
    """Events cannot be sent on to such an address."""


class RetrainingError(PermanentError):
    """The database of retrainings cannot be used."""


class DriftError(PermanentError):
    """Drift settings, a reference or a sample are not what they must be."""


class MonitorError(PermanentError):
    """Settings or rows of a monitor are not what they must be."""


class UnreadableBody(PermanentError):
    """The body of a request or reply is neither V1 nor V2."""


class SkewFound(PermanentError):
    """Served rows are not what the batch path makes of the same events."""


class AlertError(PermanentError):
    """There is no such alert, or it cannot be acknowledged or silenced as asked."""


class AlertmanagerUnavailable(TemporaryError):
    """Alertmanager does not answer."""
