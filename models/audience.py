"""Audience: who of those that a campaign is sent to will take it up."""

from __future__ import annotations

from typing import Final

from features.layout import DAY_S
from models.specs import Attribution, CutoffPlan, Gate, LabelSpec, ModelSpec, NetworkSpec, Population

HORIZON_S: Final = 28 * DAY_S

AUDIENCE: Final = ModelSpec(
    name="audience",
    title="user takes up this campaign within 28 days",
    catalog="campaigns",
    view="shopper",
    label=LabelSpec(
        outcome=("campaign_taken",),
        horizon_s=HORIZON_S,
        positive="occurs",
        label_delay_s=DAY_S,
        attribution=Attribution(touches=("campaign_sent",), window_s=HORIZON_S, match="campaign"),
    ),
    population=Population(entered_by=("campaign_sent",)),
    # Campaigns differ more than users do: early stopping and calibration go by the newest of them.
    cutoffs=CutoffPlan(every_s=60 * DAY_S, warm_up_s=0, at_events=("campaign_sent",), hold_out="newest"),
    recency="since_last_purchase_s",
    activity="purchases_count_lifetime",
    network=NetworkSpec(
        hidden=(32,),
        vector=8,
        members=4,
        dropout=0.1,
        weight_decay=1e-3,
        learning_rate=3e-3,
        epochs=60,
        patience=8,
        batch_size=256,
    ),
    baselines=("prior", "popularity", "recency", "logistic", "lightgbm"),
    # Which campaigns a test holds moves its level, so ranking decides; the level is calibrated on the newest campaigns known.
    gate=Gate(metric="auc", must_beat=("prior", "popularity", "recency"), margin=0.02, max_calibration_error=0.15),
)

SPECS: Final = (AUDIENCE,)
