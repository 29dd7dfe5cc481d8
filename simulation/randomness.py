"""One random stream for each (seed, story, day).

No story's draws can shift another's, and nothing drawn on or after a day can change what was drawn before it: two
simulations that differ only from some day on are equal up to that day.
"""

from __future__ import annotations

from typing import Final

import numpy as np

STORIES: Final = ("population", "warm_up", "mood", "hazards", "sessions", "messages", "billing", "delivery", "truth")
_DAY_SHIFT: Final = 10_000
"""Keeps the entropy non-negative for days before the start."""


def stream(seed: int, story: str, day: int = 0) -> np.random.Generator:
    """The generator of one story on one local day (negative before the start)."""
    return np.random.Generator(np.random.PCG64([seed, STORIES.index(story), day + _DAY_SHIFT]))
