"""Many candidates of one user: the user's state is decoded and finished once, everything else once a candidate.

A fitted graph has one place through which all of a state flows: its finished integers. The graph is imported twice, once
up to that place for the users, once from there on for the candidates, and the integers are gathered in between. They are
exact, and every float is computed from them as in the uncut graph, row by row, so features are the same bit for bit.
"""

from __future__ import annotations

from typing import Any, Final

import tensorflow as tf

from features.errors import explain
from transforms.errors import GraphError
from transforms.graph import ROW_MULTIPLE, Tensors

OWNER: Final = "owner"
"""int64 (n,): for each candidate the row of its user."""


class SplitGraph:
    """A fitted graph, cut at its finished integers."""

    def __init__(self, transform_fn: Any) -> None:
        """Find the cut.

        Args:
            transform_fn: of a loaded tf.Transform SavedModel.

        Raises:
            GraphError: the graph does not end its integers in a slice of the padded ones.
        """
        graph = transform_fn.graph
        names = sorted(transform_fn.structured_input_signature[0][0])
        self._definition = graph.as_graph_def()
        self._inputs = {name: tensor.name for name, tensor in zip(names, transform_fn.inputs, strict=False)}
        self._captures = [(inner.name, outer) for outer, inner in graph.captures]
        outputs = sorted(transform_fn.structured_outputs)
        self._outputs = {name: tensor.name for name, tensor in zip(outputs, transform_fn.outputs, strict=True)}
        producer = graph.get_tensor_by_name(self._outputs["integers"]).op
        while producer.type == "Identity":
            producer = producer.inputs[0].op
        if producer.type != "StridedSlice":
            raise GraphError(
                explain("fitted graph cannot be cut at its integers", which=self._outputs["integers"], got=producer.type,
                        expected="a slice of the padded integers", next_step="fit the graph again")
            )  # fmt: skip
        self._integers = producer.inputs[0].name

    def transform(self, users: Tensors, candidates: Tensors) -> tf.Tensor:
        """``transformed`` float32 (n, T) of n candidates of u users.

        Args:
            users: ``state``, ``now`` and the profile fields, each (u,).
            candidates: ``owner`` and the request fields, each (n,).
        """
        owner = candidates[OWNER]
        fields = {name: tensor for name, tensor in candidates.items() if name != OWNER}
        blank = {name: tf.zeros_like(users["now"]) if tensor.dtype == tf.int64 else tf.fill(tf.shape(users["now"]), "")
                 for name, tensor in fields.items()}  # fmt: skip
        integers = self._run({**users, **blank}, {}, self._integers)
        # A candidate's row stands where the uncut graph would have it: padded to the same multiple.
        padded = tf.pad(owner, [[0, -tf.size(owner) % ROW_MULTIPLE]])
        rows = {name: tf.gather(tensor, owner) for name, tensor in users.items() if name != "state"}
        inputs = {**rows, "state": tf.fill(tf.shape(owner), ""), **fields}
        return self._run(inputs, {self._integers: tf.gather(integers, padded)}, self._outputs["transformed"])

    def _run(self, inputs: Tensors, fed: Tensors, wanted: str) -> tf.Tensor:
        """One tensor of the graph, given its inputs and, by name, tensors that are known already."""
        given = {self._inputs[name]: tensor for name, tensor in inputs.items()} | fed
        default_graph = tf.compat.v1.get_default_graph()
        given |= {name: default_graph.capture(outer) for name, outer in self._captures}
        (result,) = tf.graph_util.import_graph_def(self._definition, input_map=given, return_elements=[wanted], name="")
        return result
