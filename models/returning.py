"""Returning: who of those that were active lately will act again."""

from __future__ import annotations

from typing import Final

from features.layout import DAY_S
from models.specs import CutoffPlan, Gate, LabelSpec, Learning, ModelSpec, Population

ACTIONS: Final = ("answer_to_question", "comment_to_question", "comment_to_answer")

RETURNING: Final = ModelSpec(
    name="returning",
    title="contributor acts again within 30 days",
    catalog="mathoverflow",
    view="contributor",
    # An action reaches the log a minute after it happens.
    label=LabelSpec(outcome=ACTIONS, horizon_s=30 * DAY_S, positive="occurs", label_delay_s=DAY_S),
    population=Population(entered_by=ACTIONS, active_within_s=60 * DAY_S),
    cutoffs=CutoffPlan(every_s=15 * DAY_S, rows_at_most=150_000),
    recency="since_last_action_s",
    # Boosting beat a network of the same inputs by a little more than noise at the one cutoff where both were compared.
    learning=Learning(learner="lightgbm"),
    # A test has some 1,800 contributors of whom 600 return: AUC is known to about 0.01.
    gate=Gate(metric="auc", margin=0.01),
    activity="actions_count_lifetime",
)

SPECS: Final = (RETURNING,)
