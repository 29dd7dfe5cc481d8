"""Names by which the room that trains a network of two towers and the room that exports it know its layers."""

from __future__ import annotations

from typing import Final

USER_TOWER: Final = "user_tower"
CAMPAIGN_TOWER: Final = "campaign_tower"
CALIBRATION: Final = "probability"
"""The layer that makes a probability of a logit: scale, shift and sigmoid."""
