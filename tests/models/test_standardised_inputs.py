"""A network that is fitted to standardised inputs takes raw ones once they are folded in."""

from __future__ import annotations

import numpy as np
import pytest

from models.specs import NetworkSpec
from models.train import LEAST_DEVIATION, build_network, fold_inputs, measure_inputs, predict_all, unfold_inputs


@pytest.mark.parametrize("hidden", [(), (4,), (4, 3)])
def test_folding_moves_standardisation_into_the_first_layers(hidden: tuple[int, ...]) -> None:
    inputs = np.random.default_rng(1).normal([3, -2, 0.5], [5, 0.1, 1], (50, 3)).astype(np.float32)
    network = build_network(3, 2, NetworkSpec(hidden=hidden, members=2))
    mean, deviation = measure_inputs(inputs)
    expected = predict_all(network, (inputs - mean) / deviation)
    before = network.get_weights()
    fold_inputs(network, mean, deviation)
    np.testing.assert_allclose(predict_all(network, inputs), expected, atol=1e-5)
    unfold_inputs(network, mean, deviation)
    for weights, restored in zip(before, network.get_weights(), strict=True):
        np.testing.assert_allclose(restored, weights, atol=1e-5)


def test_a_column_that_hardly_varied_does_not_swamp_the_others() -> None:
    inputs = np.array([[1, 0], [1, 2], [1 + 1e-6, 4]], np.float32)
    mean, deviation = measure_inputs(inputs)
    # Deviations: 5e-7, far below the least; of 0, 2, 4 it is sqrt(8 / 3).
    np.testing.assert_allclose(deviation, [LEAST_DEVIATION, np.sqrt(8 / 3)], rtol=1e-6)
    np.testing.assert_allclose(mean, [1, 2], rtol=1e-6)
