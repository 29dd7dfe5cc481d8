"""The subscription app that ``plumb events simulate`` plays: its events, signals and the subscriber view."""

from __future__ import annotations

from typing import Final

from features.declarations import (
    HOUR_OF_WEEK,
    Attribute,
    By,
    Catalog,
    Condition,
    Elapsed,
    EventType,
    Field,
    Profile,
    Ratio,
    Shrinkage,
    Signal,
    View,
)  # fmt: skip
from features.layout import DAY_S, HOUR_S, LIFETIME, MINUTE_S

CHANNELS: Final = ("email", "push", "in_app")
PLANS: Final = ("free", "basic", "pro")
LOCAL_HOUR: Final = By(HOUR_OF_WEEK, offset="utc_offset_minutes")

ATTRIBUTES = (
    Attribute("duration_ms", "int64", unit="ms"),
    Attribute("amount_cents", "int64", unit="cents"),
    Attribute("channel", "string"),
    Attribute("platform", "string"),
    Attribute("plan", "string"),
    Attribute("offer_id", "string"),
    Attribute("utc_offset_minutes", "int64", unit="minutes"),
)

EVENT_TYPES = (
    EventType("signup", "user", ("plan", "platform")),
    EventType("session", "user", ("duration_ms", "platform")),
    EventType("offer_shown", "user", ("offer_id", "channel")),
    EventType("offer_clicked", "user", ("offer_id", "channel")),
    EventType("message_sent", "user", ("channel", "utc_offset_minutes")),
    EventType("message_opened", "user", ("channel", "utc_offset_minutes")),
    EventType("upgrade", "user", ("plan", "amount_cents")),
    EventType("payment", "user", ("amount_cents",)),
    EventType("refund", "user", ("amount_cents",)),
    EventType("cancellation", "user", ("plan",)),
)

SIGNALS = (
    Signal(1, "sessions", "user", ("session",), ("count",),
           (10 * MINUTE_S, HOUR_S, 6 * HOUR_S, DAY_S, 7 * DAY_S, 14 * DAY_S, 30 * DAY_S, LIFETIME)),
    Signal(2, "session_time", "user", ("session",), ("sum", "max"), (DAY_S, 7 * DAY_S, 30 * DAY_S), value="duration_ms"),
    Signal(3, "offers_shown", "user", ("offer_shown",), ("count",), (HOUR_S, DAY_S, 7 * DAY_S, 30 * DAY_S)),
    Signal(4, "offers_clicked", "user", ("offer_clicked",), ("count",), (DAY_S, 7 * DAY_S, 30 * DAY_S)),
    Signal(5, "messages_sent", "user", ("message_sent",), ("count",), (7 * DAY_S, 30 * DAY_S),
           by=By("channel", CHANNELS)),
    Signal(6, "messages_opened", "user", ("message_opened",), ("count",), (7 * DAY_S, 30 * DAY_S),
           by=By("channel", CHANNELS)),
    Signal(7, "opens_by_hour", "user", ("message_opened",), ("count",), (LIFETIME,), by=By(HOUR_OF_WEEK)),
    Signal(8, "revenue", "user", ("payment", "upgrade", "refund"), ("count", "sum"), (30 * DAY_S, 90 * DAY_S, LIFETIME),
           value="amount_cents"),
    Signal(9, "refunds", "user", ("refund",), ("count", "sum"), (90 * DAY_S,), value="amount_cents"),
    Signal(10, "signups", "user", ("signup",), ("first",), (LIFETIME,)),
    Signal(11, "upgrades", "user", ("upgrade",), ("count", "last"), (LIFETIME,)),
    Signal(12, "cancellations", "user", ("cancellation",), ("count", "last"), (LIFETIME,)),
    Signal(13, "mobile_sessions", "user", ("session",), ("count",), (7 * DAY_S, 30 * DAY_S),
           where=(Condition("platform", ("ios", "android")),)),
    Signal(14, "session_times", "user", ("session",), ("last",), (LIFETIME,)),
    Signal(15, "click_times", "user", ("offer_clicked",), ("last",), (30 * DAY_S,)),
    Signal(16, "opens_by_local_hour", "user", ("message_opened",), ("count",), (LIFETIME,), by=LOCAL_HOUR),
    Signal(17, "sends_by_local_hour", "user", ("message_sent",), ("count",), (LIFETIME,), by=LOCAL_HOUR),
    Signal(18, "opens", "user", ("message_opened",), ("count", "last"), (LIFETIME,)),
)  # fmt: skip

ACCOUNT = Profile(
    "account",
    "user",
    (Field("plan", "string", default="unknown"), Field("country", "string", default="unknown"),
     Field("utc_offset_minutes", "int64", default=0, unit="minutes")),
)  # fmt: skip

WHEREABOUTS = Profile("whereabouts", "user", (Field("time_zone", "string", default="UTC"),))

SUBSCRIBER = View(
    name="subscriber",
    version=1,
    entity="user",
    signals=tuple(signal.name for signal in SIGNALS if signal.id not in (7, 16, 17, 18)),
    profiles=("account",),
    request=(Field("platform", "string", default="unknown"),),
    elapsed=(
        Elapsed("since_last_session_s", since="session_times_last_lifetime"),
        Elapsed("since_signup_s", since="signups_first_lifetime"),
        Elapsed("since_last_click_s", since="click_times_last_30d"),
    ),
    ratios=(
        Ratio("session_share_7d_of_30d", "sessions_count_7d", "sessions_count_30d"),
        Ratio("offer_click_rate_30d", "offers_clicked_count_30d", "offers_shown_count_30d", Shrinkage(20, by="country")),
        Ratio("mobile_share_30d", "mobile_sessions_count_30d", "sessions_count_30d", Shrinkage(5, by="platform")),
    ),
    bucketed=("since_last_session_s", "since_signup_s"),
    utc_offset="utc_offset_minutes",
)

RESPONDER = View(
    name="responder",
    version=1,
    entity="user",
    signals=("opens_by_local_hour", "sends_by_local_hour", "opens"),
    profiles=("account", "whereabouts"),
    elapsed=(Elapsed("since_last_open_s", since="opens_last_lifetime"),),
    counted=("opens_by_local_hour", "sends_by_local_hour"),
    time_zone="time_zone",
)

CATALOG = Catalog(
    name="subscription",
    attributes=ATTRIBUTES,
    event_types=EVENT_TYPES,
    signals=SIGNALS,
    profiles=(ACCOUNT, WHEREABOUTS),
    views=(SUBSCRIBER, RESPONDER),
    regions=("eu", "us"),
)
