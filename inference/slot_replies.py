"""``slots`` of a V1 reply: what a scheduler needs of a model of hours of the week.

    {"time_zone": "Europe/Berlin",
     "now": "Mon 14:00",
     "best": [{"slot": 20, "begins": "Mon 20:00", "starts_at": "2025-06-02T18:00:00Z", "wait_s": 21600,
               "gain_over_now": {"value": 1.4, "low": 0.6, "high": 2.7}}, ...],
     "reason": "own history", "weights": {"own history": 0.81, "segment": 0.15, "everyone": 0.04},
     "effective_sample_size": 23.7,
     "probability": [0.003, ...]}

Slots count hours from Monday 00:00 by the user's clock; ``probability`` has one for each. ``begins`` and ``now`` are local,
``starts_at`` is UTC and knows of changes of the clock. A gain of 1.4 over now says that 2.4 times as many responses come if it
is sent then; its interval is one of 95 %. ``reason`` is where most of the distribution comes from.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from features import slots as contract
from features.slots import SLOTS
from features.zones import UTC as NO_ZONE
from inference.artifact import ModelArtifact

if TYPE_CHECKING:
    from inference.predictor import Floats
    from inference.replies import Answer

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
GAIN: Final = {"value": contract.GAIN, "low": contract.GAIN_LOW, "high": contract.GAIN_HIGH}
OWN, SEGMENT, EVERYONE = "own history", "segment", "everyone"


def describe_slots(answer: Answer, slots: Floats, artifact: ModelArtifact) -> list[dict[str, Any]]:
    """One object an entity; of an entity with candidates that of its first one, since slots are the user's own."""
    zones = answer.inputs.tensors.get(artifact.view.time_zone, [NO_ZONE] * len(answer.request.entity_ids))
    described = []
    row = 0
    for zone, now_us, count in zip(zones, answer.request.now_us, answer.request.counts, strict=True):
        facts = dict(zip(artifact.slot_names[SLOTS:], slots[row, SLOTS:].tolist(), strict=True))
        described.append(_describe(zone, now_us, slots[row, :SLOTS].tolist(), facts))
        row += count
    return described


def _describe(zone: str, now_us: int, probability: list[float], facts: dict[str, float]) -> dict[str, Any]:
    weights = {OWN: facts[contract.OWN], SEGMENT: facts[contract.SEGMENT]}
    weights[EVERYONE] = max(1 - sum(weights.values()), 0.0)
    return {
        "time_zone": zone,
        "now": name_slot(int(facts[contract.NOW])),
        "best": [_describe_best(place, now_us, facts) for place in range(1, contract.BEST + 1)],
        "reason": max(weights, key=lambda name: weights[name]),
        "weights": weights,
        "effective_sample_size": facts[contract.EFFECTIVE],
        "probability": probability,
    }


def _describe_best(place: int, now_us: int, facts: dict[str, float]) -> dict[str, Any]:
    slot, wait_s = (int(facts[contract.of_best(name, place)]) for name in (contract.SLOT, contract.WAIT_S))
    starts_at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now_us) + timedelta(seconds=wait_s)
    return {
        "slot": slot,
        "begins": name_slot(slot),
        "starts_at": starts_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "wait_s": wait_s,
        "gain_over_now": {end: facts[contract.of_best(name, place)] for end, name in GAIN.items()},
    }


def name_slot(slot: int) -> str:
    """A slot by day and hour.

    Example:
        >>> name_slot(0), name_slot(167)
        ('Mon 00:00', 'Sun 23:00')
    """
    return f"{DAYS[slot // 24]} {slot % 24:02d}:00"
