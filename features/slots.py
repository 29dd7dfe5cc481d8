"""What a model of hours of the week answers: the contract between who exports it, who serves it and who reads its replies.

An hour of the week is called a slot, counted from Monday 00:00 by the user's clock.
"""

from __future__ import annotations

from typing import Final

SLOTS: Final = 168
BEST: Final = 3
"""How many slots are recommended."""

NOW: Final = "now"
EFFECTIVE, OWN, SEGMENT = "effective_sample_size", "own", "segment"
SLOT, WAIT_S, GAIN, GAIN_LOW, GAIN_HIGH = "best", "wait_s", "gain", "gain_low", "gain_high"

OWN_FACTS: Final = (EFFECTIVE, OWN, SEGMENT)


def of_best(fact: str, place: int) -> str:
    """The column of a fact of the best slot (place 1), the next one (2), and so on.

    Example:
        >>> of_best(WAIT_S, 2)
        'wait_s_2'
    """
    return f"{fact}_{place}"


FACTS: Final = (
    NOW,
    *OWN_FACTS,
    *(of_best(fact, place) for fact in (SLOT, WAIT_S, GAIN, GAIN_LOW, GAIN_HIGH) for place in range(1, BEST + 1)),
)
"""Columns after the distribution: the slot of ``now``; effective sample size of the user's own actions, and the parts of the
distribution that are the user's own and the segment's; then of each of the best slots its number, how many seconds until it
begins (0 within it), and its gain over now with an interval."""

OUTPUT_NAMES: Final = (*(f"h{slot:03d}" for slot in range(SLOTS)), *FACTS)
"""Outputs after the score: the distribution over slots, and the facts."""
