"""Which rows a model is trained, validated and tested on: (entity, now) drawn from the log, split in time.

Base dates are midnights, ``every_s`` apart, counted back from the newest whose labels have matured by ``known_at``. Each
entity's row lies at a time of day of its own after the base date, so that windows over day tiles are seen at every phase.
Newest first:

    test        the newest base date
    embargo     base dates whose labels had not matured by the test's base date: no part of the evaluation, used by a refit
    train       the earlier ones: someone standing at the test's base date could have trained on them
    validation  rows of held-out entities at the training dates
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.errors import explain
from features.layout import DAY_S, US_PER_S
from models.errors import TrainingError
from models.labels import Ints, population_at
from models.specs import CutoffPlan, LabelSpec, ModelSpec

DAY_US: Final = DAY_S * US_PER_S

TRAIN: Final = "train"
VALIDATION: Final = "validation"
EMBARGO: Final = "embargo"
TEST: Final = "test"

_JITTER_SALT, _HOLD_OUT_SALT, _THINNING_SALT = 1, 2, 3
_UNIT: Final = float(1 << 53)


@dataclass(frozen=True)
class Sample:
    """Rows before their features: (n,) entity ids, ``now`` in UTC microseconds, and the split's name."""

    entity_ids: pa.Array
    now_us: Ints
    split: pa.Array


def draw_base_dates(plan: CutoffPlan, label: LabelSpec, *, first_known_us: int, known_at_us: int) -> Ints:
    """Midnights in ascending order; a row of any time of the day after each has matured by ``known_at_us``.

    Raises:
        TrainingError: fewer than two base dates fit, or none is left to train on once the test's labels are set apart.
    """
    horizon_us = (label.horizon_s + label.label_delay_s) * US_PER_S
    newest = (known_at_us - horizon_us) // DAY_US * DAY_US - DAY_US
    oldest = first_known_us + plan.warm_up_s * US_PER_S
    dates: Ints = np.arange(newest, oldest - 1, -plan.every_s * US_PER_S, dtype=np.int64)[: plan.most][::-1]
    needed_us = horizon_us + DAY_US
    if len(dates) < 2 or dates[0] + needed_us > dates[-1]:
        raise TrainingError(
            explain(
                "history is too short to train and test in time order",
                which=f"{(known_at_us - first_known_us) / DAY_US:.0f} days of events",
                expected=f"at least {(plan.warm_up_s * US_PER_S + 2 * needed_us) / DAY_US:.0f} days",
                got=f"{len(dates)} base dates",
                next_step="import more history or move known_at forward",
            )
        )
    return dates


def sample_rows(events: pa.Table, spec: ModelSpec, *, lag_s: int, known_at_us: int) -> Sample:
    """Draw the rows of a training run from an entity's log; the same log and arguments give the same rows.

    Args:
        events: deduplicated; columns entity_id, event_type, event_time, ingest_time. Later ones than ``known_at_us`` do
            not matter.
        spec: label, population and cutoff plan.
        lag_s: the view's declared lag.
        known_at_us: the instant as of which training happens.
    Returns:
        Rows sorted by (now, entity id); every label among them has matured.
    Raises:
        TrainingError: the history is too short, or nobody belongs to the population.
    """
    events = events.filter(pc.less_equal(events["ingest_time"].cast(pa.int64()), known_at_us))
    _require_events(events, spec)
    first_known_us = pc.min(events["ingest_time"].cast(pa.int64())).as_py()
    dates = draw_base_dates(spec.cutoffs, spec.label, first_known_us=first_known_us, known_at_us=known_at_us)
    distinct = events["entity_id"].unique()
    entity = np.tile(np.arange(len(distinct)), len(dates))
    base_us = np.repeat(dates, len(distinct))
    entity_hash = _hash_ids(distinct)
    now_us = base_us + (_uniform(entity_hash[entity], base_us, _JITTER_SALT) * DAY_S).astype(np.int64) * US_PER_S
    belongs = population_at(events, spec.population, now_us, lag_s=lag_s, entity_ids=distinct.take(pa.array(entity)))
    entity, base_us, now_us = entity[belongs], base_us[belongs], now_us[belongs]
    split = _split(spec, base_us, dates, hold_out(distinct, spec.cutoffs.validation_share)[entity])
    keep = _thin(spec.cutoffs, split, _uniform(entity_hash[entity], base_us, _THINNING_SALT))
    order = np.flatnonzero(keep)[np.lexsort((entity[keep], now_us[keep]))]
    return Sample(distinct.take(pa.array(entity[order])), now_us[order], pa.array(split[order].tolist(), pa.string()))


def hold_out(entity_ids: pa.Array, share: float) -> NDArray[np.bool_]:
    """Which entities are held out for validation: a fixed choice by their id, the same in every run."""
    ids = entity_ids.combine_chunks() if isinstance(entity_ids, pa.ChunkedArray) else entity_ids
    held: NDArray[np.bool_] = _uniform(_hash_ids(ids), np.zeros(len(ids), np.int64), _HOLD_OUT_SALT) < share
    return held


def _split(spec: ModelSpec, base_us: Ints, dates: Ints, held_out: NDArray[np.bool_]) -> NDArray[np.str_]:
    matured_us = base_us + DAY_US + (spec.label.horizon_s + spec.label.label_delay_s) * US_PER_S
    evaluated = np.where(held_out, VALIDATION, TRAIN)
    return np.where(base_us == dates[-1], TEST, np.where(matured_us <= dates[-1], evaluated, EMBARGO))


def _thin(plan: CutoffPlan, split: NDArray[np.str_], chance: NDArray[np.float64]) -> NDArray[np.bool_]:
    test = split == TEST
    others = int((~test).sum())
    room = max(plan.rows_at_most - int(test.sum()), 1)
    kept: NDArray[np.bool_] = test | (chance * others < room)
    return kept


def _hash_ids(ids: pa.Array) -> NDArray[np.uint64]:
    """64 bits for each id, the same on every machine and in every version: BLAKE2b over UTF-8."""
    digests = b"".join(blake2b(text.encode(), digest_size=8).digest() for text in ids.to_pylist())
    return np.frombuffer(digests, dtype="<u8")


def _uniform(entity_hash: NDArray[np.uint64], base_us: Ints, salt: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each (entity, base date): the splitmix64 finaliser over both.

    Source: Steele, Lea, Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    mixed = (
        entity_hash ^ (base_us.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) ^ np.uint64(salt * 0xD1B54A32D192ED03 % 2**64)
    )
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    unit: NDArray[np.float64] = (mixed >> np.uint64(11)).astype(np.float64) / _UNIT
    return unit


def _require_events(events: pa.Table, spec: ModelSpec) -> None:
    kinds = set(spec.population.entered_by)
    if not kinds & set(events["event_type"].unique().to_pylist()):
        raise TrainingError(
            explain(
                "nobody belongs to the population",
                which=f"model {spec.name!r}",
                expected=f"events of {', '.join(sorted(kinds))}",
                got=f"none among {events.num_rows} events",
                next_step="import events of that type",
            )
        )
