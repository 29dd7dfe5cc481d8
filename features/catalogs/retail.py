"""Orders of a wholesale gift shop (UCI Online Retail II): one event for each invoice and each cancellation."""

from __future__ import annotations

from features.declarations import Attribute, Catalog, Elapsed, EventType, Field, Profile, Ratio, Shrinkage, Signal, View
from features.layout import DAY_S, LIFETIME

WINDOWS_S = (30 * DAY_S, 90 * DAY_S, 180 * DAY_S, 365 * DAY_S, LIFETIME)

CUSTOMER = View(
    name="customer",
    version=1,
    entity="customer",
    signals=("orders", "order_value", "order_items", "order_lines", "cancellations", "order_times"),
    profiles=("address",),
    elapsed=(
        Elapsed("since_last_order_s", since="order_times_last_lifetime"),
        Elapsed("since_first_order_s", since="order_times_first_lifetime"),
        Elapsed("active_span_s", since="order_times_first_lifetime", until="order_times_last_lifetime"),
    ),
    ratios=(
        Ratio("mean_order_value_cents", "order_value_sum_lifetime", "orders_count_lifetime", Shrinkage(2, by="country")),
        Ratio("mean_gap_s", "active_span_s", "orders_count_lifetime", Shrinkage(2)),
        Ratio("recency_in_gaps", "since_last_order_s", "mean_gap_s"),
    ),
    bucketed=("since_last_order_s", "since_first_order_s"),
    lag_s=3_600,
    freshness_sla_s=DAY_S,
)

CATALOG = Catalog(
    name="retail",
    attributes=(
        Attribute("amount_cents", "int64", unit="cents"),
        Attribute("items", "int64", unit="items"),
        Attribute("lines", "int64", unit="lines"),
    ),
    event_types=(
        EventType("order", "customer", ("amount_cents", "items", "lines")),
        EventType("cancellation", "customer", ("amount_cents", "items", "lines")),
    ),
    signals=(
        Signal(1, "orders", "customer", ("order",), ("count",), WINDOWS_S),
        Signal(2, "order_value", "customer", ("order",), ("sum", "max"), WINDOWS_S, value="amount_cents"),
        Signal(3, "order_items", "customer", ("order",), ("sum",), (90 * DAY_S, LIFETIME), value="items"),
        Signal(4, "order_lines", "customer", ("order",), ("sum",), (90 * DAY_S, LIFETIME), value="lines"),
        Signal(
            5, "cancellations", "customer", ("cancellation",), ("count", "sum"), (90 * DAY_S, LIFETIME), value="amount_cents"
        ),
        Signal(6, "order_times", "customer", ("order",), ("last", "first"), (LIFETIME,)),
    ),
    profiles=(Profile("address", "customer", (Field("country", "string", default="unknown"),)),),
    views=(CUSTOMER,),
    regions=("eu",),
    log_partitions=4,
)
