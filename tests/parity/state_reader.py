"""Finish features from state bytes one tile at a time: tells a wrong state from a wrong graph when parity fails.

Written from the text of the state's format alone; it imports nothing of Plumbline.
"""

from __future__ import annotations

import struct
from typing import Any

from parity.oracle import SECOND_US, features_of, period_s

OPERATIONS = ("count", "sum", "max", "last", "first")
PERIODS_S = (60, 300, 3_600, 86_400)


def finish_state(state: bytes, signals: tuple[Any, ...], now_us: int) -> dict[str, int]:
    """Every window feature of the signals, by name, in the order of the declarations."""
    tiles: dict[tuple[int, str, int, int], list[tuple[int, int]]] = {}
    for key, value in list(struct.iter_unpack("<qq", state))[1:]:
        series = (key >> 48, OPERATIONS[key >> 45 & 7], key >> 42 & 7, key >> 32 & 1023)
        tiles.setdefault(series, []).append((key & 0xFFFF_FFFF, value))
    finished = {}
    for signal in signals:
        for feature in features_of(signal):
            period = period_s(feature.window_s)
            resolution = PERIODS_S.index(period) if feature.window_s else 4
            inside = tiles.get((signal.id, feature.operation, resolution, feature.by), [])
            if feature.window_s:
                newest = now_us // (period * SECOND_US)
                inside = [(b, value) for b, value in inside if newest - feature.window_s // period < b <= newest]
            values = [value for _, value in inside]
            reduce = {"first": min, "last": max, "max": max}.get(feature.operation, sum)
            finished[feature.name] = reduce(values) if values else 0
    return finished
