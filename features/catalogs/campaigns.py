"""A shop's users, what they buy, the campaigns that they are sent and take up, and the campaigns' own log.

A campaign is an entity, too: ingest writes a delivery to the user's log and to the campaign's, and each keeps its own tiles.
A user is scored for a campaign by its content and by what its own state says at that moment.
"""

from __future__ import annotations

from typing import Final

from features.declarations import Attribute, By, Catalog, Elapsed, EventType, Field, Profile, Ratio, Signal, View
from features.joins import Join
from features.layout import DAY_S, HOUR_S, LIFETIME

HISTORY: Final = ("deliveries_count_7d", "deliveries_count_lifetime", "responses_count_7d", "responses_count_lifetime")
CATEGORIES: Final = ("grocery", "home", "produce", "meat", "health", "beauty")

SHOPPER: Final = View(
    name="shopper",
    version=2,
    entity="user",
    signals=(
        "purchases", "purchase_value", "purchases_by_category", "campaigns_received", "campaigns_taken", "taken_by_category",
        "savings", "purchase_times", "taken_times",
    ),
    profiles=("household",),
    request=(
        Field("category", "string", default="unknown", vocabulary_size=6),
        Field("offer", "string", default="unknown", vocabulary_size=6),
        Field("channel", "string", default="unknown", vocabulary_size=3),
        Field("discount_percent", "int64", default=0, unit="percent"),
        Field("duration_days", "int64", default=0, unit="days"),
        Field("products", "int64", default=0, unit="products"),
        *(Field(name, "int64", default=0, unit="events") for name in HISTORY),
    ),
    joins=(Join("campaign", key="campaign", fields=HISTORY),),
    elapsed=(
        Elapsed("since_last_purchase_s", since="purchase_times_last_lifetime"),
        Elapsed("since_last_taken_s", since="taken_times_last_lifetime"),
    ),
    ratios=(
        Ratio("taken_share", "campaigns_taken_count_lifetime", "campaigns_received_count_lifetime"),
        Ratio("purchase_value_cents", "purchase_value_sum_lifetime", "purchases_count_lifetime"),
    ),
    lag_s=60,
    freshness_sla_s=HOUR_S,
)  # fmt: skip

CAMPAIGN: Final = View(name="campaign", version=1, entity="campaign", signals=("deliveries", "responses"), lag_s=60)
"""A campaign's history, joined into the request by the campaign's id."""

CATALOG = Catalog(
    name="campaigns",
    attributes=(
        Attribute("campaign", "string"),
        Attribute("category", "string"),
        Attribute("offer", "string"),
        Attribute("channel", "string"),
        Attribute("discount_percent", "int64", unit="percent"),
        Attribute("duration_days", "int64", unit="days"),
        Attribute("products", "int64", unit="products"),
        Attribute("amount_cents", "int64", unit="cents"),
        Attribute("saved_cents", "int64", unit="cents"),
    ),
    event_types=(
        EventType("purchase", "user", ("category", "amount_cents", "saved_cents")),
        EventType("campaign_sent", "user",
                  ("campaign", "category", "offer", "channel", "discount_percent", "duration_days", "products")),
        EventType("campaign_taken", "user", ("campaign", "category")),
        EventType("delivery", "campaign"),
        EventType("response", "campaign"),
    ),
    signals=(
        Signal(1, "purchases", "user", ("purchase",), ("count",), (HOUR_S, DAY_S, 7 * DAY_S, 30 * DAY_S, 90 * DAY_S, LIFETIME)),
        Signal(2, "purchase_value", "user", ("purchase",), ("sum",), (30 * DAY_S, LIFETIME), value="amount_cents"),
        Signal(3, "purchases_by_category", "user", ("purchase",), ("count",), (7 * DAY_S, 90 * DAY_S, LIFETIME),
               by=By("category", CATEGORIES)),
        Signal(4, "campaigns_received", "user", ("campaign_sent",), ("count",), (7 * DAY_S, 30 * DAY_S, LIFETIME)),
        Signal(5, "campaigns_taken", "user", ("campaign_taken",), ("count",), (30 * DAY_S, 90 * DAY_S, LIFETIME)),
        Signal(6, "taken_by_category", "user", ("campaign_taken",), ("count",), (LIFETIME,), by=By("category", CATEGORIES)),
        Signal(7, "savings", "user", ("purchase",), ("sum",), (90 * DAY_S, LIFETIME), value="saved_cents"),
        Signal(8, "purchase_times", "user", ("purchase",), ("last",), (LIFETIME,)),
        Signal(9, "taken_times", "user", ("campaign_taken",), ("last",), (LIFETIME,)),
        Signal(1, "deliveries", "campaign", ("delivery",), ("count",), (7 * DAY_S, LIFETIME)),
        Signal(2, "responses", "campaign", ("response",), ("count",), (7 * DAY_S, LIFETIME)),
    ),
    profiles=(
        Profile("household", "user",
                (Field("age", "string", default="unknown"), Field("income", "string", default="unknown"),
                 Field("household_size", "string", default="unknown"))),
        # In no view: what somebody permits is for the policy to ask, not for a model to learn from.
        Profile("permissions", "user", (Field("consent", "string", default=""),)),
    ),
    views=(SHOPPER, CAMPAIGN),
    log_partitions=4,
)  # fmt: skip
