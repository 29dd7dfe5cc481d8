"""Zero skew: every path gives the integers that the oracle gives, at ten thousand awkward reads."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from parity.oracle import derive
from parity.paths import Scenario, finish_by, fold_in_micro_batches, make_scenario, mismatches, replay
from parity.state_reader import finish_state

from features.codec import body_of
from features.declarations import window_features
from transforms.export import Finisher, export_window_graph, load_finisher
from transforms.plan import plan_graph


@pytest.fixture(scope="module")
def window_graph(scenario: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Finisher:
    return _exported(scenario, tmp_path_factory.mktemp("window_graph"))


def _exported(scenario: Scenario, folder: Path) -> Finisher:
    export_window_graph(scenario.catalog, scenario.view, folder)
    return load_finisher(folder, plan_graph(scenario.catalog, scenario.view))


def test_the_scenario_is_awkward_enough_to_prove_anything(scenario: Scenario) -> None:
    assert scenario.expected.shape == (10_000, len(window_features(scenario.catalog.signals_of(scenario.view))))
    assert (scenario.expected != 0).mean() >= 0.3
    assert (scenario.expected < 0).any(), "no refund is larger than what was paid"
    never_set = [name for name, used in zip(scenario.names, scenario.expected.any(axis=0), strict=True) if not used]
    assert never_set == []
    assert min(Counter(pair.kind for pair in scenario.pairs).values()) >= 200


def test_batch_replay_through_the_exported_window_graph_equals_the_oracle(scenario: Scenario, window_graph: Finisher) -> None:
    outputs = finish_by(window_graph, replay(scenario), scenario.now_us)
    assert mismatches(scenario, outputs["integers"]) == []
    _assert_derived_floats_are_the_oracles(scenario, outputs["finished"])


def _assert_derived_floats_are_the_oracles(scenario: Scenario, finished: np.ndarray) -> None:
    """Elapsed times and ratios within one part in a million; missing ones are 0."""
    names = plan_graph(scenario.catalog, scenario.view).finished_names
    for pair, integers, row in zip(scenario.pairs, scenario.expected, finished, strict=True):
        derived = derive(scenario.view, dict(zip(scenario.names, integers.tolist(), strict=True)), pair.now_us)
        found = [float(row[names.index(name)]) for name in derived]
        assert found == pytest.approx([value or 0.0 for value in derived.values()], rel=1e-6), pair


@pytest.mark.parametrize("batches", [2, 9])
def test_micro_batches_in_shuffled_order_give_the_same_bytes(scenario: Scenario, window_graph: Finisher, batches: int) -> None:
    states = fold_in_micro_batches(scenario, batches=batches, seed=batches)
    assert [body_of(state) for state in states] == [body_of(state) for state in replay(scenario)]
    assert mismatches(scenario, finish_by(window_graph, states, scenario.now_us)["integers"]) == []


def test_states_alone_hold_what_the_oracle_answers(scenario: Scenario) -> None:
    signals = scenario.catalog.signals_of(scenario.view)
    reads = zip(replay(scenario), scenario.now_us.tolist(), strict=True)
    integers = [list(finish_state(state, signals, now_us).values()) for state, now_us in reads]
    assert mismatches(scenario, np.array(integers, dtype=np.int64)) == []


def test_hours_of_the_week_and_every_other_signal_of_the_catalog_equal_the_oracle(scenario: Scenario, tmp_path: Path) -> None:
    view = replace(scenario.view, name="everything", signals=tuple(signal.name for signal in scenario.catalog.signals))
    everything = make_scenario(scenario.catalog, view, users=120, pairs=2_000)
    outputs = finish_by(_exported(everything, tmp_path), replay(everything), everything.now_us)
    assert outputs["integers"].shape == (2_000, 54 + 168 + 2 * 169 + 2)
    assert mismatches(everything, outputs["integers"]) == []


def test_a_cold_entity_is_the_empty_state_and_all_zeros(scenario: Scenario) -> None:
    states = replay(scenario)
    cold = [number for number, pair in enumerate(scenario.pairs) if pair.kind == "cold"]
    assert len(cold) >= 200
    assert {states[number] for number in cold} == {b""}
    assert not scenario.expected[cold].any()
