"""Does harm last? Wins and losses of the canary over short spans of requests.

A process stops for a second now and then, whatever it serves, and then all its users are slow at once. To users that is
harm, but the same may happen to stable a minute later. So slowness and degraded answers must also persist: span by span
of 20 canary requests, the canary is the worse one if it had at least one event more than stable's share in that span
explains. Between equal revisions that happens in fewer than half of the spans, so that betting on it at even odds is a
supermartingale, ``sequential`` (1) again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from monitoring.rollout.observations import CANARY

SPAN: Final = 20
"""Canary requests in a span, with those of stable that came between."""
CONVICTIONS: Final = np.array([0.6, 0.75, 0.9, 0.98])
"""Chances of a worse span that the bets assume; the fair one is 1/2."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Spans:
    """``open`` (2 arms, 1 + events): requests and events of the span that is not full; ``worse`` and ``spans``
    (events,): spans in which the canary was worse, and full spans with requests of both."""

    open: Ints
    worse: Ints
    spans: Ints


def open_spans(events: int) -> Spans:
    """No request yet."""
    return Spans(np.zeros((2, 1 + events), np.int64), np.zeros(events, np.int64), np.zeros(events, np.int64))


def fold_spans(spans: Spans, arm: npt.NDArray[np.int8], happened: npt.NDArray[np.bool_]) -> Spans:
    """Spans with more requests, in order: arm (n,), whether each event happened to each (n, events)."""
    on_canary = arm == CANARY
    before = spans.open[CANARY, 0] + np.cumsum(on_canary) - on_canary
    span = before // SPAN
    columns = np.concatenate([np.ones((len(arm), 1), np.int64), happened.astype(np.int64)], axis=1)
    full = int((spans.open[CANARY, 0] + on_canary.sum()) // SPAN)
    sums = np.zeros((full + 1, 2, columns.shape[1]), np.int64)
    np.add.at(sums, (span, arm.astype(np.int64)), columns)
    sums[0] += spans.open
    closed = sums[:full]
    closed = closed[closed[:, 0, 0] > 0]
    expected = closed[:, 0, 1:] / np.maximum(closed[:, 0, :1], 1) * closed[:, 1, :1]
    worse = closed[:, 1, 1:] >= expected + 1
    return Spans(sums[full], spans.worse + worse.sum(axis=0), spans.spans + len(closed))


def log_wealth_spans(spans: Spans, event: int) -> float:
    """Log wealth of the bet that the canary is worse in more than half of the spans, a mean over ``CONVICTIONS``."""
    worse, better = int(spans.worse[event]), int(spans.spans[event] - spans.worse[event])
    wealth = worse * np.log(2 * CONVICTIONS) + better * np.log(2 * (1 - CONVICTIONS))
    return float(np.logaddexp.reduce(wealth) - np.log(len(CONVICTIONS)))
