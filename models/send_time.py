"""Send time: at which hour of the week a user opens or acts, as a distribution over the week's hours."""

from __future__ import annotations

from typing import Final

from features.layout import DAY_S
from models.returning import ACTIONS
from models.slot_spec import SlotSpec
from models.specs import CutoffPlan, Gate, LabelSpec, ModelSpec, Population, Slice

BASELINES: Final = ("uniform", "global_histogram", "user_histogram", "last_hour")

GATE: Final = Gate(
    metric="nll",
    must_beat=("uniform",),
    must_match=("global_histogram", "user_histogram"),
    margin=0.0,
    slice_reference="global_histogram",
    slice_margin=0.02,
)
"""At least as good as the better histogram: of an action's hour, in nats."""

SEND_TIME: Final = ModelSpec(
    name="send_time",
    title="hour of the week at which a subscriber opens messages",
    catalog="subscription",
    view="responder",
    # 3 % of the events come up to two days late.
    label=LabelSpec(outcome=("message_opened",), horizon_s=28 * DAY_S, positive="occurs", label_delay_s=2 * DAY_S),
    population=Population(entered_by=("signup",), left_by=("cancellation",)),
    cutoffs=CutoffPlan(every_s=14 * DAY_S, warm_up_s=28 * DAY_S, rows_at_most=40_000),
    recency="since_last_open_s",
    activity="opens_count_lifetime",
    slots=SlotSpec(acts="opens_by_local_hour", sends="sends_by_local_hour", segment="country"),
    baselines=BASELINES,
    gate=GATE,
    slices=(
        Slice("fewer than 5 opens", "opens_count_lifetime", 0, 4),
        Slice("west of UTC", "utc_offset_minutes", -720, -1),
        Slice("UTC and east of it", "utc_offset_minutes", 0, 840),
    ),
)

ACTIVE_HOURS: Final = ModelSpec(
    name="active_hours",
    title="hour of the week (UTC) at which a contributor acts",
    catalog="mathoverflow",
    view="activity",
    label=LabelSpec(outcome=ACTIONS, horizon_s=30 * DAY_S, positive="occurs", label_delay_s=DAY_S),
    population=Population(entered_by=ACTIONS, active_within_s=180 * DAY_S),
    cutoffs=CutoffPlan(every_s=30 * DAY_S, rows_at_most=60_000),
    recency="since_last_action_s",
    activity="actions_count_lifetime",
    # Nobody is sent anything: a contributor may act at any hour.
    slots=SlotSpec(acts="actions_by_hour"),
    baselines=BASELINES,
    gate=GATE,
    slices=(Slice("fewer than 5 actions", "actions_count_lifetime", 0, 4),),
)

SPECS: Final = (SEND_TIME, ACTIVE_HOURS)
