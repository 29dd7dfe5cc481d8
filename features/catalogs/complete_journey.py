"""Households of a grocer (84.51 "Complete Journey"): coupon campaigns they receive, coupons they redeem, baskets they buy."""

from __future__ import annotations

from features.declarations import Attribute, By, Catalog, Elapsed, EventType, Field, Profile, Ratio, Signal, View
from features.layout import DAY_S, LIFETIME

CAMPAIGN_TYPES = ("Type A", "Type B", "Type C")
WINDOWS_S = (30 * DAY_S, 90 * DAY_S, LIFETIME)

HOUSEHOLD = View(
    name="household",
    version=1,
    entity="household",
    signals=(
        "campaigns", "campaigns_by_type", "redemptions", "coupons", "redemptions_by_type", "baskets", "basket_value",
        "coupon_savings", "campaign_times", "redemption_times", "basket_times",
    ),
    profiles=("demographics",),
    request=(
        Field("campaign_type", "string", default="unknown", vocabulary_size=3),
        Field("duration_days", "int64", default=32, unit="days"),
    ),
    elapsed=(
        Elapsed("since_last_campaign_s", since="campaign_times_last_lifetime"),
        Elapsed("since_last_redemption_s", since="redemption_times_last_lifetime"),
        Elapsed("since_last_basket_s", since="basket_times_last_lifetime"),
    ),
    ratios=(
        Ratio("redemptions_a_campaign", "redemptions_count_lifetime", "campaigns_count_lifetime"),
        Ratio("basket_value_cents", "basket_value_sum_lifetime", "baskets_count_lifetime"),
    ),
    lag_s=60,
    freshness_sla_s=DAY_S,
)  # fmt: skip

CATALOG = Catalog(
    name="complete_journey",
    attributes=(
        Attribute("campaign", "string"),
        Attribute("campaign_type", "string"),
        Attribute("duration_days", "int64", unit="days"),
        Attribute("coupons", "int64", unit="coupons"),
        Attribute("amount_cents", "int64", unit="cents"),
        Attribute("saved_cents", "int64", unit="cents"),
        Attribute("lines", "int64", unit="lines"),
    ),
    event_types=(
        EventType("campaign_received", "household", ("campaign", "campaign_type", "duration_days")),
        EventType("coupon_redeemed", "household", ("campaign", "campaign_type", "coupons")),
        EventType("basket", "household", ("amount_cents", "saved_cents", "lines")),
    ),
    signals=(
        Signal(1, "campaigns", "household", ("campaign_received",), ("count",), WINDOWS_S),
        Signal(2, "campaigns_by_type", "household", ("campaign_received",), ("count",), (LIFETIME,),
               by=By("campaign_type", CAMPAIGN_TYPES)),
        Signal(3, "redemptions", "household", ("coupon_redeemed",), ("count",), WINDOWS_S),
        Signal(4, "coupons", "household", ("coupon_redeemed",), ("sum",), WINDOWS_S, value="coupons"),
        Signal(5, "redemptions_by_type", "household", ("coupon_redeemed",), ("count",), (LIFETIME,),
               by=By("campaign_type", CAMPAIGN_TYPES)),
        Signal(6, "baskets", "household", ("basket",), ("count",), WINDOWS_S),
        Signal(7, "basket_value", "household", ("basket",), ("sum",), WINDOWS_S, value="amount_cents"),
        Signal(8, "coupon_savings", "household", ("basket",), ("sum",), (90 * DAY_S, LIFETIME), value="saved_cents"),
        Signal(9, "campaign_times", "household", ("campaign_received",), ("last",), (LIFETIME,)),
        Signal(10, "redemption_times", "household", ("coupon_redeemed",), ("last",), (LIFETIME,)),
        Signal(11, "basket_times", "household", ("basket",), ("last",), (LIFETIME,)),
    ),
    profiles=(
        Profile(
            "demographics",
            "household",
            (
                Field("age", "string", default="unknown"),
                Field("income", "string", default="unknown"),
                Field("home_ownership", "string", default="unknown"),
                Field("marital_status", "string", default="unknown"),
                Field("household_size", "string", default="unknown"),
                Field("kids_count", "string", default="unknown"),
            ),
        ),
    ),
    views=(HOUSEHOLD,),
    log_partitions=4,
)  # fmt: skip
