"""Activity on a question-and-answer site (SNAP sx-mathoverflow): who answered or commented, and who received it."""

from __future__ import annotations

from features.declarations import HOUR_OF_WEEK, By, Catalog, Elapsed, EventType, Ratio, Signal, View
from features.layout import DAY_S, HOUR_S, LIFETIME

ACTIONS = ("answer_to_question", "comment_to_question", "comment_to_answer")
WINDOWS_S = (DAY_S, 7 * DAY_S, 30 * DAY_S, 90 * DAY_S, 365 * DAY_S, LIFETIME)

CONTRIBUTOR = View(
    name="contributor",
    version=1,
    entity="user",
    signals=("actions", "answers", "comments", "received", "action_times", "received_times"),
    elapsed=(
        Elapsed("since_last_action_s", since="action_times_last_lifetime"),
        Elapsed("since_first_action_s", since="action_times_first_lifetime"),
        Elapsed("since_last_received_s", since="received_times_last_lifetime"),
    ),
    ratios=(Ratio("action_share_7d_of_30d", "actions_count_7d", "actions_count_30d"),),
    lag_s=HOUR_S,
    freshness_sla_s=DAY_S,
)

ACTIVITY = View(
    name="activity",
    version=1,
    entity="user",
    signals=("actions_by_hour", "actions", "action_times"),
    elapsed=(Elapsed("since_last_action_s", since="action_times_last_lifetime"),),
    counted=("actions_by_hour",),
    time_zone="UTC",  # the site does not say where its users are
    lag_s=HOUR_S,
    freshness_sla_s=DAY_S,
)

CATALOG = Catalog(
    name="mathoverflow",
    attributes=(),
    event_types=(*(EventType(name, "user") for name in ACTIONS), *(EventType(f"received_{name}", "user") for name in ACTIONS)),
    signals=(
        Signal(1, "actions", "user", ACTIONS, ("count",), WINDOWS_S),
        Signal(2, "answers", "user", ACTIONS[:1], ("count",), WINDOWS_S),
        Signal(3, "comments", "user", ACTIONS[1:], ("count",), WINDOWS_S),
        Signal(4, "received", "user", tuple(f"received_{name}" for name in ACTIONS), ("count",), WINDOWS_S),
        Signal(5, "actions_by_hour", "user", ACTIONS, ("count",), (LIFETIME,), by=By(HOUR_OF_WEEK)),
        Signal(6, "action_times", "user", ACTIONS, ("last", "first"), (LIFETIME,)),
        Signal(7, "received_times", "user", tuple(f"received_{name}" for name in ACTIONS), ("last",), (LIFETIME,)),
    ),
    views=(CONTRIBUTOR, ACTIVITY),
    log_partitions=4,
)
