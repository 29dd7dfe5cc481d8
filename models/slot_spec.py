"""Which counts a model of hours of the week learns from; an hour of the week is called a slot (``features.slots``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

STRENGTHS: Final = ("raw", "user", "segment", "sends", "hour_precision", "same_day", "same_kind", "all_days", "carry", "rhythm")
"""Numbers that ``models.slot_learning`` fits: the first four and the kernel's precision as logarithms, then three logits of how
the kernel divides an event among days, and the logits of the share of actions that follow in the hour after their occasion, and
of the part of what is expected of a user that comes from the shape of day that all share."""


@dataclass(frozen=True)
class SlotSpec:
    """Inputs of a model of slots, named as its view names them.

    Attributes:
        acts: a signal that counts by hour of the week what is predicted: opens, actions.
        sends: the same of what gave occasion, whose uneven hours are corrected for; empty where nothing did.
        segment: a string field whose values share a prior; empty for the prior of everyone alone.
        weight_cap: greatest inverse propensity, in units of an even share: a slot that is sent to more rarely than once in
            ``168 * weight_cap`` messages counts no more than that.
    """

    acts: str
    sends: str = ""
    segment: str = ""
    weight_cap: float = 10.0
