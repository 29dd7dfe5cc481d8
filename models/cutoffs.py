"""Which rows a model is trained, validated and tested on: (entity, now) drawn from the log, split in time.

Base dates are midnights, ``every_s`` apart, counted back from the newest whose labels have matured by ``known_at``. Each
entity's row lies at a time of day of its own after the base date, so that windows over day tiles are seen at every phase.
With ``at_events`` a row lies at the ingest_time of each such event instead, and spans of ``every_s`` stand for base dates.
Newest first:

    censored    rows too new to have matured by ``known_at``, for methods that learn from such rows
    test        the newest base date or span that has matured
    embargo     rows whose labels had not matured when the test begins: no matured label of theirs was known then, but what
                was known of them teaches methods that learn from such rows, and a refit
    train       the earlier ones: someone standing where the test begins could have trained on them
    validation  rows that are held out at the training dates, whole entities where ``hold_out_rows`` does not say otherwise
    cold        copies of all test rows as of unknown entities; copies of other rows keep their split
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
CENSORED: Final = "censored"
COLD: Final = "cold"

_JITTER_SALT, _HOLD_OUT_SALT, _THINNING_SALT, _COLD_SALT = 1, 2, 3, 4
_UNIT: Final = float(1 << 53)
MEMBER_COLUMNS: Final = ("entity_id", "event_type", "event_time", "ingest_time")
"""What a population is drawn from."""


@dataclass(frozen=True)
class Sample:
    """Rows before their features.

    Attributes:
        entity_ids, now_us, split: (n,) strings, UTC microseconds, names of splits.
        test_begins_us: an evaluated model may know nothing later than this.
        touch: (n,) row numbers, in the events given, of those that the rows were drawn at; None with base dates.
    """

    entity_ids: pa.Array
    now_us: Ints
    split: NDArray[np.str_]
    test_begins_us: int
    touch: Ints | None = None


@dataclass(frozen=True)
class Past:
    """What is left of the events that a log has dropped for their age.

    Attributes:
        known_from_us: from here on nothing is missing, UTC microseconds.
        latest: each entity's last dropped event of each type: columns ``MEMBER_COLUMNS``.
    """

    known_from_us: int
    latest: pa.Table


@dataclass(frozen=True)
class _Draw:
    """Candidates: entity's code, when drawn (base date or now), now, and the event drawn at; then the test's bounds."""

    entity: Ints
    drawn_us: Ints
    now_us: Ints
    touch: Ints | None
    test_begins_us: int
    test_ends_us: int


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
        history_us = known_at_us - first_known_us
        raise _too_short(plan, history_us, needed_us=needed_us, got=f"{len(dates)} base dates")
    return dates


def sample_rows(events: pa.Table, spec: ModelSpec, *, lag_s: int, known_at_us: int, past: Past | None = None) -> Sample:
    """Draw the rows of a training run from an entity's log; the same log and arguments give the same rows.

    Args:
        events: deduplicated; columns entity_id, event_type, event_time, ingest_time. Later ones than ``known_at_us`` do
            not matter.
        spec: label, population and cutoff plan.
        lag_s: the view's declared lag.
        known_at_us: the instant as of which training happens.
        past: what is left of events that the log has dropped; no row is drawn before it is whole.
    Returns:
        Rows by ascending ``now``. Labels have matured but for ``censored`` rows, drawn where the spec learns from them.
    Raises:
        TrainingError: the history is too short, or nobody belongs to the population.
    """
    members = events.select(list(MEMBER_COLUMNS)) if past is None else _with_past(events, past)
    known = members.filter(pc.less_equal(members["ingest_time"].cast(pa.int64()), known_at_us))
    _require_events(known, spec)
    distinct = known["entity_id"].unique()
    first_us = _first_known_us(events) if past is None else max(_first_known_us(events), past.known_from_us)
    draw = (_draw_at_events if spec.cutoffs.at_events else _draw_at_dates)(events, spec, distinct, (first_us, known_at_us))
    ids = distinct.take(pa.array(draw.entity))
    # At an event the entity asks by that very event, so it belongs whatever the stream's lag.
    lag_s = 0 if spec.cutoffs.at_events else lag_s
    keep = population_at(members, spec.population, draw.now_us, lag_s=lag_s, entity_ids=ids)
    split = _split(spec, draw, ids, keep)
    keep &= (split != CENSORED) | (spec.learning.method != "matured")
    keep[keep] = _thin(spec.cutoffs, split[keep], _uniform(_hash_ids(ids), draw.drawn_us, _THINNING_SALT)[keep])
    order = np.flatnonzero(keep)[np.lexsort((draw.entity[keep], draw.now_us[keep]))]
    touch = None if draw.touch is None else draw.touch[order]
    return Sample(ids.take(pa.array(order)), draw.now_us[order], split[order], draw.test_begins_us, touch)


def hold_out_rows(spec: ModelSpec, entity_ids: pa.Array, now_us: Ints, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which rows are held out: those of some entities; or, where each outcome is credited to one row alone, some rows.

    With ``hold_out`` ``newest`` they are the newest of those ``among`` which are held out, about the share that is asked for.

    Attributed rows of one entity share no outcome, and few entities may make most rows: holding out agents who book for
    hundreds would calibrate on three or four of them. What an entity does at one instant stays together.
    """
    if spec.cutoffs.hold_out == "newest":
        if not among.any():
            return among.copy()
        newest: NDArray[np.bool_] = now_us >= np.quantile(now_us[among], 1 - spec.cutoffs.validation_share, method="higher")
        return newest
    if spec.label.attribution is None:
        return hold_out(entity_ids, spec.cutoffs.validation_share)
    units = [f"{entity}@{now}" for entity, now in zip(entity_ids.to_pylist(), now_us.tolist(), strict=True)]
    return hold_out(pa.array(units, pa.string()), spec.cutoffs.validation_share)


def draw_cold_copies(sample: Sample, plan: CutoffPlan) -> tuple[Ints, NDArray[np.str_]]:
    """Which rows are repeated as of unknown entities, as row numbers, and the split of each copy.

    All test rows are, where any row is: they cost no training, and a share of them would measure little.
    """
    chosen = _uniform(_hash_ids(sample.entity_ids), sample.now_us, _COLD_SALT) < plan.cold_share
    rows: Ints = np.flatnonzero(chosen | ((sample.split == TEST) & (plan.cold_share > 0)))
    return rows, np.where(sample.split[rows] == TEST, COLD, sample.split[rows])


def hold_out(entity_ids: pa.Array, share: float) -> NDArray[np.bool_]:
    """Which entities are held out for validation: a fixed choice by their id, the same in every run."""
    ids = entity_ids.combine_chunks() if isinstance(entity_ids, pa.ChunkedArray) else entity_ids
    held: NDArray[np.bool_] = _uniform(_hash_ids(ids), np.zeros(len(ids), np.int64), _HOLD_OUT_SALT) < share
    return held


def _draw_at_dates(events: pa.Table, spec: ModelSpec, distinct: pa.Array, span_us: tuple[int, int]) -> _Draw:
    """A row for every entity at every base date, and at those after the test that a row's whole day fits before the end."""
    plan, (first_known_us, known_at_us) = spec.cutoffs, span_us
    dates = draw_base_dates(plan, spec.label, first_known_us=first_known_us, known_at_us=known_at_us)
    step_us = plan.every_s * US_PER_S
    later: Ints = np.arange(dates[-1] + step_us, known_at_us - DAY_US + 1, step_us, dtype=np.int64)
    dates, test_us = np.concatenate([dates, later]), int(dates[-1])
    entity = np.tile(np.arange(len(distinct)), len(dates))
    base_us = np.repeat(dates, len(distinct))
    jitter = _uniform(_hash_ids(distinct)[entity], base_us, _JITTER_SALT)
    return _Draw(entity, base_us, base_us + (jitter * DAY_S).astype(np.int64) * US_PER_S, None, test_us, test_us + 1)


def _draw_at_events(events: pa.Table, spec: ModelSpec, distinct: pa.Array, span_us: tuple[int, int]) -> _Draw:
    """A row at the ingest_time of every event of the plan's types.

    The row's state holds what was known by then less the stream's lag, so it lacks the event itself, as a request made at
    that moment would find it; what the event says reaches the model by request fields.
    """
    plan, (first_known_us, known_at_us) = spec.cutoffs, span_us
    needed_us = (spec.label.horizon_s + spec.label.label_delay_s) * US_PER_S
    test_ends_us = known_at_us - needed_us + 1
    test_begins_us = test_ends_us - plan.every_s * US_PER_S
    oldest_us = max(test_ends_us - plan.most * plan.every_s * US_PER_S, first_known_us + plan.warm_up_s * US_PER_S)
    ingest_us = events["ingest_time"].cast(pa.int64()).to_numpy()
    chosen = pc.is_in(events["event_type"], value_set=pa.array(plan.at_events)).to_numpy(zero_copy_only=False)
    touch: Ints = np.flatnonzero(chosen & (ingest_us >= oldest_us) & (ingest_us <= known_at_us))
    now_us = ingest_us[touch]
    if not (now_us + needed_us <= test_begins_us).any():
        history_us = known_at_us - first_known_us
        raise _too_short(plan, history_us, needed_us=needed_us, got=f"no {', '.join(plan.at_events)} to train on")
    entity = pc.index_in(events["entity_id"].take(pa.array(touch)), value_set=distinct).to_numpy().astype(np.int64)
    return _Draw(entity, now_us, now_us, touch, test_begins_us, test_ends_us)


def _split(spec: ModelSpec, draw: _Draw, ids: pa.Array, members: NDArray[np.bool_]) -> NDArray[np.str_]:
    needed_us = (spec.label.horizon_s + spec.label.label_delay_s) * US_PER_S
    matured_us = draw.drawn_us + needed_us + (DAY_US if draw.touch is None else 0)
    held_out = hold_out_rows(spec, ids, draw.now_us, members & (matured_us <= draw.test_begins_us))
    evaluated = np.where(matured_us <= draw.test_begins_us, np.where(held_out, VALIDATION, TRAIN), EMBARGO)
    tested = np.where(draw.drawn_us >= draw.test_begins_us, TEST, evaluated)
    split: NDArray[np.str_] = np.where(draw.drawn_us >= draw.test_ends_us, CENSORED, tested)
    return split


def _with_past(events: pa.Table, past: Past) -> pa.Table:
    latest = past.latest.select(list(MEMBER_COLUMNS))
    return pa.concat_tables([latest, events.select(list(MEMBER_COLUMNS)).cast(latest.schema)])


def _first_known_us(events: pa.Table) -> int:
    first: int = pc.min(events["ingest_time"].cast(pa.int64())).as_py()
    return first


def _too_short(plan: CutoffPlan, history_us: int, *, needed_us: int, got: str) -> TrainingError:
    return TrainingError(
        explain(
            "history is too short to train and test in time order",
            which=f"{history_us / DAY_US:.0f} days of events",
            expected=f"at least {(plan.warm_up_s * US_PER_S + 2 * needed_us) / DAY_US:.0f} days",
            got=got,
            next_step="import more history or move known_at forward",
        )
    )


def _thin(plan: CutoffPlan, split: NDArray[np.str_], chance: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows are kept; test rows take a third at most, so that many users leave rows to learn from."""
    test = split == TEST
    tested, others = int(test.sum()), int((~test).sum())
    room = min(tested, plan.rows_at_most // 3)
    kept: NDArray[np.bool_] = np.where(test, chance * tested < room, chance * others < plan.rows_at_most - room)
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
