"""Bookings of two hotels (Antonio, Almeida, Nunes 2019), by the agent who made them.

A booking names no guest, so the agent's history of bookings, cancellations and arrivals is the state, and what the booking
says of itself are request fields. Left out because they are known too late: the status, the room assigned, country and
parking spaces (filled in at check-in), changes and days on the waiting list (counted until the stay).
"""

from __future__ import annotations

from features.declarations import Attribute, Catalog, Elapsed, EventType, Field, Ratio, Signal, View
from features.layout import DAY_S, LIFETIME

WINDOWS_S = (7 * DAY_S, 30 * DAY_S, 90 * DAY_S, 365 * DAY_S, LIFETIME)
TEXTS = ("hotel", "meal", "market_segment", "distribution_channel", "reserved_room_type", "deposit_type", "customer_type")
NUMBERS = {
    "lead_time_days": "days", "weekend_nights": "nights", "week_nights": "nights", "adults": "persons", "children": "persons",
    "babies": "persons", "repeated_guest": "yes or no", "earlier_cancellations": "bookings", "earlier_stays": "bookings",
    "adr_cents": "cents", "special_requests": "requests",
}  # fmt: skip

AGENT = View(
    name="agent",
    version=1,
    entity="agent",
    signals=("bookings", "cancellations", "arrivals", "lead_time", "booking_times", "cancellation_times"),
    request=(
        *(Field(name, "string", default="unknown") for name in TEXTS),
        *(Field(name, "int64", default=0, unit=unit) for name, unit in NUMBERS.items()),
    ),
    elapsed=(
        Elapsed("since_last_booking_s", since="booking_times_last_lifetime"),
        Elapsed("since_last_cancellation_s", since="cancellation_times_last_lifetime"),
    ),
    ratios=tuple(
        Ratio(f"{counted}_a_booking_{window}", f"{counted}_count_{window}", f"bookings_count_{window}")
        for counted in ("cancellations", "arrivals")
        for window in ("90d", "365d", "lifetime")
    ),
    freshness_sla_s=DAY_S,
)

CATALOG = Catalog(
    name="hotel_bookings",
    attributes=(
        Attribute("booking", "string"),
        *(Attribute(name, "string") for name in TEXTS),
        *(Attribute(name, "int64", unit=unit) for name, unit in NUMBERS.items()),
    ),
    event_types=(
        EventType("booking", "agent", ("booking", *TEXTS, *NUMBERS)),
        EventType("cancelled", "agent", ("booking",)),
        EventType("arrived", "agent", ("booking",)),
    ),
    signals=(
        Signal(1, "bookings", "agent", ("booking",), ("count",), WINDOWS_S),
        Signal(2, "cancellations", "agent", ("cancelled",), ("count",), WINDOWS_S),
        Signal(3, "arrivals", "agent", ("arrived",), ("count",), WINDOWS_S),
        Signal(4, "lead_time", "agent", ("booking",), ("sum",), (90 * DAY_S,), value="lead_time_days"),
        Signal(5, "booking_times", "agent", ("booking",), ("last",), (LIFETIME,)),
        Signal(6, "cancellation_times", "agent", ("cancelled",), ("last",), (LIFETIME,)),
    ),
    views=(AGENT,),
    log_partitions=4,
)
