"""The ways in which a finished feature comes about, each from raw events to an int64 array that the oracle can judge."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray
from parity.adversarial import draw_events, to_table
from parity.oracle import Event, Oracle
from parity.pairs import Pair, draw_pairs

from features import events as event_log
from features import point_in_time, tiles
from features.codec import encode_states
from features.declarations import Catalog, View
from features.layout import US_PER_S
from features.rows import event_schema
from transforms.export import Arrays, Finisher, WindowGraph, graph_inputs
from transforms.plan import plan_graph

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Scenario:
    """Events, the reads to be made of them, and the oracle's integers: (n, I) int64."""

    catalog: Catalog
    view: View
    events: list[Event]
    table: pa.Table
    oracle: Oracle
    pairs: list[Pair]
    expected: Ints

    @property
    def names(self) -> list[str]:
        return [feature.name for feature in self.oracle.features]

    @property
    def entity_ids(self) -> pa.Array:
        return pa.array([pair.entity_id for pair in self.pairs], pa.string())

    @property
    def now_us(self) -> Ints:
        return np.array([pair.now_us for pair in self.pairs], dtype=np.int64)


def make_scenario(catalog: Catalog, view: View, *, users: int, pairs: int) -> Scenario:
    """Draw a scenario of the subscription catalog and ask the oracle."""
    signals = catalog.signals_of(view)
    events = draw_events(users, 1, partitions=catalog.log_partitions)
    table = to_table(events, event_schema(catalog.attributes_of(view.entity)))
    oracle = Oracle(events, signals, view.lag_s)
    drawn = draw_pairs(events, signals, view.lag_s, count=pairs, seed=2)
    answers = [list(oracle.integers(pair.entity_id, pair.now_us).values()) for pair in drawn]
    return Scenario(catalog, view, events, table, oracle, drawn, np.array(answers, dtype=np.int64))


def replay(scenario: Scenario) -> list[bytes]:
    """State bytes of every pair by the batch path."""
    states = point_in_time.states_as_known(
        scenario.table, scenario.catalog, scenario.view, scenario.entity_ids, scenario.now_us
    )  # fmt: skip
    answered: list[bytes] = states.to_pylist()
    return answered


def fold_in_micro_batches(scenario: Scenario, *, batches: int, seed: int) -> list[bytes]:
    """State bytes of every pair, its known events folded in shuffled order, a micro-batch at a time.

    The log reaches the de-duplication in shuffled order too; headers are left at zero.
    """
    rng = np.random.default_rng(seed)
    log = scenario.table.take(pa.array(rng.permutation(scenario.table.num_rows)))
    log = event_log.deduplicate(log, horizon_s=event_log.DEDUPLICATION_HORIZON_S)
    known_us = log["ingest_time"].cast(pa.int64()).to_numpy() + scenario.view.lag_s * US_PER_S
    rows_of_user: dict[str, list[int]] = {}
    for row, user in enumerate(log["entity_id"].to_pylist()):
        rows_of_user.setdefault(user, []).append(row)
    seen = [np.array(rows_of_user.get(pair.entity_id, []), dtype=np.int64) for pair in scenario.pairs]
    seen = [rows[known_us[rows] <= pair.now_us] for rows, pair in zip(seen, scenario.pairs, strict=True)]
    row, owner = np.concatenate(seen), np.repeat(np.arange(len(seen)), [len(rows) for rows in seen])
    shuffled = rng.permutation(len(row))
    cuts = sorted(random.Random(seed).sample(range(len(row)), batches - 1))
    plan, state = tiles.plan_fold(scenario.catalog.signals_of(scenario.view)), tiles.no_tiles()
    for part in np.split(shuffled, cuts):
        state = tiles.fold(state, log.take(pa.array(row[part])), owner[part], plan)
    nowhere = np.zeros(len(seen), dtype=np.int64)
    answered: list[bytes] = encode_states(state, nowhere, nowhere).to_pylist()
    return answered


def finish_by(finisher: Finisher, states: list[bytes], now_us: Ints) -> Arrays:
    """A saved graph's outputs for states at ``now_us``, fields at their defaults."""
    return finisher(_rows(states, now_us))


def trace_window_graph(scenario: Scenario) -> Callable[[list[bytes]], Ints]:
    """The window graph as the code now stands, traced anew, from states at the scenario's reads to integers."""
    plan = plan_graph(scenario.catalog, scenario.view)
    graph = WindowGraph(plan)

    def finish(states: list[bytes]) -> Ints:
        inputs = graph_inputs(_rows(states, scenario.now_us), plan)
        integers: Ints = graph.serve({name: tf.constant(values) for name, values in inputs.items()})["integers"].numpy()
        return integers

    return finish


def mismatches(scenario: Scenario, integers: Ints) -> list[str]:
    """A line for each integer that differs from the oracle's."""
    assert integers.shape == scenario.expected.shape
    assert integers.dtype == np.int64
    return [
        f"{scenario.pairs[row]} {scenario.names[column]}: oracle {scenario.expected[row, column]}, path {integers[row, column]}"
        for row, column in np.argwhere(integers != scenario.expected)
    ]


def _rows(states: list[bytes], now_us: Ints) -> pa.Table:
    return pa.table({"state": pa.array(states, pa.large_binary()), "now": pa.array(now_us, pa.timestamp("us", tz="UTC"))})
