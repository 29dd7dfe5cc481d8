"""Propensity: who will take a higher plan."""

from __future__ import annotations

from typing import Final

from features.layout import DAY_S
from models.specs import CutoffPlan, LabelSpec, ModelSpec, Population

PROPENSITY: Final = ModelSpec(
    name="propensity",
    title="subscriber upgrades within 30 days",
    catalog="subscription",
    view="subscriber",
    label=LabelSpec(outcome=("upgrade",), horizon_s=30 * DAY_S, positive="occurs", label_delay_s=14 * DAY_S),
    # A population is told by events, not by what they carry, so subscribers on the highest plan are in it; they never upgrade,
    # and their plan, which the view holds, says so.
    population=Population(entered_by=("signup",), left_by=("cancellation",)),
    cutoffs=CutoffPlan(every_s=7 * DAY_S, warm_up_s=28 * DAY_S, rows_at_most=60_000),
    recency="since_last_click_s",
    activity="sessions_count_30d",
)

SPECS: Final = (PROPENSITY,)
