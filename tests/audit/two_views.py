"""The subscription catalog with a second view, which a run adds while its stream is live."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from features.catalogs import subscription
from features.declarations import Elapsed, Field, View

ENGAGEMENT: Final = View(
    name="engagement",
    version=1,
    entity="user",
    signals=("sessions", "offers_shown", "messages_sent", "messages_opened", "opens_by_hour", "session_times"),
    profiles=("account",),
    request=(Field("platform", "string", default="unknown"),),
    elapsed=(Elapsed("since_last_session_s", since="session_times_last_lifetime"),),
)
CATALOG: Final = replace(subscription.CATALOG, name="audit.two_views", views=(subscription.SUBSCRIBER, ENGAGEMENT))
