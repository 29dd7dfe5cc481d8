"""Many features at once: which to show first, and which are worth a page.

Shown: by false discovery rate (Benjamini, Hochberg, Controlling the false discovery rate, 1995). Paged: by a chance of any
false page in the window, divided among the features by weights (Bonferroni's bound; Genovese, Roeder, Wasserman, False
discovery control with p-value weighting, 2006), and by an effect that matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from monitoring.drift.detectors import Values


@dataclass(frozen=True)
class Ranking:
    """Features in the order in which a person should look at them: those that page, then by q-value, effect and importance.

    ``threshold`` is what the p-value had to stay below; all arrays (F,).
    """

    names: tuple[str, ...]
    effect: Values
    p_value: Values
    q_value: Values
    threshold: Values
    importance: Values
    drifted: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def describe(self, top: int) -> dict[str, float | str]:
        """The first ones as flat evidence: ``feature_1``, ``effect_1`` and so on."""
        evidence: dict[str, float | str] = {}
        for number in range(min(top, len(self))):
            evidence[f"feature_{number + 1}"] = self.names[number]
            for name in ("effect", "p_value", "q_value", "threshold", "importance"):
                evidence[f"{name}_{number + 1}"] = float(getattr(self, name)[number])
        return evidence


def rank(
    names: Sequence[str], effect: Values, p_value: Values, weight: Values, importance: Mapping[str, float],
    limits: tuple[float, float | Values],
) -> Ranking:  # fmt: skip
    """Rank features.

    Args:
        weight: (F,) non-negative, of mean 1: how the chance is divided.
        importance: by feature; 0 where not named.
        limits: the chance of any false page, and the least effect that pages, of all or of each, (F,).
    """
    chance, floor = limits
    threshold = chance * weight / max(len(names), 1)
    drifted = (p_value <= threshold) & (effect >= floor) & (threshold > 0)
    q_value = find_q_values(p_value)
    importances = np.array([importance.get(name, 0.0) for name in names])
    order = np.lexsort((-importances, -effect, q_value, ~drifted))
    return Ranking(
        tuple(names[number] for number in order), effect[order], p_value[order], q_value[order], threshold[order],
        importances[order], drifted[order],
    )  # fmt: skip


def find_q_values(p_value: Values) -> Values:
    """(F,) smallest false discovery rate at which Benjamini and Hochberg's rule would name each.

    Example:
        >>> find_q_values(np.array([0.01, 0.04, 0.03, 0.5])).round(4).tolist()
        [0.04, 0.0533, 0.0533, 0.5]
    """
    count = len(p_value)
    if not count:
        return p_value.copy()
    order = np.argsort(p_value)
    scaled = p_value[order] * count / np.arange(1, count + 1)
    q_value = np.empty(count)
    q_value[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return q_value


def divide(names: Sequence[str], importance: Mapping[str, float], importance_share: float) -> Values:
    """(F,) weights of mean 1: a part of the whole divided by importance, the rest equally."""
    own = np.array([max(importance.get(name, 0.0), 0.0) for name in names])
    if not own.sum():
        return np.ones(len(names))
    weight: Values = (1 - importance_share) + importance_share * own * len(names) / own.sum()
    return weight
