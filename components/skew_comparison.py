"""Served rows of one version and log partition beside the same rows made again: transforms makes, monitoring compares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from components.served_rows import PROFILES_UNNAMED, Served
from features.declarations import Catalog, View
from features.event_log.complete import CompletePartition
from features.fingerprints import hash_inputs, hash_values
from features.layout import US_PER_S
from monitoring import skew
from monitoring.skew import Places, Tally

if TYPE_CHECKING:
    from transforms.rebuild import RowBuilder

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Version:
    """One audited model version and its declarations."""

    number: int
    catalog: Catalog
    view: View
    saved_model: Path


def compare_served(
    builder: RowBuilder, served: Served, log: CompletePartition, version: Version, tally: Tally, statuses: Counter[str]
) -> int:  # fmt: skip
    """Compare every row's hashes, then the whole rows; returns how many of these there are."""
    if not served.rows.num_rows:
        return 0
    ids = served.rows["entity_id"].combine_chunks()
    states = builder.states(log, ids, served.seen_to, served.place.tolist())
    tally.count_rows(skew.STATE, states.hashes != served.rows["state_hash"].to_numpy())
    as_of_us = served.profiles_as_of_us
    named = as_of_us >= 0
    profiles = builder.profiles(ids, np.maximum(as_of_us, 0))
    profile_hash = hash_values([column.to_pylist() for column in profiles.values()], len(ids))
    logged_hash = served.rows["profile_hash"].to_numpy()
    if profiles:
        statuses[PROFILES_UNNAMED] += int((~named).sum())
        tally.count_rows(skew.PROFILE, (profile_hash != logged_hash)[named])
    if not len(served.place):
        return 0
    rebuilt = _Rebuilt(
        states=[states.bytes_of[row] for row in served.place.tolist()],
        profiles={name: column.take(pa.array(served.place)).to_pylist() for name, column in profiles.items()},
        state_hash=states.hashes[served.place],
        profile_hash=np.where(named, profile_hash, logged_hash)[served.place],
        named=named[served.place],
    )
    _compare_whole(builder, served, rebuilt, version, tally)
    _compare_training(builder, served, log, version, tally)
    return len(served.place)


@dataclass(frozen=True)
class _Rebuilt:
    """Inputs of the whole rows as the batch path has them."""

    states: list[bytes]
    profiles: dict[str, list[Any]]
    state_hash: Ints
    profile_hash: Ints
    named: NDArray[np.bool_]


def _compare_whole(builder: RowBuilder, served: Served, rebuilt: _Rebuilt, version: Version, tally: Tally) -> None:
    catalog, view = version.catalog, version.view
    rows = served.rows.take(pa.array(served.place))
    places = _places(rows)
    fields = [orjson.loads(text) for text in served.whole["fields"].to_pylist()]
    signals = {signal.id: signal.name for signal in catalog.signals_of(view)}
    tally.add(skew.compare_states(served.whole["state"].to_pylist(), rebuilt.states, signals, places))
    # Where a row does not name the time of its profile values they cannot be made again: then the served ones stand.
    profiles = {
        name: [value if known else row[name] for value, known, row in zip(values, rebuilt.named, fields, strict=True)]
        for name, values in rebuilt.profiles.items()
    }
    tally.add(skew.compare_values(skew.PROFILE, fields, profiles, places))
    request = {field.name: [row[field.name] for row in fields] for field in view.request}
    inputs_hash = hash_inputs(rebuilt.state_hash, rebuilt.profile_hash, list(request.values()))
    tally.count_rows(skew.INPUTS, inputs_hash != rows["inputs_hash"].to_numpy())
    again = builder.finish(rebuilt.states, np.array(places.now_us), profiles | request)
    for kind, block, against, names in _blocks(builder, served.whole):
        found, differs = skew.compare_blocks(skew.REPLAY, kind, block, again[against], names, places)
        tally.add(found)
        tally.count_rows(kind, differs)
    found, differs = skew.compare_scores(rows["score"].to_numpy(), again["score"], places)
    tally.add(found)
    tally.count_rows(skew.SCORE, differs)


def _compare_training(
    builder: RowBuilder, served: Served, log: CompletePartition, version: Version, tally: Tally
) -> None:  # fmt: skip
    """Served features beside those of a training row of the same entity and ``now``; not of times that the log has dropped."""
    rows, whole = served.rows.take(pa.array(served.place)), served.whole
    if log.base is not None:
        known_us = rows["now"].cast(pa.int64()).to_numpy() - version.view.lag_s * US_PER_S
        told = pa.array(known_us >= log.base.known_from_us)
        rows, whole = rows.filter(told), whole.filter(told)
    if not rows.num_rows:
        return
    places = _places(rows)
    ids, now_us = rows["entity_id"].combine_chunks(), np.array(places.now_us)
    fields = [orjson.loads(text) for text in whole["fields"].to_pylist()]
    request = {field.name: [row[field.name] for row in fields] for field in version.view.request}
    trained = builder.finish(builder.states_for_training(log, ids, now_us), now_us, builder.profiles(ids, now_us) | request)
    names = list(zip(builder.plan.finished_names, builder.plan.finished_groups, strict=True))
    block = _matrix(whole, "finished", len(names), np.float32)
    found, _ = skew.compare_blocks(skew.TRAINING, skew.FINISHED, block, trained["finished"], names, places)
    tally.add(found)


def _blocks(builder: RowBuilder, whole: pa.Table) -> Iterator[tuple[str, NDArray[Any], str, list[tuple[str, str]]]]:
    """(kind, served block, output of the rebuilt row to compare with, (column, signal) of each column)."""
    from transforms.rebuild import WINDOWS

    plan = builder.plan
    integers = [(feature.name, feature.signal.name) for feature in plan.windows.features]
    finished = list(zip(plan.finished_names, plan.finished_groups, strict=True))
    transformed = list(zip(plan.transformed_names, plan.transformed_groups, strict=True))
    served = _matrix(whole, "integers", len(integers), np.int64)
    yield skew.INTEGERS, served, "integers", integers
    yield skew.WINDOWS, served, WINDOWS, integers
    yield skew.FINISHED, _matrix(whole, "finished", len(finished), np.float32), "finished", finished
    yield skew.TRANSFORMED, _matrix(whole, "transformed", len(transformed), np.float32), "transformed", transformed


def _matrix(whole: pa.Table, name: str, width: int, dtype: type[np.number[Any]]) -> NDArray[Any]:
    flat = whole[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    block: NDArray[Any] = flat.astype(dtype, copy=False).reshape(-1, width)
    return block


def _places(rows: pa.Table) -> Places:
    return Places(rows["entity_id"].to_pylist(), rows["now"].cast(pa.int64()).to_pylist())
