"""What candidates are measured by: how each metric is named, and which way is better."""

from __future__ import annotations

from typing import Final, Literal

Metric = Literal["auc", "log_loss", "calibration_error", "nll", "top1", "top3"]

BINARY_METRICS: Final[tuple[Metric, ...]] = ("auc", "log_loss", "calibration_error")
"""Of models whose score is the probability of a label."""

SLOT_METRICS: Final[tuple[str, ...]] = ("nll", "top1", "top3")
"""Of models of the hour of the week: negative log likelihood of an action's hour in nats, and the share of actions in the
likeliest hour, or in one of the three likeliest."""

HIGHER_IS_BETTER: Final[dict[str, bool]] = {
    "auc": True, "log_loss": False, "calibration_error": False, "nll": False, "top1": True, "top3": True,
}  # fmt: skip

METRIC_TITLES: Final = {
    "auc": "AUC", "log_loss": "log loss", "calibration_error": "calibration error",
    "nll": "NLL an action", "top1": "top 1", "top3": "top 3",
}  # fmt: skip
