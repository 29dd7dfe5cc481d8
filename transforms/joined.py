"""Counts of another entity that stand in a request, finished by the window graph of that entity's view.

The same operations run over training rows here, and over what a store holds as a signature of the exported model: batch and
servers ask the model, so that what a version learned is what it is given, whoever asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray

from features.declarations import Catalog, View
from features.joins import Join
from features.online.store import OnlineReader
from transforms.graph import Tensors, finish_windows
from transforms.plan import plan_windows

STATE_SPECS = {"state": tf.TensorSpec([None], tf.string, name="state"), "now": tf.TensorSpec([None], tf.int64, name="now")}
"""Inputs, each (n,): states of the joined entities as the log or a store has them, and ``now`` in UTC microseconds."""


class JoinedGraph(tf.Module):
    """Finishes the fields of one join."""

    def __init__(self, catalog: Catalog, join: Join) -> None:
        super().__init__()
        self._plan = plan_windows(catalog.signals_of(catalog.view(join.view)))
        names = [feature.name for feature in self._plan.features]
        self._columns = {name: names.index(name) for name in join.fields}
        self.serve = tf.function(self._serve, input_signature=[STATE_SPECS])

    def finish(self, states: Sequence[bytes], now_us: Sequence[int] | NDArray[Any]) -> dict[str, NDArray[Any]]:
        """(n,) int64 of each field."""
        found = self.serve({"state": tf.constant(states, tf.string), "now": tf.constant(now_us, tf.int64)})
        return {name: tensor.numpy() for name, tensor in found.items()}

    def _serve(self, inputs: Tensors) -> Tensors:
        integers = finish_windows(self._plan, inputs["state"], inputs["now"])
        return {name: integers[:, column] for name, column in self._columns.items()}


def joined_graphs(catalog: Catalog, view: View) -> dict[str, JoinedGraph]:
    """The graphs of a view's joins by signature."""
    return {join.signature: JoinedGraph(catalog, join) for join in view.joins}


def join_stored(
    signatures: Mapping[str, Any], join: Join, store: OnlineReader, keys: Sequence[str], now_us: int
) -> dict[str, list[int]]:
    """(n,) values of each field of a join for n ids, from a store and by a loaded model's signature; "" names nobody."""
    named = list(dict.fromkeys(key for key in keys if key))
    states = dict(zip(named, store.get_many(named, profiles=False).states, strict=True)) if named else {}
    state = tf.constant([states.get(key, b"") for key in keys], tf.string)
    found = signatures[join.signature](state=state, now=tf.fill([len(keys)], tf.constant(now_us, tf.int64)))
    return {name: found[name].numpy().tolist() for name in join.fields}
