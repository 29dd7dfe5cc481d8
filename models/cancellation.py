"""Cancellation: which booking will be cancelled before the guest arrives."""

from __future__ import annotations

from typing import Final

from features.layout import DAY_S
from models.specs import Attribution, Closing, CutoffPlan, LabelSpec, Learning, ModelSpec, Population

HORIZON_S: Final = 180 * DAY_S

CANCELLATION: Final = ModelSpec(
    name="cancellation",
    title="booking is cancelled within 180 days",
    catalog="hotel_bookings",
    view="agent",
    # Arrival ends the time in which a booking can be cancelled.
    label=LabelSpec(
        outcome=("cancelled",),
        horizon_s=HORIZON_S,
        positive="occurs",
        label_delay_s=DAY_S,
        attribution=Attribution(touches=("booking",), window_s=HORIZON_S, match="booking"),
        closing=Closing(("arrived",), match="booking"),
    ),
    population=Population(entered_by=("booking",)),
    cutoffs=CutoffPlan(every_s=30 * DAY_S, rows_at_most=60_000, at_events=("booking",)),
    recency="lead_time_days",
    activity="bookings_count_lifetime",
    # Half of all cancellations come within 26 days of the booking, a tenth after 160.
    learning=Learning(method="hazard", delay_buckets_s=tuple(days * DAY_S for days in (1, 3, 7, 14, 30, 60, 90, 120, 180))),
)

SPECS: Final = (CANCELLATION,)
